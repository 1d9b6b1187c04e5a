"""Subscribe to camera images: topic, QoS, and a clear word when they do not arrive."""

from __future__ import annotations

from collections import deque
import sys
import threading
import time
from typing import Any, Deque, Dict, List, Optional, Tuple

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

from yolojet_ros.ros.arrivals import Arrivals, credible
from yolojet_ros.ros.image_readers import given_reliability, ImageReaders, Taken
from yolojet_ros.ros.inlet import Inlet
from yolojet_ros.ros.missing_images import mismatch, no_publisher, what_is_missing
from yolojet_ros.ros.reception import many, Reception
from yolojet_ros.ros.statistics import Statistics, SUPERSEDED
from yolojet_ros.ros.topics import image_name, image_topic

_CHECK_SECONDS = 1.0
_WINDOW = 5  # checks that losses are looked at
_SILENCE = 1.9  # s without an image; diagnostics warn from 2 s on, and then know why
_GIVE_UP = 3.0  # s without an image, after which RELIABLE is tried
_CHANGE_SECONDS = 3.0  # s in which a new subscription should have its first image
_SETTLE_SECONDS = 1.0  # s in which a new subscription has not found its feet
_LOG_SECONDS = 60.0  # between two times that the same is said
_EXPECTED = {Image: 640 * 480 * 3, CompressedImage: 100_000}  # bytes, where none has arrived
_TYPES = {Image: 'sensor_msgs/msg/Image', CompressedImage: 'sensor_msgs/msg/CompressedImage'}


class ImageSubscription:
    """
    A subscription to `image_raw` or `image_raw/compressed` as remapped.

    A remapping of `image_raw` alone moves the compressed topic along with it,
    as image_transport does. The user may change the QoS by the parameters
    `qos_overrides.TOPIC.subscription.{reliability,history,depth}`. As long as that of
    reliability is `auto`, it is chosen by what the publishers offer and what arrives,
    and chosen anew when either changes.

    The images are taken by another thread (`readers`, `take`), the rest happens in that of
    the executor.

    :param inlet: where that thread waits; woken when `readers` change
    :param statistics: counts what comes and what does not
    :param camera: that is one of several, '' for the only one
    :raises UserError: if one of these has a value that there is not.
    """

    def __init__(
        self, node: Node, compressed: bool, inlet: Inlet, statistics: Statistics,
        camera: str = '',
    ) -> None:
        self._node, self._camera = node, camera
        self._kind = CompressedImage if compressed else Image
        self._inlet, self._statistics = inlet, statistics
        self._lock = threading.Lock()  # of what the thread that takes images writes
        self._arrivals = Arrivals()
        self._name = image_name(node, compressed, camera)
        self.topic_name = image_topic(node, compressed, camera)
        self._fixed = given_reliability(node, self.topic_name)
        self._reception = Reception.of_process()
        self._size = 0  # bytes of the largest image of these publishers
        self._other_camera = True  # none of its images has come yet
        self._publishers: List[Tuple[bytes, ReliabilityPolicy]] = []
        self._losing = False
        self._counts: Deque[Tuple[int, int]] = deque(maxlen=_WINDOW + 1)
        self._restart_counts()
        # The last image, and the last time that none was found to wait.
        self._last_received = self._looked = time.monotonic()
        self._logged: Dict[str, float] = {}
        self._came_by: Optional[Subscription] = None  # the last image
        self._changed = 0.0  # last time that the publishers or the reliability did
        self._updated = time.monotonic()
        self._seconds = 0.0  # that the events of the last update have had to happen
        self._look_at_publishers()
        self._readers = ImageReaders(node, self._kind, self._name, self._best(), inlet, {
            'incompatible_qos': self._on_incompatible,
            'message_lost': lambda event: self._count_lost(event.total_count_change)})
        self._attention = node.create_guard_condition(self._on_attention)
        self._timer = node.create_timer(
            _CHECK_SECONDS, self._check, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def destroy(self) -> None:
        """Stop to listen."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_guard_condition(self._attention)
        self._readers.destroy()
        self._inlet.sizes.pop(self.topic_name, None)

    @property
    def reliability(self) -> ReliabilityPolicy:
        """Return what is requested now."""
        return self._readers.reliability

    @property
    def readers(self) -> List[Subscription]:
        """Return the subscriptions to wait for."""
        return self._readers.all

    def problem(self) -> str:
        """Return why images do not arrive, in one sentence, or ''."""
        silent = self.silence() > _SILENCE
        if not self._publishers:
            return self._nobody() if silent else ''
        if silent and self._is_new():
            found = ('was just subscribed anew; its next' if self._readers.old else
                     f'has its publisher for less than {_SILENCE:.0f} s; its first')
            return f'{self.topic_name} {found} image is awaited'
        lost, received = self._recent()
        with self._lock:
            stamps = list(self._arrivals.stamps)
        found, perhaps = what_is_missing(
            self.topic_name, len(self._publishers), silent, lost, received, stamps)
        if not found:
            return ''
        offered = all(offer == ReliabilityPolicy.RELIABLE for _, offer in self._publishers)
        if silent and self.reliability == ReliabilityPolicy.RELIABLE and not offered:
            return f'{found}: {self._mismatch()}'
        size = self._size or _EXPECTED[self._kind]
        cause = self._reception.cause(
            size, self._inlet.sizes.copy().values(), self.reliability, offered)
        return f'{found}: {perhaps}{cause}'

    def silence(self) -> float:
        """Return for how many seconds no image has come, as far as anybody has looked."""
        known = time.monotonic() if self._inlet.waiting else self._looked
        return max(known - self._last_received, 0.0)

    def _nobody(self) -> str:
        kind, compressed = _TYPES[self._kind], self._kind is CompressedImage
        others = {info.topic_type for info in self._infos(self._name)} - {kind}
        beside = self._node, not compressed, self._camera
        published = self._infos(image_name(*beside), Image if compressed else CompressedImage)
        return no_publisher(
            self.topic_name, kind, others, image_topic(*beside) if published else '',
            'raw' if compressed else 'compressed',
            time.monotonic() - self._changed if self._changed else None)

    def _mismatch(self) -> str:
        return mismatch(self.topic_name, self._node.get_name(), self.reliability,
                        self._infos(self._name, self._kind))

    def _infos(self, name: str, kind: Any = None) -> List[Any]:
        """Return the publishers of what a name asks for, of a type if one is given."""
        return [info for info in self._node.get_publishers_info_by_topic(name)
                if kind is None or info.topic_type == _TYPES[kind]]

    def _is_new(self) -> bool:
        """Return whether a change was so little ago that images need not have come since."""
        return time.monotonic() - self._changed < _SILENCE

    def update(self) -> None:
        """Take note of what the middleware reports; called about once a second."""
        now = time.monotonic()
        self._seconds, self._updated = now - self._updated, now
        self._readers.deliver_events()

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

    def _best(self) -> ReliabilityPolicy:
        if self._fixed is not None:
            return self._fixed
        # Until one has arrived, an image may be larger than any buffer. Cameras in step send at
        # once, into one socket.
        size = sum(self._inlet.sizes.copy().values()) if self._size else sys.maxsize
        return self._reception.reliability(
            size, self._losing, [offer for _, offer in self._publishers])

    def _change_over(self) -> None:
        """Subscribe anew if another reliability is better now."""
        best = self._best()
        if best == self.reliability or not self._publishers:
            return
        self._node.get_logger().info(
            f'{self.topic_name}: requesting {best.name} instead of {self.reliability.name}, '
            f'{self._reason(best)}')
        self._changed = time.monotonic()
        self._readers.change_over(best)

    def _reason(self, best: ReliabilityPolicy) -> str:
        """Return why another reliability is better now."""
        if best == ReliabilityPolicy.BEST_EFFORT:
            return 'which is quicker: what may come at once fits the socket, or is not sent again'
        if not self._size:
            return 'as no image has come yet, and one may be larger than the socket'
        return ('as images are lost' if self._losing else
                'as what may come at once does not fit the socket')

    # ---- what arrives; called by the thread that takes images

    def take(self) -> Optional[Taken]:
        """Return the newest image that waits, None if there is none."""
        newest: Optional[Taken] = None
        for reader, taken in self._readers.take():
            if self._accept(reader, taken):
                if newest:
                    self._statistics.on_dropped(SUPERSEDED)
                newest = taken
        if newest is None:
            self._looked = time.monotonic()
            self._arrivals.on_none_waits()
        return newest

    def _accept(self, reader: Subscription, taken: Taken) -> bool:
        """Count an image; return False for one that came before by the other subscription."""
        message, alone = taken.message, len(self._publishers) == 1
        with self._lock:
            self._last_received = self._looked = time.monotonic()
            passed_over = self._arrivals.passed_over(reader, message, taken.info, alone)
            attention = reader is self._readers.current and self._readers.old is not None
            self._came_by = reader
            if passed_over is not None and (
                    len(message.data) > self._size or self._other_camera):
                self._size, self._other_camera = len(message.data), False
                self._inlet.sizes[self.topic_name] = self._size
                attention = True
        if attention:
            self._attention.trigger()
        if passed_over is None:
            return False
        self._statistics.on_received()
        self._statistics.on_passed_over(passed_over)
        return True

    # ---- in the executor's thread again

    def _on_attention(self) -> None:
        """Do what an image calls for: it came by the new subscription, or is larger."""
        if self._came_by is self._readers.current:
            self._readers.drop_old()
        self._change_over()

    def _count_lost(self, count: int) -> None:
        # A new reader reports as lost what was on its way before it was known.
        count = credible(count, self._seconds)
        if count and time.monotonic() - self._changed > _SETTLE_SECONDS:
            self._statistics.on_lost(count)

    def _count(self) -> None:
        """Remember how many images have come and were lost by now."""
        self._counts.append((self._statistics.received, self._statistics.lost))

    def _restart_counts(self) -> None:
        self._counts.clear()
        self._count()

    def _recent(self) -> Tuple[int, int]:
        """Return how many images were lost and received of late."""
        received, lost = self._counts[0]
        # Losses that are reported late are taken off what has come.
        return self._statistics.lost - lost, max(self._statistics.received - received, 0)

    def _on_incompatible(self, event: Any) -> None:
        self._look_at_publishers()
        if self._best() != self.reliability:
            self._change_over()
            return
        policy = getattr(event.last_policy_kind, 'name', event.last_policy_kind)
        self._node.get_logger().warning(
            f'no images from a publisher of {self.topic_name}: incompatible QoS ({policy}); '
            f'{self._mismatch()}')

    # ---- once a second

    def _check(self) -> None:
        self.update()
        now = time.monotonic()
        self._count()
        if now - self._changed > _CHANGE_SECONDS:
            self._readers.drop_old()
            silent = self._publishers and min(self.silence(), now - self._changed) > _GIVE_UP
            if silent or many(*self._recent()):
                self._losing = True
        self._look_at_publishers()
        self._change_over()
        self._say(self._reception.limit(self._size))
        if not self._is_new():
            self._say(self.problem())

    def _look_at_publishers(self) -> None:
        """Learn who publishes; a new publisher is given the benefit of the doubt."""
        found = sorted(
            (bytes(info.endpoint_gid), info.qos_profile.reliability)
            for info in self._infos(self._name, self._kind))
        if found != self._publishers:
            self._other_camera |= not set(found) & set(self._publishers)
            self._publishers = found
            if not found:  # what is gone takes no room in the socket
                self._inlet.sizes.pop(self.topic_name, None)
            self._losing = False
            self._restart_counts()
            with self._lock:
                self._arrivals.restart()
            self._changed = time.monotonic()

    def _say(self, text: str) -> None:
        # What differs in numbers only is the same.
        key = ''.join(letter for letter in text if not letter.isdigit())
        now = time.monotonic()
        if text and now - self._logged.get(key, -_LOG_SECONDS) >= _LOG_SECONDS:
            self._logged[key] = now
            self._node.get_logger().warning(text)
