"""Greedy non-maximum suppression, the NumPy twin of the CUDA kernel."""

from __future__ import annotations

from typing import Callable, Optional

import numpy as np

from yolojet_ros.core import boxes as boxes_
from yolojet_ros.core import rotated as rotated_

# Best candidates that enter NMS; the same limit bounds the GPU's buffers.
MAX_CANDIDATES = 4096
_BLOCK = 256


def nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: Optional[np.ndarray],
    iou_threshold: float,
    max_boxes: int = 300,
    wanted: Optional[np.ndarray] = None,
) -> np.ndarray:
    """
    Return the indices of the kept boxes, int64[k], best score first.

    A box goes when its IoU with a better kept box is above `iou_threshold`.
    Equal scores keep their order, so the result is deterministic.

    :param boxes: float32[n, 4], x1, y1, x2, y2
    :param scores: float32[n]
    :param classes: int32[n]: only boxes of one class suppress each other;
        None for class-agnostic suppression
    :param iou_threshold: 0..1; 1 keeps everything
    :param max_boxes: how many boxes to return at most
    :param wanted: bool[n]: boxes that may be returned; the others only suppress. None for all
    """
    def overlap(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return boxes_.iou(boxes[rows], boxes[columns])

    return _suppress(overlap, scores, classes, iou_threshold, max_boxes, wanted)


def rotated_nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: Optional[np.ndarray],
    iou_threshold: float,
    max_boxes: int = 300,
    wanted: Optional[np.ndarray] = None,
) -> np.ndarray:
    """
    Return what `nms` returns, by the exact overlap of rotated boxes (core.rotated.iou).

    Not the Gaussian one (probabilistic IoU) of other implementations, whose value for two
    squares does not change when one of them turns.

    :param boxes: float32[n, 5], cx, cy, w, h, angle
    """
    upright = rotated_.upright(boxes)

    def overlap(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        found = np.zeros((len(rows), len(columns)), np.float32)
        # Boxes whose upright ones do not meet do not either.
        meet = boxes_.iou(upright[rows], upright[columns]) > 0
        if classes is not None:
            meet &= classes[rows][:, None] == classes[columns][None, :]
        i, j = np.nonzero(meet)
        found[i, j] = rotated_.pair_iou(boxes[rows[i]], boxes[columns[j]])
        return found

    return _suppress(overlap, scores, classes, iou_threshold, max_boxes, wanted)


def best_first(scores: np.ndarray) -> np.ndarray:
    """Return the indices of the best MAX_CANDIDATES scores; equal ones keep their order."""
    return np.argsort(-scores, kind='stable')[:MAX_CANDIDATES]


_Overlap = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _suppress(
    overlap: _Overlap,
    scores: np.ndarray,
    classes: Optional[np.ndarray],
    iou_threshold: float,
    max_boxes: int,
    wanted: Optional[np.ndarray],
) -> np.ndarray:
    """Return what `nms` returns; `overlap` gives the IoU [rows, columns] of two index arrays."""
    order = best_first(scores)
    if wanted is None:
        wanted = np.ones(len(scores), bool)
    threshold = np.float32(iou_threshold)

    def over(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        pairs = overlap(rows, columns) > threshold
        if classes is not None:
            pairs &= classes[rows][:, None] == classes[columns][None, :]
        return pairs

    kept = order[:0]
    # In blocks: no n x n matrix for thousands of candidates, no Python step for each of them.
    for start in range(0, len(order), _BLOCK):
        block = order[start:start + _BLOCK]
        if len(kept):
            block = block[~over(kept, block).any(axis=0)]
        suppressed = np.triu(over(block, block), 1)
        alive = np.ones(len(block), bool)
        for row in np.flatnonzero(suppressed.any(axis=1)):
            if alive[row]:
                alive &= ~suppressed[row]
        kept = np.concatenate((kept, block[alive]))
        if np.count_nonzero(wanted[kept]) >= max_boxes:
            break
    return kept[wanted[kept]][:max_boxes]
