"""`debug_image`: the camera image with what was seen drawn on it."""

from __future__ import annotations

from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from yolojet_ros.core.drawing import draw_detections
from yolojet_ros.core.head import TASKS
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.nodes.detector_parameters import DetectorParameters
from yolojet_ros.nodes.outputs.output import Output, Result
from yolojet_ros.ros.images import image_message


class DebugImage(Output):
    """Drawn only while somebody listens and the parameter `debug_image` allows it."""

    topic = 'debug_image'
    depth = 1
    tasks = TASKS

    def __init__(self, node: Node, card: ModelCard, camera: str = '') -> None:
        super().__init__(node, card, camera)
        self.extras = card.task in ('segment', 'pose')
        self._allowed = True

    @staticmethod
    def kind() -> type:
        return Image

    def apply(self, parameters: DetectorParameters) -> None:
        self._allowed = parameters.debug_image

    def wanted(self) -> bool:
        return self._allowed and super().wanted()

    def message(self, header: Header, result: Result) -> Image:
        picture = result.view.bgr().copy()  # others see that one, too
        return image_message(header, draw_detections(
            picture, result.detections, self.card.names, result.labels), 'bgr8')
