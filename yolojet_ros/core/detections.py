"""What a network saw on one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np

from yolojet_ros.core.masks import Masks

# Classes that are told of a classifier where nobody says how many.
BEST_CLASSES = 5


@dataclass(frozen=True)
class Detections:
    """
    Detections of one image, in original pixel coordinates, best score first.

    boxes: float32[n, 4], x1, y1, x2, y2 in pixels, within the image; of rotated ones the
        upright box around them
    scores: float32[n], 0..1
    classes: int32[n], indices into the model's class names
    ids: int64[n], track ids, -1 where there is none; None before tracking
    broken: rows of the network's output that no detection can be (core.decode.Candidates)
    rotated: float32[n, 5], rotated boxes (core.rotated) in pixels; None but for the task obb
    keypoints: float32[n, K, 3], x and y in pixels and a confidence of 0..1; None but for pose,
        or where they were not wanted
    masks: of the detections; None but for segment, or where they were not wanted
    probabilities: float32[classes], scores of a classifier, which finds no boxes; else None
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    ids: Optional[np.ndarray] = None
    broken: int = 0
    rotated: Optional[np.ndarray] = None
    keypoints: Optional[np.ndarray] = None
    masks: Optional[Masks] = None
    probabilities: Optional[np.ndarray] = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index) -> Detections:
        """Return the detections that a slice, mask or index array chooses."""
        def chosen(values):
            return None if values is None else values[index]

        return Detections(
            self.boxes[index], self.scores[index], self.classes[index], chosen(self.ids),
            self.broken, chosen(self.rotated), chosen(self.keypoints), chosen(self.masks),
            self.probabilities)

    @classmethod
    def empty(cls) -> Detections:
        """Return no detections, with arrays of the right types."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))


def best_classes(probabilities: np.ndarray, count: int = BEST_CLASSES) -> np.ndarray:
    """Return int64[k], at most `count` classes of a classifier above 0, the best first."""
    best = np.argsort(-probabilities, kind='stable')[:count]
    return best[probabilities[best] > 0]
