"""Read a topic's images: by one subscription, and by two while one gives way to the other."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

from yolojet_ros.ros.inlet import deliver_events, Inlet, OwnHands
from yolojet_ros.ros.missing_images import qos_text
from yolojet_ros.ros.parameters import declare_qos_overrides

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

# Best effort matches every publisher. A newer image takes the place of one that waits.
_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)

_MOST_WAITING = 1000  # images that are taken at once from a queue without a limit


class Taken(NamedTuple):
    """
    An image out of the queue.

    started: when it began to be taken, on time.perf_counter
    queued: seconds that it had waited by then, 0 where the middleware does not tell
    """

    message: Any
    info: Dict[str, Any]
    started: float
    queued: float


def given_reliability(node: Node, topic: str) -> Optional[ReliabilityPolicy]:
    """
    Declare the QoS overrides of a topic; return the reliability that the user sets, if any.

    :raises UserError: if one of them has a value that there is not.
    """
    declare_qos_overrides(node, topic, _QOS)
    value = node.get_parameter(f'qos_overrides.{topic}.subscription.reliability').value
    return None if value == 'auto' else ReliabilityPolicy[value.upper()]


class ImageReaders:
    """
    The subscriptions of one topic; another thread than the executor's takes what they bring.

    :param kind: type of the messages
    :param name: by which ROS is asked for the topic
    :param reliability: that is requested at first
    :param inlet: where the other thread waits; woken when the subscriptions change
    :param events: callbacks by the name that rclpy has for the event; where the middleware does
        not know one, those from it to the last are left out
    """

    def __init__(
        self, node: Node, kind: type, name: str, reliability: ReliabilityPolicy, inlet: Inlet,
        events: Dict[str, Callable[[Any], None]],
    ) -> None:
        self._node, self._kind, self._name, self._inlet = node, kind, name, inlet
        self._events = events
        self._group = OwnHands()
        self.reliability = reliability
        self.old: Optional[Subscription] = None
        self.current = self._subscribe()

    def _subscribe(self) -> Subscription:
        """Subscribe with the present reliability."""
        events = dict(self._events)
        qos = QoSProfile(history=_QOS.history, depth=_QOS.depth, reliability=self.reliability)
        # rclpy would keep the first reliability for ever, so it is not told of that override.
        options = QoSOverridingOptions((QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH))
        while True:
            try:
                made = self._node.create_subscription(
                    self._kind, self._name, _never, qos, callback_group=self._group,
                    event_callbacks=SubscriptionEventCallbacks(**events),
                    qos_overriding_options=options)
                self._node.get_logger().debug(
                    f'subscribes {made.topic_name}: {qos_text(made.qos_profile)}')
                return made
            except UnsupportedEventTypeError:  # by some middlewares
                if not events:
                    raise
                events.popitem()

    def change_over(self, reliability: ReliabilityPolicy) -> None:
        """Subscribe anew; the present subscription goes on until `drop_old` is called."""
        self.drop_old()
        self.reliability = reliability
        self.old = self.current  # until the new one is known to the publishers
        self.current = self._subscribe()
        self._inlet.wake()

    def drop_old(self) -> None:
        """End the subscription that was changed over from, if it is still there."""
        old, self.old = self.old, None
        if old:
            self._node.destroy_subscription(old)
            self._inlet.wake()

    def destroy(self) -> None:
        """End all subscriptions."""
        self.drop_old()
        self._node.destroy_subscription(self.current)
        self._inlet.wake()

    def deliver_events(self) -> None:
        """Call the callbacks of the events since the last time."""
        for reader in self.all:
            deliver_events(reader, self._node.context)

    # ---- called by the thread that takes images

    @property
    def all(self) -> List[Subscription]:
        """Return the subscriptions to wait for."""
        return [reader for reader in (self.old, self.current) if reader]

    def take(self) -> Iterator[Tuple[Subscription, Taken]]:
        """Take what waits, each with the subscription that brought it."""
        for reader in self.all:
            for _ in range(_queue_length(reader.qos_profile)):
                taken = self._take(reader)
                if taken is None:
                    break
                yield reader, taken

    def _take(self, reader: Subscription) -> Optional[Taken]:
        start, now = time.perf_counter(), time.time_ns()
        try:
            with reader.handle:
                taken = reader.handle.take_message(self._kind, False)
        except _rclpy.InvalidHandle:  # destroyed meanwhile
            return None
        if taken is None:
            return None
        arrived = taken[1].get('received_timestamp') or now
        return Taken(*taken, start, max(now - arrived, 0) * 1e-9)


def _never(message: Any) -> None:
    """Stand in for a callback: the executor takes no image."""


def _queue_length(profile: QoSProfile) -> int:
    """Return how many images may wait."""
    limited = profile.history == HistoryPolicy.KEEP_LAST
    return max(profile.depth, 1) if limited else _MOST_WAITING
