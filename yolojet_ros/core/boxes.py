"""Axis-aligned boxes as float32 arrays [n, 4]: x1, y1, x2, y2 in pixels."""

from __future__ import annotations

import numpy as np


def area(boxes: np.ndarray) -> np.ndarray:
    """Return float32[n], the areas in px^2."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """
    Return float32[n, m], the intersection over union of every pair.

    :param a: float32[n, 4]
    :param b: float32[m, 4]

    A pair without any area has IoU 0. The order of the operations is the one
    of the CUDA kernel, so that both round alike.
    """
    width = np.minimum(a[:, None, 2], b[None, :, 2]) - np.maximum(a[:, None, 0], b[None, :, 0])
    height = np.minimum(a[:, None, 3], b[None, :, 3]) - np.maximum(a[:, None, 1], b[None, :, 1])
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    union = (area(a)[:, None] + area(b)[None, :]) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def from_center(boxes: np.ndarray) -> np.ndarray:
    """Return x1, y1, x2, y2 of boxes given as cx, cy, width, height, [n, 4]."""
    half = boxes[:, 2:] * np.float32(0.5)
    return np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), axis=1)


def clip(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return the part of each box that lies within a width x height image."""
    limit = np.array((width, height, width, height), boxes.dtype)
    return np.minimum(np.maximum(boxes, 0), limit)


def inside_polygon(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """
    Return bool[n]: which points lie inside a simple polygon (even-odd rule).

    :param points: float32[n, 2]
    :param polygon: float32[k, 2], k >= 3, in the same coordinates

    Crossing number of W. R. Franklin's formulation: an edge counts where it
    spans the point's y and lies to the right of it.
    """
    x, y = points[:, 0, None], points[:, 1, None]
    x1, y1 = polygon[None, :, 0], polygon[None, :, 1]
    x2, y2 = np.roll(polygon, -1, axis=0).T[:, None]
    spans = (y1 > y) != (y2 > y)
    with np.errstate(divide='ignore', invalid='ignore'):
        crossing = x1 + (y - y1) * (x2 - x1) / (y2 - y1)
    return (np.count_nonzero(spans & (x < crossing), axis=1) % 2).astype(bool)
