"""How a node is, from what it says of itself in /diagnostics; judged without ROS."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
import math
import os
from pathlib import Path
import time
from typing import Any, Deque, Dict, List, Mapping, Sequence, Set, Tuple

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.text import listed, one_line

LEVELS = ('OK', 'WARN', 'ERROR', 'STALE')
_FRESH = 2.0  # s that the word of a node that lives may be old; it gives one each second
_LEAST = 1.0  # s to listen for: discovery takes its time
# Fast DDS loses a part of its discovery at times, and repairs it every 3 s only; whoever comes
# later, or a second one from the same process, may find everything at once.
_EARS, _NEXT_EAR = 4, 0.35  # participants at most, s between two of them
_TURN = 0.02  # s that each is listened to
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
    if _number(values, 'rate_out_hz'):
        parts.append(f'{_number(values, "rate_out_hz"):.1f} results/s')
        if 'age_ms_p50' in values:
            parts.append(f'{_number(values, "age_ms_p50"):.0f} ms old')
    if values.get('model'):
        parts.append(one_line(f'{values["model"]} by {values.get("backend", "?")}', _LONGEST))
    return f'{one_line(status.name[len(node) + 2:], _LONGEST)}: {", ".join(parts)}'


def _number(values: Mapping[str, str], key: str) -> float:
    """Return a value that anybody on the network may have written; 0 if it is no number."""
    try:
        number = float(values.get(key, 0))
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0


def listen(node: str, end: float) -> Heard:
    """
    Listen to /diagnostics until a node is known to be alive.

    :param node: its full name
    :param end: to listen until at most, on time.monotonic; it is a second at least
    :raises UserError: if there is no ROS here.
    """
    from yolojet_ros.ros import middleware, security
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
    try:
        from rclpy.event_handler import SubscriptionEventCallbacks
    except ImportError:  # Humble
        from rclpy.qos_event import SubscriptionEventCallbacks

    end = max(end, time.monotonic() + _LEAST)
    came: Deque[Tuple[int, Any]] = deque()  # which participant heard what
    ears: List[Tuple[Any, Any, Any]] = []

    def add_ear() -> None:
        context, number = Context(), len(ears)
        with security.explained():
            rclpy.init(context=context, args=[])
            listener = rclpy.create_node(
                f'health_{os.getpid()}_{number}', context=context, use_global_arguments=False,
                enable_rosout=False, start_parameter_services=False)
        listener.create_subscription(
            DiagnosticArray, '/diagnostics', lambda message: came.append((number, message)),
            QoSProfile(depth=_QUEUE, durability=DurabilityPolicy.TRANSIENT_LOCAL),
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False))
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(listener)
        ears.append((context, listener, executor))

    heard, begin = _Hearing(node), time.monotonic()
    try:
        while not heard.result.fresh and time.monotonic() < end:
            if len(ears) < _EARS and time.monotonic() - begin >= len(ears) * _NEXT_EAR:
                add_ear()
            for _, _, executor in ears:
                executor.spin_once(timeout_sec=_TURN)
            while came:
                heard.add(*came.popleft())
        return heard.result
    finally:
        for context, listener, executor in ears:
            executor.shutdown()
            listener.destroy_node()
            context.try_shutdown()


class _Hearing:
    """What is heard of a node, message by message."""

    def __init__(self, node: str) -> None:
        self.result = Heard()
        self._node = node
        self._ears: Set[int] = set()  # that have heard it

    def add(self, ear: int, message: Any) -> None:
        """
        Take a message.

        Each participant is told the one that was kept, once; a second one is of a node that lives.
        """
        before, names = self.result, [
            status.name.rpartition(': ')[0] or status.name for status in message.status]
        if self._node not in names:
            others = {*before.others, *(name for name in names if name[:1] == '/')}
            self.result = Heard(before.statuses, before.age, before.live, sorted(others))
            return
        stamp = message.header.stamp
        self.result = Heard(
            [_status(status) for status, name in zip(message.status, names) if name == self._node],
            time.time() - stamp.sec - stamp.nanosec * 1e-9, ear in self._ears, before.others)
        self._ears.add(ear)


def _status(message: Any) -> Status:
    return Status(message.name, message.level[0], message.message, message.hardware_id,
                  {item.key: item.value for item in message.values})


def seconds_of_process() -> float:
    """Return for how long this process has been running, by the kernel."""
    # proc(5): the 22nd field, in clock ticks since boot; the process's name may hold anything.
    ticks = int(Path('/proc/self/stat').read_text().rpartition(')')[2].split()[19])
    booted = time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted - ticks / os.sysconf('SC_CLK_TCK')
