"""Greedy non-maximum suppression, the NumPy twin of the CUDA kernel."""

from __future__ import annotations

from typing import Optional

import numpy as np

from yolojet_ros.core.boxes import iou

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
    order = best_first(scores)
    if wanted is None:
        wanted = np.ones(len(scores), bool)
    threshold = np.float32(iou_threshold)
    kept = order[:0]
    # In blocks: no n x n matrix for thousands of candidates, no Python step for each of them.
    for start in range(0, len(order), _BLOCK):
        block = order[start:start + _BLOCK]
        if len(kept):
            block = block[~_overlap(boxes, classes, kept, block, threshold).any(axis=0)]
        over = np.triu(_overlap(boxes, classes, block, block, threshold), 1)
        alive = np.ones(len(block), bool)
        for row in np.flatnonzero(over.any(axis=1)):
            if alive[row]:
                alive &= ~over[row]
        kept = np.concatenate((kept, block[alive]))
        if np.count_nonzero(wanted[kept]) >= max_boxes:
            break
    return kept[wanted[kept]][:max_boxes]


def best_first(scores: np.ndarray) -> np.ndarray:
    """Return the indices of the best MAX_CANDIDATES scores; equal ones keep their order."""
    return np.argsort(-scores, kind='stable')[:MAX_CANDIDATES]


def _overlap(
    boxes: np.ndarray,
    classes: Optional[np.ndarray],
    rows: np.ndarray,
    columns: np.ndarray,
    threshold: np.float32,
) -> np.ndarray:
    """Return bool[rows, columns]: which pairs suppress each other."""
    over = iou(boxes[rows], boxes[columns]) > threshold
    if classes is not None:
        over &= classes[rows][:, None] == classes[columns][None, :]
    return over
