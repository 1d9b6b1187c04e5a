"""Tell which images are new, and how many came to nobody's hands between them."""

from __future__ import annotations

from collections import deque
import time
from typing import Any, Deque, Dict, Optional, Tuple

_MOST = 100  # images and publishers that are remembered
_FASTEST = 10_000  # images/s, more than any camera sends
_SLACK = 1.0  # s that images may have been on their way
_STAMPS = 30  # that are remembered


def credible(count: int, seconds: float) -> int:
    """
    Return how many images are missing; 0 if nobody can have sent so many in that time.

    Fast DDS cuts a loss that makes no sense to 2^31 - 1, and adds the next ones in an int32 that
    ROS hands on without its sign.
    """
    return count if 0 < count <= _FASTEST * (seconds + _SLACK) else 0


class Arrivals:
    """
    The images of one topic, as they are taken.

    Two subscriptions may bring the same image while one gives way to the other. The middleware
    numbers what a publisher sends; where rclpy tells the number (from Jazzy on), a hole in them
    counts images that were lost on their way, or that a newer one replaced in the queue.

    :ivar stamps: of the last images of one publisher, in seconds, without those before an image
        that was passed over: what is missing between them was not sent, or was lost
    """

    def __init__(self) -> None:
        # Number and time of the last image, by publisher.
        self._numbers: Dict[Any, Tuple[int, float]] = {}
        self._brought_by: Dict[Tuple[int, int, int], Any] = {}
        self.stamps: Deque[float] = deque(maxlen=_STAMPS)
        self._publisher: Optional[bytes] = None  # of the stamps
        self._none_waits = True  # and no image has been taken since

    def passed_over(
        self, source: Any, message: Any, info: Dict[str, Any], alone: bool,
    ) -> Optional[int]:
        """
        Return how many images are missing since the one before, None if this one is not new.

        :param source: the subscription that brought it
        :param info: as `take_message` gives it
        :param alone: whether one publisher is known, whose images need not be told from others'
        """
        count = self._passed_over(source, message, info, alone)
        known = info.get('publication_sequence_number') is not None
        steady, self._none_waits = (not count if known else self._none_waits), False
        if count is not None:
            publisher = _publisher(info)
            if publisher != self._publisher or not steady:
                self._publisher = publisher
                self.stamps.clear()
            stamp = message.header.stamp
            self.stamps.append(stamp.sec + stamp.nanosec * 1e-9)
        return count

    def _passed_over(
        self, source: Any, message: Any, info: Dict[str, Any], alone: bool,
    ) -> Optional[int]:
        number, publisher = info.get('publication_sequence_number'), _publisher(info)
        if publisher is None:
            # Stamps alone may all be the same; the middleware's time of publishing is not.
            stamp = message.header.stamp
            identity = stamp.sec, stamp.nanosec, info.get('source_timestamp', 0)
            if self._brought_by.get(identity, source) is not source:
                return None
            _remember(self._brought_by, identity, source)
        if number is None or (publisher is None and not alone):
            return 0
        now = time.monotonic()
        last, then = self._numbers.get(publisher, (number - 1, now))
        # One that is far behind is new all the same: then the last number was none.
        again = number == last or credible(last - number, now - then)
        if publisher is not None and again:
            return None
        _remember(self._numbers, publisher, (number, now))
        return credible(number - last - 1, now - then)

    def on_none_waits(self) -> None:
        """Take note that all images were taken: without numbers, the next one follows them."""
        self._none_waits = True

    def restart(self) -> None:
        """Begin anew where publishers cannot be told from each other; they changed."""
        self._numbers.pop(None, None)
        self.stamps.clear()


def _publisher(info: Dict[str, Any]) -> Optional[bytes]:
    gid = info.get('publisher_gid')
    return gid['data'] if gid else None


def _remember(memory: Dict, key: Any, value: Any) -> None:
    memory.pop(key, None)  # so that the oldest is always the first
    memory[key] = value
    if len(memory) > _MOST:
        del memory[next(iter(memory))]
