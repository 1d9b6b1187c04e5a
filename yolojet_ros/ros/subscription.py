"""Subscribe to camera images: topic, QoS, and a clear word when they do not arrive."""

from __future__ import annotations

from collections import deque
import sys
import time
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

from yolojet_ros.ros.parameters import declare_qos_overrides
from yolojet_ros.ros.reception import many, missing_stamps, Reception
from yolojet_ros.ros.topics import image_topic

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

# The sensor-data profile. Best effort matches every publisher. The few images that may wait
# keep a busy machine from losing them uncounted; the node itself works on the newest only.
SENSOR_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)

_CHECK_SECONDS = 1.0
_WINDOW = 5  # checks that losses are looked at
_SILENCE = 1.9  # s without an image; diagnostics warn from 2 s on, and then know why
_GIVE_UP = 3.0  # s without an image, after which RELIABLE is tried
_CHANGE_SECONDS = 3.0  # s in which a new subscription should have its first image
_SETTLE_SECONDS = 1.0  # s in which a new subscription has not found its feet
_LOG_SECONDS = 60.0  # between two times that the same is said
_EXPECTED = {Image: 640 * 480 * 3, CompressedImage: 100_000}  # bytes, where none has arrived
_TYPES = {Image: 'sensor_msgs/msg/Image', CompressedImage: 'sensor_msgs/msg/CompressedImage'}
# Stamp and the moment of publishing, 0 where rclpy does not tell it (Humble).
_Identity = Tuple[int, int, int]
TELLS_INFO = hasattr(Subscription, 'CallbackType')


class ImageSubscription:
    """
    A subscription to `image_raw` or `image_raw/compressed` as remapped.

    A remapping of `image_raw` alone moves the compressed topic along with it,
    as image_transport does. The user may change the QoS by the parameters
    `qos_overrides.TOPIC.subscription.{reliability,history,depth}`. As long as that of
    reliability is `auto`, it is chosen by what the publishers offer and what arrives,
    and chosen anew when either changes.

    :param callback: called with each message, in the executor's thread
    :param on_lost: called with the number of images that the middleware reports lost
    :raises UserError: if one of these has a value that there is not.
    """

    def __init__(
        self, node: Node, compressed: bool, callback: Callable[[Any], None],
        on_lost: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._node = node
        self._kind = CompressedImage if compressed else Image
        self._callback = callback
        self._on_lost = on_lost
        self.topic_name = image_topic(node, compressed)
        self._fixed = self._given_reliability()
        self._reception = Reception.of_process()
        self._size = 0  # bytes of the largest image of these publishers
        self._other_camera = True  # none of its images has come yet
        self._publishers: List[Tuple[bytes, ReliabilityPolicy]] = []
        self._losing = False
        self._counts: Deque[Tuple[int, int]] = deque([(0, 0)], maxlen=_WINDOW + 1)
        self._received = self._lost = 0
        self._stamps: Deque[float] = deque(maxlen=30)  # of one publisher
        self._publisher: Any = None  # of the last image, where rclpy tells it
        self._last_received = time.monotonic()
        self._logged: Dict[str, float] = {}
        self._old: Optional[Subscription] = None  # until the new one has its first image
        self._brought_by: Dict[_Identity, Subscription] = {}  # the last images
        self._changed = 0.0
        self._look_at_publishers()
        self.reliability = self._best()
        self._current = self._subscribe()
        self._timer = node.create_timer(
            _CHECK_SECONDS, self._check, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def destroy(self) -> None:
        """Stop to listen."""
        self._node.destroy_timer(self._timer)
        self._drop_old()
        self._node.destroy_subscription(self._current)

    def problem(self) -> str:
        """Return why images do not arrive, in one sentence, or ''."""
        silent = time.monotonic() - self._last_received > _SILENCE
        if not self._publishers:
            return self._nobody() if silent else ''
        if silent and self._is_new():
            return (f'{self.topic_name} has its publisher for less than {_SILENCE:.0f} s; '
                    'its first image is awaited')
        lost, received = self._recent()
        missing = missing_stamps(list(self._stamps)) if len(self._publishers) == 1 else 0
        perhaps = ''
        if silent:
            found = (f'{len(self._publishers)} publisher(s) of {self.topic_name}, '
                     'but no image arrives')
            perhaps = 'the publisher sends nothing (compare ros2 topic hz), or '
        elif many(lost, received):
            found = f'{lost} of the last {lost + received} images of {self.topic_name} are lost'
        elif many(missing, len(self._stamps)):
            found = (f'the stamps of {self.topic_name} have holes: {missing} images missing '
                     f'between the last {len(self._stamps)}')
            perhaps = 'the camera skips them, or '
        else:
            return ''
        if silent and self.reliability == ReliabilityPolicy.RELIABLE and any(
                offer != ReliabilityPolicy.RELIABLE for _, offer in self._publishers):
            return f'{found}: {self._qos_text()}'
        offered = all(offer == ReliabilityPolicy.RELIABLE for _, offer in self._publishers)
        cause = self._reception.cause(self._expected(), self.reliability, offered)
        return f'{found}: {perhaps}{cause}'

    def _nobody(self) -> str:
        """Say that nobody publishes what is subscribed, and what is published instead."""
        others = {info.topic_type for info in self._infos(self.topic_name)} - {_TYPES[self._kind]}
        if others:
            return (f'{self.topic_name} carries {", ".join(sorted(others))}, and no '
                    f'{_TYPES[self._kind]}; check the topic name')
        compressed = self._kind is CompressedImage
        beside = image_topic(self._node, not compressed)
        if self._infos(beside, Image if compressed else CompressedImage):
            return (f'{self.topic_name} has no publisher, but {beside} has: clean the node up and '
                    f'set transport to {"raw" if compressed else "compressed"}')
        return f'{self.topic_name} has no publisher; check the topic name'

    def _infos(self, topic: str, kind: Any = None) -> List[Any]:
        """Return the publishers of a topic, of a type if one is given."""
        return [info for info in self._node.get_publishers_info_by_topic(topic)
                if kind is None or info.topic_type == _TYPES[kind]]

    def _is_new(self) -> bool:
        """Return whether a change was so little ago that images need not have come since."""
        return time.monotonic() - self._changed < _SILENCE

    def values(self) -> Dict[str, Any]:
        """Return what diagnostics show of the way that images come."""
        values = {
            'reliability': self.reliability.name.lower(),
            'publishers': len(self._publishers),
            'socket_buffer_bytes': self._reception.buffer,
        }
        limit = self._reception.limit(self._size)
        return dict(values, socket_buffer=limit) if limit else values

    # ---- what is requested

    def _given_reliability(self) -> Optional[ReliabilityPolicy]:
        # rclpy would keep the first choice for ever, so it is not told of this override.
        declare_qos_overrides(self._node, self.topic_name, SENSOR_QOS)
        name = f'qos_overrides.{self.topic_name}.subscription.reliability'
        value = self._node.get_parameter(name).value
        return None if value == 'auto' else ReliabilityPolicy[value.upper()]

    def _expected(self) -> int:
        return self._size or _EXPECTED[self._kind]

    def _best(self) -> ReliabilityPolicy:
        if self._fixed is not None:
            return self._fixed
        # Until one has arrived, an image may be larger than any buffer.
        return self._reception.reliability(
            self._size or sys.maxsize, self._losing, [offer for _, offer in self._publishers])

    def _subscribe(self) -> Subscription:
        """Subscribe with the present reliability."""
        made: List[Subscription] = []

        def on_message(message: Any) -> None:
            self._on_message(made[0], message, None)

        def on_message_and_info(message: Any, info: Any) -> None:
            self._on_message(made[0], message, info)

        callback = on_message_and_info if TELLS_INFO else on_message
        events = {'incompatible_qos': self._on_incompatible,
                  'message_lost': lambda event: self._count_lost(event.total_count_change)}
        qos = QoSProfile(history=SENSOR_QOS.history, depth=SENSOR_QOS.depth,
                         reliability=self.reliability)
        options = QoSOverridingOptions((QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH))
        while True:
            try:
                made.append(self._node.create_subscription(
                    self._kind, self.topic_name, callback, qos,
                    event_callbacks=SubscriptionEventCallbacks(**events),
                    qos_overriding_options=options))
                self._node.get_logger().debug(
                    f'subscribes {self.topic_name}: {_describe(made[0].qos_profile)}')
                return made[0]
            except UnsupportedEventTypeError:  # by some middlewares
                if not events:
                    raise
                events.popitem()

    def _change_over(self) -> None:
        """Subscribe anew if another reliability is better now."""
        best = self._best()
        if best == self.reliability or not self._publishers:
            return
        self._drop_old()
        self._node.get_logger().info(
            f'{self.topic_name}: requesting {best.name} instead of {self.reliability.name}')
        self.reliability = best
        # The old one goes on until the new one is known to the publishers.
        self._old, self._changed = self._current, time.monotonic()
        self._current = self._subscribe()

    def _drop_old(self) -> None:
        if self._old:
            self._node.destroy_subscription(self._old)
            self._old = None

    # ---- what arrives

    def _on_message(self, source: Subscription, message: Any, info: Any) -> None:
        if source is not self._old and source is not self._current:
            return  # taken before it was destroyed; the new one has it, too
        self._last_received = time.monotonic()
        if source is self._current:
            self._drop_old()
        identity = _identity(message, info)
        repeated = self._brought_by.get(identity, source) is not source
        self._brought_by[identity] = source
        if repeated:
            return  # came by the one before, too
        publisher = info.get('publisher_gid') if info else None
        if publisher != self._publisher:
            self._publisher = publisher
            self._stamps.clear()
        stamp = message.header.stamp
        self._stamps.append(stamp.sec + stamp.nanosec * 1e-9)
        self._received += 1
        self._callback(message)
        if len(message.data) > self._size or self._other_camera:
            self._size, self._other_camera = len(message.data), False
            self._change_over()

    def _count_lost(self, count: int) -> None:
        # A new reader reports as lost what was on its way before it was known.
        if time.monotonic() - self._changed > _SETTLE_SECONDS:
            self._lost += count
            self._on_lost(count)

    def _recent(self) -> Tuple[int, int]:
        """Return how many images were lost and received of late."""
        received, lost = self._counts[0]
        return self._lost - lost, self._received - received

    # ---- once a second

    def _check(self) -> None:
        now = time.monotonic()
        self._counts.append((self._received, self._lost))
        if now - self._changed > _CHANGE_SECONDS:
            self._drop_old()
            silent = self._publishers and now - max(
                self._last_received, self._changed) > _GIVE_UP
            if silent or many(*self._recent()):
                self._losing = True
        self._look_at_publishers()
        self._change_over()
        if now - self._changed > _CHANGE_SECONDS:
            self._brought_by.clear()
        self._say(self._reception.limit(self._size))
        if not self._is_new():
            self._say(self.problem())

    def _look_at_publishers(self) -> None:
        """Learn who publishes; a new publisher is given the benefit of the doubt."""
        found = sorted(
            (bytes(info.endpoint_gid), info.qos_profile.reliability)
            for info in self._infos(self.topic_name, self._kind))
        if found != self._publishers:
            self._other_camera |= not set(found) & set(self._publishers)
            self._publishers = found
            self._losing = False
            self._counts = deque([(self._received, self._lost)], maxlen=_WINDOW + 1)
            self._stamps.clear()
            self._changed = time.monotonic()

    def _say(self, text: str) -> None:
        # What differs in numbers only is the same.
        key = ''.join(letter for letter in text if not letter.isdigit())
        now = time.monotonic()
        if text and now - self._logged.get(key, -_LOG_SECONDS) >= _LOG_SECONDS:
            self._logged[key] = now
            self._node.get_logger().warning(text)

    # ---- incompatible QoS

    def _on_incompatible(self, event: Any) -> None:
        self._look_at_publishers()
        if self._best() != self.reliability:
            self._change_over()
            return
        policy = getattr(event.last_policy_kind, 'name', event.last_policy_kind)
        self._node.get_logger().warning(
            f'no images from a publisher of {self.topic_name}: incompatible QoS ({policy}); '
            f'{self._qos_text()}')

    def _qos_text(self) -> str:
        theirs = [f'{_name(info)} offers {_describe(info.qos_profile)}'
                  for info in self._infos(self.topic_name, self._kind)]
        return (f'{self._node.get_name()} requests {self.reliability.name}, VOLATILE; '
                f'{"; ".join(theirs) or "?"}; change the publisher, or set '
                f'qos_overrides.{self.topic_name}.subscription.reliability')


def _identity(message: Any, info: Any) -> _Identity:
    # Stamps alone may all be the same; the middleware's time of publishing is not.
    stamp = message.header.stamp
    return stamp.sec, stamp.nanosec, info['source_timestamp'] if info else 0


def _name(info: Any) -> str:
    # A publisher that was just discovered has no node name yet.
    return 'a publisher' if 'UNKNOWN' in info.node_name else info.node_name


def _describe(profile: QoSProfile) -> str:
    return f'{profile.reliability.name}, {profile.durability.name}'
