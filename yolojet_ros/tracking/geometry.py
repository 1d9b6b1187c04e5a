"""Boxes as float64[4, n], one column each: what is done to all tracks at once."""

from __future__ import annotations

import numpy as np

from yolojet_ros.tracking.association import overlapping_pairs, pair_overlap
from yolojet_ros.tracking.kalman import affine_scale


def to_corners(boxes: np.ndarray) -> np.ndarray:
    """Return x1, y1, x2, y2 [4, n] of cx, cy, w, h [4, n]."""
    half = boxes[2:] * 0.5
    return np.concatenate((boxes[:2] - half, boxes[:2] + half))


def to_centres(boxes: np.ndarray) -> np.ndarray:
    """Return cx, cy, w, h [4, n] of x1, y1, x2, y2 [4, n]."""
    return np.concatenate(((boxes[:2] + boxes[2:]) * 0.5, boxes[2:] - boxes[:2]))


def grow(boxes: np.ndarray, share: float) -> np.ndarray:
    """Return corner boxes [4, n] with `share` of their size added on each side."""
    margin = (boxes[2:] - boxes[:2]) * share
    return np.concatenate((boxes[:2] - margin, boxes[2:] + margin))


def move(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return corner boxes [4, n] moved by an affine float64[2, 3]; they stay upright."""
    boxes = to_centres(boxes)
    boxes[:2] = matrix[:, :2] @ boxes[:2] + matrix[:, 2:]
    boxes[2:] *= affine_scale(matrix)
    return to_corners(boxes)


def crowding(boxes: np.ndarray) -> np.ndarray:
    """Return the largest IoU of each corner box [4, n] with another one, float64[n]."""
    one, other = overlapping_pairs(boxes, boxes)
    iou, _ = pair_overlap(boxes[:, one], boxes[:, other])
    result = np.zeros(boxes.shape[1])
    np.maximum.at(result, one, np.where(one == other, 0.0, iou))
    return result
