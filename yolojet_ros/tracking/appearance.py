"""
What an object looks like, in a few numbers: to know it again after it was hidden.

Colour and edge directions on a coarse grid over the box. No network, no training:
it tells a red chair from a gray one, not one twin from the other.
"""

from __future__ import annotations

import cv2
import numpy as np

_SIDE, _CELLS = 24, 4  # px of the scaled crop; cells along a side
_DIRECTIONS = 6
_COLOUR, _EDGE = 3 * _CELLS ** 2, _DIRECTIONS * _CELLS ** 2
_EDGE_SHARE = 0.5  # weight of the edges in the similarity
_SHRINK = 0.1  # of width and height left out on each side, mostly background

DESCRIPTOR_LENGTH = _COLOUR + _EDGE


def describe(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """
    Return an L2-normalised descriptor of each box, float32[n, 144].

    The scalar product of two descriptors is their similarity, -1..1. A box
    that does not touch the image has the zero descriptor, similar to nothing.

    :param image: uint8[H, W, 3] BGR.
    :param boxes: float[n, 4], x1, y1, x2, y2 in px.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    crops = np.zeros((len(boxes), _SIDE, _SIDE, 3), np.uint8)
    height, width = image.shape[:2]
    margin = np.tile((boxes[:, 2:] - boxes[:, :2]) * _SHRINK, 2) * (1, 1, -1, -1)
    limit = (width, height, width, height)
    corners = np.clip(np.nan_to_num(boxes + margin), 0, limit).round().astype(np.int64)
    inside = np.flatnonzero((corners[:, 2:] > corners[:, :2]).all(1))
    for k in inside.tolist():
        x1, y1, x2, y2 = corners[k].tolist()
        cv2.resize(image[y1:y2, x1:x2], (_SIDE, _SIDE), crops[k], interpolation=cv2.INTER_AREA)
    result = np.zeros((len(boxes), DESCRIPTOR_LENGTH), np.float32)
    if len(inside):
        lab = cv2.cvtColor(
            crops[inside].reshape(-1, _SIDE, 3), cv2.COLOR_BGR2LAB).astype(np.float32)
        lab = lab.reshape(-1, _SIDE, _SIDE, 3)
        result[inside, :_COLOUR] = _colours(lab) * np.float32((1 - _EDGE_SHARE) ** 0.5)
        result[inside, _COLOUR:] = _edges(lab[..., 0]) * np.float32(_EDGE_SHARE ** 0.5)
    return result


def _cells(values: np.ndarray) -> np.ndarray:
    """Return the means over the cells of values float32[n, side, side, c], [n, cells^2 * c]."""
    n, side = values.shape[:2]
    step = side // _CELLS
    grid = values.reshape(n, _CELLS, step, _CELLS, step, -1)
    return grid.mean((2, 4)).reshape(n, -1)


def _colours(lab: np.ndarray) -> np.ndarray:
    """Return the mean colour of each cell; lightness counts less, as light changes."""
    return _unit(_cells((lab - 128) * np.array([0.4, 1, 1], np.float32)))


def _edges(lightness: np.ndarray) -> np.ndarray:
    """Return the strength of each edge direction in each cell (Dalal and Triggs, 2005)."""
    dx = np.zeros_like(lightness)
    dy = np.zeros_like(lightness)
    dx[:, :, 1:-1] = lightness[:, :, 2:] - lightness[:, :, :-2]
    dy[:, 1:-1] = lightness[:, 2:] - lightness[:, :-2]
    direction = (np.arctan2(dy, dx) * (_DIRECTIONS / np.pi) % _DIRECTIONS).astype(np.int64)
    strength = np.sqrt(np.hypot(dx, dy))
    split = np.where(
        direction[..., None] % _DIRECTIONS == np.arange(_DIRECTIONS), strength[..., None], 0)
    cells = _cells(split)
    return _unit(cells - cells.mean(1, keepdims=True))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
