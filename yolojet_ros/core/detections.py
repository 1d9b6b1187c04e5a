"""What a network saw on one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np


@dataclass(frozen=True)
class Detections:
    """
    Detections of one image, in original pixel coordinates, best score first.

    boxes: float32[n, 4], x1, y1, x2, y2 in pixels, within the image
    scores: float32[n], 0..1
    classes: int32[n], indices into the model's class names
    ids: int64[n], track ids, -1 where there is none; None before tracking
    broken: rows of the network's output that no detection can be (core.head.Candidates)
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    ids: Optional[np.ndarray] = None
    broken: int = 0

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index) -> Detections:
        """Return the detections that a slice, mask or index array chooses."""
        ids = None if self.ids is None else self.ids[index]
        return Detections(
            self.boxes[index], self.scores[index], self.classes[index], ids, self.broken)

    @classmethod
    def empty(cls) -> Detections:
        """Return no detections, with arrays of the right types."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
