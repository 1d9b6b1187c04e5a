"""What the machine under the detector says, as a status of `/diagnostics`."""

from __future__ import annotations

from typing import Any, List, Optional

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.node import Node

from yolojet_ros.operate.samplers.machine import Machine, this_machine
from yolojet_ros.operate.samplers.sample import Sample

WHAT = 'machine'  # behind the node's name
_SHARE = 0.001  # of a core for reading; making the message takes the rest of 0.2 %


class MachineStatus:
    """
    Heat, power, clocks, load and memory; WARN with the reason where the machine slows down.

    :param machine: to ask; None for this one, whose GPU is the one of the parameter `device`
    """

    def __init__(self, node: Node, machine: Optional[Machine] = None) -> None:
        self._node = node
        self._machine = machine or this_machine(device=_device(node), share=_SHARE)

    def statuses(self) -> List[DiagnosticStatus]:
        """Return the status in a list; none where nothing is told."""
        sample = self._machine.read()
        values = sample.known()
        if not values:
            return []
        level, text = DiagnosticStatus.OK, summary(sample)
        if sample.throttling:
            level, text = DiagnosticStatus.WARN, '; '.join(sample.throttling)
        return [DiagnosticStatus(
            level=level, name=f'{self._node.get_fully_qualified_name()}: {WHAT}', message=text,
            hardware_id=self._machine.name,
            values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()])]


def _device(node: Node) -> int:
    return node.get_parameter('device').value if node.has_parameter('device') else 0


def summary(sample: Sample) -> str:
    """Return the words for a machine that does well."""
    parts = [(sample.temperature_c, '{:.0f} C'), (sample.power_w, '{:.1f} W'),
             (sample.gpu_percent, 'GPU {:.0f} %'), (sample.cpu_percent, 'CPU {:.0f} %'),
             (sample.memory_bytes and sample.memory_bytes / 2**30, '{:.1f} GiB of memory in use')]
    return ', '.join(form.format(value) for value, form in parts if value is not None)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return '; '.join(value) or 'none'
    return f'{value:.1f}' if isinstance(value, float) else str(value)
