"""The interface of an output: one topic, made of what was seen on an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Dict, Optional, Tuple

import numpy as np
from rclpy.node import Node
from std_msgs.msg import Header

from yolojet_ros.core.detections import Detections
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.core.stage_times import StageTimes
from yolojet_ros.nodes.detector_parameters import DetectorParameters
from yolojet_ros.ros.topics import of_camera


@dataclass(frozen=True)
class Result:
    """
    What was seen on an image.

    view: the image
    detections: those that the user is to see, all outputs by the same index
    """

    view: ImageView
    detections: Detections

    @cached_property
    def labels(self) -> Optional[np.ndarray]:
        """Return uint16[H, W], 1 + index of a pixel's detection, 0 for none; None unmasked."""
        masks = self.detections.masks
        return None if masks is None else masks.labels()


class Output(ABC):
    """
    One topic of the detector; it exists from configure to cleanup.

    topic, depth: its name, and messages that may wait
    tasks: of the models that have it
    extras: whether it shows masks or keypoints, which are computed only while it is wanted

    `wanted` and `publish` are called by the thread of the frames.
    """

    topic: str
    depth: int = 5
    tasks: Tuple[str, ...]
    extras: bool = False

    def __init__(self, node: Node, card: ModelCard, camera: str = '') -> None:
        self.card = card
        self._node = node
        self._publisher = node.create_publisher(
            self.kind(), of_camera(camera, self.topic), self.depth)

    @classmethod
    def obstacle(cls, card: ModelCard) -> str:
        """Return why a model with the right task cannot have this output, '' if it can."""
        return ''

    @property
    def full_topic(self) -> Tuple[str, str]:
        """Return name and type of the topic."""
        kind = self.kind()
        package = kind.__module__.partition('.')[0]
        return self._publisher.topic_name, f'{package}/msg/{kind.__name__}'

    @staticmethod
    @abstractmethod
    def kind() -> type:
        """Return the type of its messages."""

    def adopt(self, card: ModelCard) -> None:
        """Show what another model sees from now on; its task is the same."""
        self.card = card

    def apply(self, parameters: DetectorParameters) -> None:
        """Take the node's parameters: before the first image, and when they change."""

    def wanted(self) -> bool:
        """Return whether somebody listens."""
        return self._publisher.get_subscription_count() > 0

    def publish(self, header: Header, result: Result) -> Dict[str, float]:
        """
        Publish a result; not one that was made before somebody wanted what is shown here.

        Return milliseconds: `message` to make it, `publish` to hand it to the middleware.
        """
        times = StageTimes()
        message = self.message(header, result)
        times.lap('message')
        if message is not None:
            self._publisher.publish(message)
        times.lap('publish')
        return times.laps

    @abstractmethod
    def message(self, header: Header, result: Result) -> Any:
        """Return the message, or its bytes; None if the result lacks what it shows."""

    def close(self) -> None:
        """Withdraw the topic."""
        self._node.destroy_publisher(self._publisher)
