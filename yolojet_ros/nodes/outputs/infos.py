"""`vision_info` and `label_info`: who detects, and what the classes are called; latched."""

from __future__ import annotations

from typing import Optional

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Header
from vision_msgs.msg import LabelInfo, VisionInfo

from yolojet_ros.inference.backend import Backend
from yolojet_ros.nodes.detector_parameters import DetectorParameters
from yolojet_ros.ros import messages
from yolojet_ros.ros.topics import of_camera

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL,
                      reliability=ReliabilityPolicy.RELIABLE)


class Infos:
    """Says once what a model is, and its classes again when the threshold changes."""

    def __init__(self, node: Node, backend: Backend, camera: str = '') -> None:
        self._node, self._camera = node, camera
        self._card = backend.card
        self._threshold: Optional[float] = None  # that was said
        self._vision = node.create_publisher(
            VisionInfo, of_camera(camera, 'vision_info'), _LATCHED)
        self._labels = node.create_publisher(
            LabelInfo, of_camera(camera, 'label_info'), _LATCHED)
        self.adopt(backend)

    def adopt(self, backend: Backend) -> None:
        """Publish who detects from now on; `apply` publishes the class names."""
        self._card, self._threshold = backend.card, None
        self._vision.publish(messages.vision_info_message(
            self._header(), backend.card, backend.description))

    def apply(self, parameters: DetectorParameters) -> None:
        """Publish the class names, if the least score of what is published is another now."""
        classifies = self._card.task == 'classify'  # whose best classes may all be unlikely
        threshold = 0.0 if classifies else parameters.filters_of(
            self._camera).score_threshold
        if threshold != self._threshold:
            self._threshold = threshold
            self._labels.publish(
                messages.label_info_message(self._header(), self._card, threshold))

    def close(self) -> None:
        """Withdraw both topics."""
        for publisher in (self._vision, self._labels):
            self._node.destroy_publisher(publisher)

    def _header(self) -> Header:
        return Header(stamp=self._node.get_clock().now().to_msg())
