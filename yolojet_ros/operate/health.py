"""How a node is, from what it says of itself in /diagnostics; judged without ROS."""

from __future__ import annotations

from dataclasses import dataclass, field
import math
import os
from pathlib import Path
import time
from typing import Any, Dict, List, Sequence

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.text import listed, one_line

LEVELS = ('OK', 'WARN', 'ERROR', 'STALE')
_FRESH = 2.0  # s that the word of a node that lives may be old; it gives one each second
_LEAST = 1.0  # s to listen for: discovery takes its time
_QUEUE = 100  # messages of all nodes of the robot
_LONGEST = 300  # characters of a message


@dataclass(frozen=True)
class Status:
    """One status of a node: what it is of, how bad, in which words, with which figures."""

    name: str
    level: int
    message: str
    hardware: str = ''
    values: Dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Heard:
    """
    What was heard of a node.

    :ivar statuses: its latest, none if it said nothing
    :ivar age: seconds since it said so, by its own stamp
    :ivar live: whether it said something while it was listened to, beside what was kept
    :ivar others: other nodes that were heard
    """

    statuses: Sequence[Status] = ()
    age: float = math.inf
    live: bool = False
    others: Sequence[str] = ()

    @property
    def fresh(self) -> bool:
        """Return whether the node lives; clocks that differ, or stand still, prove nothing."""
        return self.live or -_FRESH <= self.age <= _FRESH


@dataclass(frozen=True)
class Verdict:
    """
    A judgement.

    :ivar sentence: which node, what it says, and what to do where it is not well
    """

    healthy: bool
    sentence: str


def judge(node: str, heard: Heard, strict: bool = False) -> Verdict:
    """
    Judge a node.

    :param node: its full name
    :param strict: take a warning for a fault
    """
    if not heard.statuses:
        others = f' (heard were {listed(heard.others)})' if heard.others else ''
        return Verdict(False, (
            f'{node} does not answer on /diagnostics of ROS_DOMAIN_ID '
            f'{os.environ.get("ROS_DOMAIN_ID") or 0}{others}: it does not run, hangs, or has '
            'another name, see --node'))
    if not heard.fresh:
        last = one_line(heard.statuses[0].message, _LONGEST)
        return Verdict(False, (
            f'{node} has said nothing for {heard.age:.0f} s (its last word: {last}): it hangs; '
            'start it again'))
    worst = max(status.level for status in heard.statuses)
    line = '; '.join(_line(node, status) for status in heard.statuses)
    if worst >= LEVELS.index('ERROR'):
        return Verdict(False, f'{node} is not well: {line}; see its log')
    if worst and strict:
        return Verdict(False, f'{node} warns: {line}; see its log')
    return Verdict(True, f'{node} is well: {line}')


def _line(node: str, status: Status) -> str:
    """Return one status in some words: what it is of, how it is, rate, age and model."""
    values = status.values
    parts = [one_line(status.message, _LONGEST) or LEVELS[min(status.level, 3)]]
    if float(values.get('rate_out_hz', 0)):
        parts.append(f'{float(values["rate_out_hz"]):.1f} results/s')
        if 'age_ms_p50' in values:
            parts.append(f'{float(values["age_ms_p50"]):.0f} ms old')
    if values.get('model'):
        parts.append(f'{values["model"]} by {values.get("backend", "?")}')
    return f'{status.name[len(node) + 2:]}: {", ".join(parts)}'


def listen(node: str, end: float) -> Heard:
    """
    Listen to /diagnostics until a node is known to be alive.

    :param node: its full name
    :param end: to listen until at most, on time.monotonic; it is a second at least
    :raises UserError: if there is no ROS here.
    """
    from yolojet_ros.ros import middleware
    middleware.check_installed()
    middleware.prepare()
    try:
        from diagnostic_msgs.msg import DiagnosticArray
        import rclpy
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import DurabilityPolicy, QoSProfile
    except ImportError as error:
        raise UserError(f'there is no ROS 2 here to ask the node by ({error}); source its '
                        'setup.bash, or start this command with ./yolojet') from None

    end = max(end, time.monotonic() + _LEAST)
    messages: List[Any] = []
    context = Context()
    rclpy.init(context=context, args=[])
    listener = rclpy.create_node(
        f'health_{os.getpid()}', context=context, use_global_arguments=False,
        enable_rosout=False, start_parameter_services=False)
    executor = SingleThreadedExecutor(context=context)
    try:
        listener.create_subscription(DiagnosticArray, '/diagnostics', messages.append, QoSProfile(
            depth=_QUEUE, durability=DurabilityPolicy.TRANSIENT_LOCAL))
        executor.add_node(listener)
        heard = Heard()
        while not heard.fresh and time.monotonic() < end:
            executor.spin_once(timeout_sec=max(end - time.monotonic(), 0))
            while messages:
                heard = _with(heard, node, messages.pop(0))
        return heard
    finally:
        executor.shutdown()
        listener.destroy_node()
        context.try_shutdown()


def _with(heard: Heard, node: str, message: Any) -> Heard:
    """Return what is heard with one message more."""
    names = [status.name.rpartition(': ')[0] or status.name for status in message.status]
    if node not in names:
        return Heard(heard.statuses, heard.age, heard.live,
                     sorted({*heard.others, *(name for name in names if name[:1] == '/')}))
    stamp = message.header.stamp
    return Heard(
        [Status(status.name, status.level[0], status.message, status.hardware_id,
                {item.key: item.value for item in status.values})
         for status, name in zip(message.status, names) if name == node],
        time.time() - stamp.sec - stamp.nanosec * 1e-9, bool(heard.statuses), heard.others)


def seconds_of_process() -> float:
    """Return for how long this process has been running, by the kernel."""
    # proc(5): the 22nd field, in clock ticks since boot; the process's name may hold anything.
    ticks = int(Path('/proc/self/stat').read_text().rpartition(')')[2].split()[19])
    booted = time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted - ticks / os.sysconf('SC_CLK_TCK')
