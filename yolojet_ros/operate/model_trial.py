"""Judge a model that is to replace another: on live images beside it, then in its first minute."""

from __future__ import annotations

from collections import deque
import statistics
import time
from typing import Deque, List, Optional, Sequence

from yolojet_ros.core.detections import Detections

SLOWER = 2.0  # times as long as the model before is too long
_WINDOW = 30  # images whose median latency is looked at
_MANY = 10  # objects that one model sees and the other should not overlook altogether


class Verification:
    """
    A number of live images that both models see.

    :param frames: how many
    :param comparable: whether both know the same classes, so that they should see the like
    :param proven: whether the new model ran well before; it is not measured by the other then,
        which may be what is wrong
    :ivar fault: what speaks against the new model so far, '' if nothing does
    """

    def __init__(self, frames: int, comparable: bool, proven: bool = False) -> None:
        self.frames = frames
        self._comparable, self._proven = comparable, proven
        self._old: List[float] = []  # milliseconds
        self._new: List[float] = []
        self._seen_by_old = self._seen_by_new = self._broken = 0

    @property
    def done(self) -> int:
        """Return how many images both have seen."""
        return len(self._new)

    def add(self, old: Detections, old_ms: float, new: Detections, new_ms: float) -> None:
        """Take what both models see on an image, and how many milliseconds they took."""
        self._old.append(old_ms)
        self._new.append(new_ms)
        self._seen_by_old += len(old)
        self._seen_by_new += len(new)
        self._broken += new.broken

    @property
    def fault(self) -> str:
        if self._broken:
            return _broken(self._broken)
        if self._proven:
            return ''
        if self._comparable and self._seen_by_old >= _MANY and not self._seen_by_new:
            return (f'it sees nothing on {self.done} live images, on which the model that runs '
                    f'sees {self._seen_by_old} objects')
        return _slower(self._new, self._old)


class Trial:
    """
    The first minute of a model at work.

    :param seconds: how long it lasts, from its first image on; thirty images at least
    :param usual: latencies of the model before, in milliseconds; of too few, nothing follows
    :ivar verdict: '' when it is passed, or why it is not; None while it goes on
    :ivar slow: that it takes too long, else ''; the machine may be busier than it was,
        so the model before is to work for as many images (`compare`) before this counts
    """

    def __init__(self, seconds: float, usual: Sequence[float] = ()) -> None:
        self._seconds = seconds
        self._usual = usual if len(usual) >= _WINDOW else ()
        self._times: Deque[float] = deque(maxlen=_WINDOW)
        self._begin: Optional[float] = None
        self.verdict: Optional[str] = None
        self.slow = ''
        self._compared: List[float] = []

    @property
    def left(self) -> float:
        """Return how many seconds it goes on; the whole while no image has come."""
        return self._seconds if self._begin is None else max(
            self._begin + self._seconds - time.monotonic(), 0.0)

    def on_frame(self, milliseconds: float, broken: int) -> bool:
        """
        Take an image's latency, and how many rows of it no detection can be.

        :return: whether this changed `verdict` or `slow`
        """
        if self.verdict is not None or self.slow:
            return False
        if self._begin is None:
            self._begin = time.monotonic()
        self._times.append(milliseconds)
        if broken:
            self.verdict = _broken(broken)
        elif self._usual and len(self._times) == _WINDOW:
            self.slow = _slower(self._times, self._usual)
        enough = len(self._times) == _WINDOW  # a camera may have paused nearly all the time
        if self.verdict is None and not self.slow and enough and not self.left:
            self.verdict = ''
        return self.verdict is not None or bool(self.slow)

    def compare(self, milliseconds: float) -> bool:
        """
        Take a latency of the model before, where `slow` is in doubt.

        :return: whether this settled it: the verdict is that it is slow, or it is not any more
        """
        self._compared.append(milliseconds)
        if len(self._compared) < _WINDOW:
            return False
        self.verdict = _slower(self._times, self._compared) or None
        self._usual, self._compared, self.slow = self._compared, [], ''
        self._times.clear()
        return True

    def fail(self, reason: str) -> None:
        """Take that the model failed."""
        self.verdict, self.slow = reason, ''


def _slower(new: Sequence[float], old: Sequence[float]) -> str:
    after, before = statistics.median(new), statistics.median(old)
    return '' if after <= SLOWER * before else (
        f'an image takes {after:.1f} ms, more than {SLOWER:.0f} times the {before:.1f} ms of the '
        'model before')


def _broken(rows: int) -> str:
    return (f'it gives rows that no detection can be (a score above 1, an infinite or NaN value, '
            f'an unknown class): {rows}')
