"""All outputs of a loaded model."""

from __future__ import annotations

from typing import Dict, List, Tuple, Type

from rclpy.node import Node
from rclpy.serialization import serialize_message
from std_msgs.msg import Header

from yolojet_ros.core.stage_times import StageTimes
from yolojet_ros.inference.backend import Backend
from yolojet_ros.nodes.detector_parameters import DetectorParameters
from yolojet_ros.nodes.outputs.class_mask import ClassMask
from yolojet_ros.nodes.outputs.classification import ClassificationOutput
from yolojet_ros.nodes.outputs.debug_image import DebugImage
from yolojet_ros.nodes.outputs.detections import DetectionsOutput
from yolojet_ros.nodes.outputs.infos import Infos
from yolojet_ros.nodes.outputs.instance_mask import InstanceMask
from yolojet_ros.nodes.outputs.keypoints import Keypoints
from yolojet_ros.nodes.outputs.output import Output, Result

# The first that a task has is its result; the others are published after it.
OUTPUTS = (DetectionsOutput, ClassificationOutput, InstanceMask, ClassMask, Keypoints, DebugImage)


def kinds(backend: Backend) -> List[Type[Output]]:
    """Return which outputs a model has; the backend warns of those that it cannot have."""
    card, found = backend.card, []
    for kind in OUTPUTS:
        if card.task in kind.tasks:
            obstacle = kind.obstacle(card)
            if obstacle:
                backend.warn(obstacle)
            else:
                found.append(kind)
    return found


class Outputs:
    """
    The topics of a model's task, from configure to cleanup.

    :param parameters: of the node
    :param camera: that is one of several, '' for the only one
    :raises UserError: if an output cannot be.
    """

    def __init__(
        self, node: Node, backend: Backend, parameters: DetectorParameters, camera: str = '',
    ) -> None:
        self._outputs: List[Output] = []
        self._infos = Infos(node, backend, camera)
        try:
            for kind in kinds(backend):
                self._outputs.append(kind(node, backend.card, camera))
            self.apply(parameters)
        except BaseException:
            self.close()
            raise

    def adopt(self, backend: Backend, parameters: DetectorParameters) -> None:
        """Show what another model sees from now on; its `kinds` are the same."""
        self._infos.adopt(backend)
        for output in self._outputs:
            output.adopt(backend.card)
        self.apply(parameters)

    def apply(self, parameters: DetectorParameters) -> None:
        """Take the node's parameters."""
        self._infos.apply(parameters)
        for output in self._outputs:
            output.apply(parameters)

    def want_extras(self) -> bool:
        """Return whether somebody wants what needs masks or keypoints."""
        return any(output.extras and output.wanted() for output in self._outputs)

    def publish(self, header: Header, result: Result) -> Dict[str, float]:
        """Publish the result itself, detections or a classification; return its times in ms."""
        return self._outputs[0].publish(header, result)

    @property
    def result_topic(self) -> Tuple[str, str]:
        """Return full name and type of the topic of the result itself."""
        return self._outputs[0].full_topic

    def packed(self, header: Header, result: Result) -> bytes:
        """Return the message of the result itself in CDR."""
        message = self._outputs[0].message(header, result)
        return message if isinstance(message, bytes) else serialize_message(message)

    def publish_more(self, header: Header, result: Result) -> Dict[str, float]:
        """Publish the rest, as far as somebody wants it; return milliseconds by topic."""
        times = StageTimes()
        for output in self._outputs[1:]:
            if output.wanted():
                output.publish(header, result)
                times.lap(output.topic)
        return times.laps

    def close(self) -> None:
        """Withdraw all topics."""
        self._infos.close()
        for output in self._outputs:
            output.close()
