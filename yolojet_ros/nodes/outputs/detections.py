"""`detections`: boxes, classes, scores and ids."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from yolojet_ros.core.detections import Detections
from yolojet_ros.core.head import OBJECT_TASKS
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.nodes.outputs.output import Output, Result
from yolojet_ros.ros.cdr import DetectionsWriter
from yolojet_ros.ros.messages import check_writer

_SAMPLE = Detections(
    np.array([[1, 2, 30, 40], [5, 6, 70, 80]], np.float32), np.array([0.5, 0.25], np.float32),
    np.array([0, 0], np.int32), np.array([7, -1]),
    rotated=np.array([[9, 9, 8, 4, 0.5], [40, 40, 30, 20, -0.5]], np.float32))


class DetectionsOutput(Output):
    """
    One message for every processed image, also where nothing is seen.

    :raises UserError: if the installed vision_msgs lays it out in another way.
    """

    topic = 'detections'
    tasks = OBJECT_TASKS

    def __init__(self, node: Node, card: ModelCard, camera: str = '') -> None:
        self.adopt(card)
        super().__init__(node, card, camera)

    def adopt(self, card: ModelCard) -> None:
        self._writer = DetectionsWriter(card.names)
        check_writer(self._writer, _SAMPLE, card.names)
        super().adopt(card)

    @staticmethod
    def kind() -> type:
        return Detection2DArray

    def wanted(self) -> bool:
        # Who comes to listen is found late; this costs less than what he would miss.
        return True

    def message(self, header: Header, result: Result) -> bytes:
        return self._writer(header, result.detections)
