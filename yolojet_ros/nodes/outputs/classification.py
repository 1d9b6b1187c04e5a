"""`classification`: what a classifier takes the image for."""

from __future__ import annotations

from rclpy.node import Node
from std_msgs.msg import Header
import vision_msgs.msg

from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.nodes.detector_parameters import DetectorParameters
from yolojet_ros.nodes.outputs.output import Output, Result
from yolojet_ros.ros.messages import classification_message


class ClassificationOutput(Output):
    """The best `top_k` classes for every processed image, the best first."""

    topic = 'classification'
    tasks = ('classify',)

    def __init__(self, node: Node, card: ModelCard, camera: str = '') -> None:
        super().__init__(node, card, camera)
        self._top_k = 1

    @staticmethod
    def kind() -> type:
        return vision_msgs.msg.Classification

    def apply(self, parameters: DetectorParameters) -> None:
        self._top_k = parameters.top_k

    def wanted(self) -> bool:
        return True  # as of detections

    def message(self, header: Header, result: Result) -> vision_msgs.msg.Classification:
        return classification_message(
            header, result.detections.probabilities, self.card.names, self._top_k)
