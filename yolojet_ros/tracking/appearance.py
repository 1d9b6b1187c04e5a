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
        # One tall picture of all crops: one call each, whatever the number of boxes.
        lab = cv2.cvtColor(crops[inside].reshape(-1, _SIDE, 3), cv2.COLOR_BGR2LAB)
        result[inside, :_COLOUR] = _colours(lab) * (1 - _EDGE_SHARE) ** 0.5
        result[inside, _COLOUR:] = _edges(lab[..., 0]) * _EDGE_SHARE ** 0.5
    return result


def _colours(lab: np.ndarray) -> np.ndarray:
    """Return the mean colour of each cell; lightness counts less, as light changes."""
    count = len(lab) // _SIDE
    cells = cv2.resize(lab, (_CELLS, _CELLS * count), interpolation=cv2.INTER_AREA)
    return _unit(((cells.astype(np.float32) - 128) * (0.4, 1, 1)).reshape(count, -1))


def _edges(lightness: np.ndarray) -> np.ndarray:
    """Return the strength of each edge direction in each cell (Dalal and Triggs, 2005)."""
    count = len(lightness) // _SIDE
    strength, angle = cv2.cartToPolar(
        cv2.Sobel(lightness, cv2.CV_32F, 1, 0, ksize=1),
        cv2.Sobel(lightness, cv2.CV_32F, 0, 1, ksize=1))
    strength = np.sqrt(strength)
    strength[::_SIDE] = strength[_SIDE - 1::_SIDE] = 0  # there the next crop shows
    direction = (angle * (_DIRECTIONS / np.pi)).astype(np.int64) % _DIRECTIONS
    row, column = np.arange(len(lightness))[:, None], np.arange(_SIDE)[None]
    step = _SIDE // _CELLS
    place = (row // step * _CELLS + column // step) * _DIRECTIONS + direction
    cells = np.bincount(place.ravel(), strength.ravel(), count * _EDGE).reshape(count, _EDGE)
    return _unit(cells - cells.mean(1, keepdims=True))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
