"""Counters and timings of a detector, and what they say about its health."""

from __future__ import annotations

from collections import Counter, deque
import threading
import time
from typing import Deque, Dict, List, Optional, Tuple

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
import numpy as np

from yolojet_ros.ros.node_clock import NodeClock, OTHER_CLOCK

WINDOW = 300  # frames that percentiles look back on
_SILENCE = 2.0  # s without an image that are worth a warning
_DROPPED = 0.2  # share of dropped images that is worth a warning
SUPERSEDED = 'superseded'  # a newer image came before this one was started
DEACTIVATED = 'deactivated'  # it waited when the node was deactivated
FAILED = 'failed'  # it was in work or waited when the network failed


class Statistics:
    """
    What happened to the images of one detector; written by two threads.

    Times are milliseconds, ages seconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.taken = 0
        self.processed = 0
        self.detections = 0
        self.odd_stamps = 0
        self.lost = 0
        self.broken_rows = 0
        self.drops: Counter = Counter()
        self._stages: Dict[str, Deque[float]] = {}
        self._ages: Deque[float] = deque(maxlen=WINDOW)
        self._passed_over = 0
        self._last_report = (time.monotonic(), 0, 0, 0)

    def on_received(self) -> None:
        """Count an image that was taken out of the queue."""
        with self._lock:
            self.taken += 1

    def on_passed_over(self, count: int) -> None:
        """Count images that are missing between two: lost, or replaced by newer ones."""
        with self._lock:
            self._passed_over += count

    @property
    def received(self) -> int:
        """Return how many images have come, those that were replaced in the queue included."""
        return self.taken + self._replaced

    @property
    def _replaced(self) -> int:
        # The middleware reports apart, and at another time, which were lost.
        return max(self._passed_over - self.lost, 0)

    def on_dropped(self, cause: str) -> int:
        """Count an image that was not processed; return how many had this cause."""
        with self._lock:
            self.drops[cause] += 1
            return self.drops[cause]

    def settle(self, cause: str) -> int:
        """Count every image that is neither processed nor dropped yet; return how many."""
        with self._lock:
            left = self.taken - self.processed - sum(self.drops.values())
            if left > 0:
                self.drops[cause] += left
            return left

    @property
    def finished(self) -> int:
        """Return how many of the images that were taken are processed or dropped by now."""
        with self._lock:
            return self.processed + sum(self.drops.values())

    def usual(self, stage: str) -> float:
        """Return how many milliseconds a stage takes, the median; 0 if that is not known yet."""
        with self._lock:
            times = self._stages.get(stage)
            return float(np.median(times)) if times else 0.0

    def on_model(self) -> None:
        """Forget how long the stages of another model took; there is a new one."""
        with self._lock:
            self._stages.clear()

    def on_lost(self, count: int) -> None:
        """Count images that the middleware reports lost on their way to us."""
        with self._lock:
            self.lost += count

    def on_odd_stamp(self) -> None:
        """Count an image whose stamp is zero or invalid."""
        with self._lock:
            self.odd_stamps += 1

    def on_broken_rows(self, count: int) -> None:
        """Count rows of a network's output that no detection can be."""
        with self._lock:
            self.broken_rows += count

    def on_processed(
        self, detections: int, age: Optional[float], times: Dict[str, float],
    ) -> None:
        """
        Count a published result with the time of each stage.

        :param age: seconds since the image's stamp, None where no clock tells
        """
        with self._lock:
            self.processed += 1
            self.detections += detections
            if age is not None:
                if self._ages and abs(age - self._ages[-1]) > OTHER_CLOCK:
                    self._ages.clear()  # a clock was set, or another one is used
                self._ages.append(age)
            self._add_times(times)

    def on_published(self, times: Dict[str, float]) -> None:
        """Take the times of what was published after the result itself."""
        with self._lock:
            self._add_times(times)

    def _add_times(self, times: Dict[str, float]) -> None:
        for stage, value in times.items():
            self._stages.setdefault(stage, deque(maxlen=WINDOW)).append(value)

    def report(
        self, active: bool, reception: str = '', silence: float = 0.0,
        clock: NodeClock = NodeClock(),
    ) -> Tuple[bytes, str, List[KeyValue]]:
        """
        Return level, message and values for diagnostics; rates since the last report.

        :param reception: why images do not arrive, if that is known
        :param silence: seconds without an image
        :param clock: by which the ages were measured
        """
        with self._lock:
            now = time.monotonic()
            then, received, processed, dropped = self._last_report
            # That newer images win is the intention.
            total_dropped = sum(self.drops.values()) - self.drops[SUPERSEDED]
            self._last_report = (now, self.received, self.processed, total_dropped)
            seconds = max(now - then, 1e-6)
            new, lost = self.received - received, total_dropped - dropped
            age = float(np.median(self._ages)) if self._ages else 0.0
            values = self._values(new / seconds, (self.processed - processed) / seconds)
        level, message = DiagnosticStatus.OK, 'detecting'
        if not active:
            message = 'not active'
        elif silence > _SILENCE:
            level = DiagnosticStatus.WARN
            message = f'no image for {silence:.0f} s'
            message += f'; {reception}' if reception else ''
        elif reception:
            level, message = DiagnosticStatus.WARN, reception
        elif new and lost / new > _DROPPED:
            level = DiagnosticStatus.WARN
            message = f'{lost} of the last {new} images were dropped; see dropped_*'
        elif clock.problem(age):
            level, message = DiagnosticStatus.WARN, clock.problem(age)
        return level, message, values

    def _values(self, rate_in: float, rate_out: float) -> List[KeyValue]:
        drops = Counter(self.drops)
        if self._replaced:
            drops[SUPERSEDED] += self._replaced
        values = {
            'rate_in_hz': f'{max(rate_in, 0.0):.2f}', 'rate_out_hz': f'{rate_out:.2f}',
            'received': self.received, 'processed': self.processed,
            'detections': self.detections, 'odd_stamps': self.odd_stamps,
            'lost_in_middleware': self.lost,
            'broken_rows': self.broken_rows,
        }
        if self._ages:
            for name, percent in (('p50', 50), ('p99', 99)):
                age = np.percentile(self._ages, percent) * 1e3
                values[f'age_ms_{name}'] = f'{age:.3f}'
        for cause, count in sorted(drops.items()):
            values[f'dropped_{cause}'] = count
        for stage, times in self._stages.items():
            p50, p99 = np.percentile(times, (50, 99))
            values[f'{stage}_ms_p50'], values[f'{stage}_ms_p99'] = f'{p50:.3f}', f'{p99:.3f}'
        return [KeyValue(key=key, value=str(value)) for key, value in values.items()]
