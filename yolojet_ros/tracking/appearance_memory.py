"""The remembered look of each track."""

from __future__ import annotations

from typing import Union

import numpy as np

_LEARNING_RATE = 0.2  # share of a new descriptor at score 1


class AppearanceMemory:
    """
    One L2-normalised descriptor per track, a moving average weighted by score.

    :param capacity: number of tracks.
    :param length: of a descriptor.
    """

    def __init__(self, capacity: int, length: int) -> None:
        self._rows: np.ndarray = np.zeros((capacity, length), np.float32)

    @property
    def length(self) -> int:
        """Return the length of a descriptor."""
        return self._rows.shape[1]

    def keep(self, kept: np.ndarray) -> None:
        """Move the tracks of bool[n] `kept` together, in order."""
        rows = self._rows[:len(kept)][kept]
        self._rows[:len(rows)] = rows

    def set(self, first: int, count: int, descriptors: Union[int, np.ndarray]) -> None:
        """Start `count` tracks at `first` with descriptors float32[n, d], or 0 for none."""
        self._rows[first:first + count] = descriptors

    def learn(self, tracks: np.ndarray, descriptors: np.ndarray, scores: np.ndarray) -> None:
        """Blend `descriptors` float32[n, d] into the tracks, the more the higher the score."""
        share = (_LEARNING_RATE * scores).astype(np.float32)[:, None]
        rows = self._rows[tracks] * (1 - share) + descriptors * share
        self._rows[tracks] = rows / np.maximum(
            np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)

    def similarity(self, tracks: np.ndarray, descriptors: np.ndarray) -> np.ndarray:
        """Return the scalar product of each track's and each other descriptor, float32[n]."""
        return np.einsum('nd,nd->n', self._rows[tracks], descriptors)

    def resized(self, capacity: int) -> AppearanceMemory:
        """Return a copy for another number of tracks."""
        other = AppearanceMemory(capacity, self.length)
        count = min(capacity, len(self._rows))
        other._rows[:count] = self._rows[:count]
        return other
