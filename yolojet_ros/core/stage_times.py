"""How long each step of a frame took."""

from __future__ import annotations

import time
from typing import Dict


class StageTimes:
    """Laps of one frame on the monotonic clock, in milliseconds."""

    def __init__(self) -> None:
        self.laps: Dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Give the time since the last lap (or the start) to `stage`."""
        now = time.perf_counter()
        self.laps[stage] = self.laps.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now

    @property
    def total(self) -> float:
        """Return the sum of all laps in milliseconds."""
        return sum(self.laps.values())
