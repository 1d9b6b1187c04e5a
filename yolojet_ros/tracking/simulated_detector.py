"""Detections as a detector of given quality would make them from the truth, seeded."""

from __future__ import annotations

from typing import Tuple

import numpy as np


class SimulatedDetector:
    """
    Turn true boxes into detections with misses, noise, doubtful scores and false alarms.

    :param seed: the same seed and truth give the same detections.
    :param miss: chance of missing a fully visible object in a frame.
    :param noise: standard deviation of each box edge, in box sizes; more when hidden.
    :param false_alarms: mean number of boxes per frame where nothing is.
    :param flicker: chance of a wrong class.
    """

    def __init__(
            self, seed: int = 0, miss: float = 0.05, noise: float = 0.015,
            false_alarms: float = 0.3, flicker: float = 0.02) -> None:
        self._rng = np.random.default_rng(seed)
        self._miss, self._noise = miss, noise
        self._false_alarms, self._flicker = false_alarms, flicker

    def detect(
            self, boxes: np.ndarray, visibility: np.ndarray, classes: np.ndarray,
            size: Tuple[int, int], class_count: int,
    ) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Return boxes float32[m, 4], scores float32[m] and classes int32[m] of one frame.

        :param boxes: float[n, 4], true x1, y1, x2, y2, px.
        :param visibility: float[n], 0..1; score and chance of detection fall with it.
        :param classes: int[n].
        :param size: width and height of the image, px.
        :param class_count: wrong classes and false alarms are among 0..class_count-1.
        """
        rng = self._rng
        chance = (1 - self._miss) / (1 + np.exp(-(visibility - 0.25) / 0.06))
        seen = rng.random(len(boxes)) < chance
        boxes, visible = boxes[seen].astype(np.float64), visibility[seen]
        extent = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        spread = self._noise + 0.05 * (1 - visible)
        boxes += rng.normal(0, 1, boxes.shape) * extent * spread[:, None]
        scores = 0.12 + 0.78 * visible ** 0.9 + rng.normal(0, 0.07, len(boxes))
        scores = np.clip(scores, 0.05, 0.98)
        classes = classes[seen].copy()
        wrong = rng.random(len(classes)) < self._flicker
        classes[wrong] = (classes[wrong] + 1) % class_count
        ghosts = rng.poisson(self._false_alarms)
        half = size[0] * rng.uniform(0.01, 0.06, (ghosts, 1)) * (1, 1.5)
        centre = rng.uniform(0, 1, (ghosts, 2)) * size
        return (
            np.vstack((boxes, np.hstack((centre - half, centre + half)))).astype(np.float32),
            np.concatenate((scores, rng.beta(2, 5, ghosts) * 0.9 + 0.05)).astype(np.float32),
            np.concatenate((classes, rng.integers(0, class_count, ghosts))).astype(np.int32))
