"""What is told of a track."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Tuple


class TrackState(IntEnum):
    """Where a track is in its life; removed tracks are not kept."""

    TENTATIVE = 0
    CONFIRMED = 1
    LOST = 2


@dataclass(frozen=True)
class Track:
    """What is known of one track; a copy that later updates do not change."""

    id: int  # -1 until confirmed
    state: TrackState
    box: Tuple[float, float, float, float]  # filtered x1, y1, x2, y2, px
    velocity: Tuple[float, float]  # of the centre, px/s
    class_id: int  # vote weighted by score
    score: float  # of the last detection
    age: float  # s since the first detection
    unseen: float  # s since the last detection
