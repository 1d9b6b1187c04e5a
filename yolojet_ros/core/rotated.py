"""
Rotated boxes as float32 arrays [n, 5]: cx, cy, width, height and angle in radians.

A positive angle turns the box's x axis towards the y axis: clockwise as seen in an image,
whose y points down.
"""

from __future__ import annotations

import numpy as np


def axes(boxes: np.ndarray) -> np.ndarray:
    """Return float32[n, 2, 2]: half of the width's and of the height's vector, (x, y)."""
    half = boxes[:, 2:4] * np.float32(0.5)
    cosine, sine = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    along = np.stack((cosine, sine), axis=1) * half[:, :1]
    across = np.stack((-sine, cosine), axis=1) * half[:, 1:]
    return np.stack((along, across), axis=1)


def upright(boxes: np.ndarray) -> np.ndarray:
    """Return float32[n, 4], the upright box x1, y1, x2, y2 around each."""
    half = np.abs(axes(boxes)).sum(axis=1)
    return np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), axis=1)


def corners(boxes: np.ndarray) -> np.ndarray:
    """Return float32[n, 4, 2], the corners in order around the box."""
    vectors = axes(boxes)
    along, across = vectors[:, 0], vectors[:, 1]
    around = np.stack(
        (-along - across, along - across, along + across, across - along), axis=1)
    return boxes[:, None, :2] + around


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """
    Return float32[n], the area in px^2 that each of the boxes `a` shares with its `b`, exactly.

    The polygon of one is clipped by the four edges of the other (Sutherland and Hodgman,
    Reentrant Polygon Clipping, CACM 1974), in a frame where the other is upright around 0, so
    that float32 holds the differences.

    :param a: float32[n, 5]
    :param b: float32[n, 5]
    """
    cosine, sine = np.cos(b[:, 4])[:, None], np.sin(b[:, 4])[:, None]
    around = corners(a) - b[:, None, :2]
    polygon = np.stack((around[..., 0] * cosine + around[..., 1] * sine,
                        around[..., 1] * cosine - around[..., 0] * sine), axis=2)
    half = b[:, 2:4] * np.float32(0.5)
    for axis in (0, 1):
        for sign in (np.float32(1), np.float32(-1)):
            polygon = _clip(polygon, axis, sign, half[:, axis])
    x, y = polygon[..., 0], polygon[..., 1]
    after = np.roll(polygon, -1, axis=1)
    area = (x * after[..., 1] - after[..., 0] * y).sum(axis=1)
    return np.abs(area) * np.float32(0.5)


def pair_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return float32[n], the exact intersection over union of boxes `a` and `b`, both [n, 5]."""
    shared = overlap(a, b)
    union = (a[:, 2] * a[:, 3] + b[:, 2] * b[:, 3]) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _clip(polygon: np.ndarray, axis: int, sign: np.float32, limit: np.ndarray) -> np.ndarray:
    """
    Return the part of convex polygons where sign * coordinate <= limit.

    :param polygon: float32[n, k, 2]; vertices may be repeated
    :param limit: float32[n]
    :returns: float32[n, j, 2]: unused vertices repeat another, 0 where nothing is left.
    """
    before = np.roll(polygon, 1, axis=1)
    inside = limit[:, None] - sign * polygon[..., axis]
    was = limit[:, None] - sign * before[..., axis]
    crossing = (inside >= 0) != (was >= 0)
    share = np.divide(was, was - inside, out=np.zeros_like(was), where=crossing)
    met = before + (polygon - before) * share[..., None]
    # Each edge gives where it crosses the line, then its end.
    pairs = 2 * polygon.shape[1]
    points = np.stack((met, polygon), axis=2).reshape(len(polygon), pairs, 2)
    used = np.stack((crossing, inside >= 0), axis=2).reshape(len(polygon), pairs)
    counts = used.sum(axis=1)
    most = max(int(counts.max(initial=0)), 1)
    order = np.argsort(~used, axis=1, kind='stable')[:, :most]
    order = np.where(np.arange(most) < counts[:, None], order, order[:, :1])
    found = np.take_along_axis(points, order[..., None], axis=1)
    found[counts == 0] = 0
    return found
