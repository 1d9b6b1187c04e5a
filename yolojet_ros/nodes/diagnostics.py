"""What the detector says of itself in `/diagnostics`, once a second."""

from __future__ import annotations

import time
from typing import List, Optional, Protocol, Sequence

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from yolojet_ros.inference.backend import Backend
from yolojet_ros.nodes.machine_status import MachineStatus
from yolojet_ros.nodes.model_update import ModelUpdate
from yolojet_ros.nodes.watched_camera import WatchedCamera
from yolojet_ros.pipeline.detector import Detector
from yolojet_ros.ros.spin import until_shutdown
from yolojet_ros.ros.topics import LATEST


class Reporter(Protocol):
    """
    The node that diagnostics tell of, besides what every node has.

    cameras, detector: those it has now, no detector while it is not configured
    active: whether it works on images; failure: what went wrong and is not mended yet
    """

    cameras: Sequence[WatchedCamera]
    detector: Optional[Detector]
    active: bool
    failure: Optional[str]
    update: ModelUpdate

    def log_rarely(self, key: str, text: str) -> None:
        """Warn of what may come often."""


class Diagnostics:
    """
    A status for each camera and one of the machine.

    `publish` is called once a second by the executor's thread.
    """

    def __init__(self, node: Reporter, machine: Optional[MachineStatus] = None) -> None:
        self._node = node
        self._machine = machine or MachineStatus(node)
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', LATEST)
        self._logged: Sequence[str] = ()  # warnings of the backend
        self._published = 0.0
        self.sentence = ''  # what is worst of what was published last

    def keep_up(self) -> None:
        """Publish if it is time, where the executor's thread is kept from its timers."""
        if time.monotonic() - self._published >= 1:
            self.publish()

    def publish(self) -> None:
        """Publish how everything is."""
        node = self._node
        self._published = time.monotonic()
        self.log_warnings()
        namesakes = self._namesakes()
        if namesakes:
            node.log_rarely('namesakes', namesakes)
        message = DiagnosticArray(status=[
            self._status(camera, namesakes) for camera in node.cameras]
            + self._machine.statuses())
        message.header.stamp = node.get_clock().now().to_msg()
        worst = max(message.status, key=lambda status: status.level)
        self.sentence = f'{worst.name.partition(": ")[2]}: {worst.message}'
        with until_shutdown():
            self._publisher.publish(message)

    def log_warnings(self) -> None:
        """Log what the backend has to say since the last time; it may come with a frame."""
        detector = self._node.detector
        warnings = list(detector.backend.warnings) if detector else []
        for text in warnings:
            if text not in self._logged:
                self._node.get_logger().warning(text)
        self._logged = warnings

    def _status(self, camera: WatchedCamera, namesakes: str) -> DiagnosticStatus:
        node = self._node
        level, text, values = camera.report()
        name = f'detector {camera.name}'.rstrip()
        if node.active:
            whose = f'{camera.name}: ' if camera.name else ''
            node.get_logger().debug(f'{whose}in the last second: ' + _summary(values))
        if namesakes:
            level, text = DiagnosticStatus.WARN, namesakes
        if node.failure:
            level, text = DiagnosticStatus.ERROR, node.failure
        hardware = ''
        if node.detector:
            backend = node.detector.backend
            hardware = backend.description
            values += _values(backend, node.update)
            warnings = '; '.join(backend.warnings)
            if warnings and level == DiagnosticStatus.OK:
                level, text = DiagnosticStatus.WARN, warnings
        if node.update.warning and level != DiagnosticStatus.ERROR:
            level, text = DiagnosticStatus.WARN, f'{node.update.warning}; {text}'
        return DiagnosticStatus(
            level=level, name=f'{node.get_fully_qualified_name()}: {name}', message=text,
            hardware_id=hardware, values=values)

    def _namesakes(self) -> str:
        """Say that other nodes have the full name of this one, or ''."""
        node = self._node
        own = node.get_name(), node.get_namespace()
        count = node.get_node_names_and_namespaces().count(own) - 1
        return '' if count < 1 else (
            f'{count} more node(s) called {node.get_fully_qualified_name()}, which publish on the '
            'same topics; give each a namespace (one that was killed is counted for 20 s more)')


def _values(backend: Backend, update: ModelUpdate) -> List[KeyValue]:
    """Return what runs."""
    card = backend.card
    values = {
        'model': card.source, 'task': card.task,
        'input_size': f'{card.input_size[0]}x{card.input_size[1]}', 'backend': backend.name}
    if card.task in ('segment', 'pose'):
        values['masks_or_keypoints'] = (
            'computed' if backend.extras else 'not wanted by anybody')
    values.update(update.values())
    if backend.warnings:
        values['backend_warnings'] = '; '.join(backend.warnings)
    return [KeyValue(key=key, value=value) for key, value in values.items()]


def _summary(values: List[KeyValue]) -> str:
    """Return rates, ages and counts, without the times of the stages."""
    return ', '.join(f'{item.key} {item.value}' for item in values
                     if item.key.startswith('age') or '_ms_p' not in item.key)
