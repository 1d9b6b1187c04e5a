"""
Turn the output of a network into detections in image pixels.

Threshold, NMS, clipping to the image, then the filters of size and region: so a filter only
removes detections, and a box at the border suppresses what it would suppress anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import numpy as np

from yolojet_ros.core import boxes as boxes_
from yolojet_ros.core.detections import Detections
from yolojet_ros.core.filters import Selection
from yolojet_ros.core.letterbox import Letterbox
from yolojet_ros.core.model_card import HeadLayout
from yolojet_ros.core.nms import best_first, nms

# Pixels. Beyond it float32 has no whole pixels and areas come near to overflow; no box is longer.
MAX_SIDE = 1 << 24
# A sigmoid, or the eight bits it was kept in, rounds a score of 1 up by less. It counts as 1.
MAX_SCORE = np.float32(1.01)


@dataclass(frozen=True)
class Candidates:
    """
    Boxes of one image that reach their class's threshold.

    boxes: float32[n, 4], x1, y1, x2, y2 in network pixels, with sides between 0 and MAX_SIDE
    scores: float32[n], 0..1
    classes: int32[n]
    broken: rows of the output that no detection can be: a score above MAX_SCORE, an infinite or
        NaN value, a box longer than MAX_SIDE, an unknown class
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    broken: int


def decode(output: np.ndarray, layout: HeadLayout, selection: Selection) -> Candidates:
    """
    Return the candidates of one image.

    An anchor point's class is its best one; it is a candidate if that score
    reaches the class's threshold.

    :param output: float16 or float32[4 + nc, A] (RAW: cx, cy, w, h in network pixels, then
        class scores 0..1), [A, 4 + nc] (TRANSPOSED: the same) or
        [N, 6] (NMS: x1, y1, x2, y2, score, class)
    :param layout: which of the three
    :param selection: thresholds
    """
    # Halves are compared slowly, and NumPy 1 would go on calculating in them.
    output = output.astype(np.float32, copy=False)
    with np.errstate(over='ignore', invalid='ignore'):
        if layout is HeadLayout.NMS:
            boxes, scores, classes, broken = _select_final(output, selection)
        else:
            rows = output if layout is HeadLayout.RAW else output.T
            boxes, scores, classes, broken = _select_raw(rows, selection)
        sides = boxes[:, 2:] - boxes[:, :2]
        sound = (np.abs(sides) < MAX_SIDE).all(axis=1)  # False for NaN
        keep = sound & (sides > 0).all(axis=1)
    broken += len(sound) - np.count_nonzero(sound)
    return Candidates(boxes[keep], scores[keep], classes[keep], int(broken))


def detect(
    output: np.ndarray, layout: HeadLayout, letterbox: Letterbox, selection: Selection,
) -> Detections:
    """
    Return the detections of one image, best score first.

    :param letterbox: how the image was fitted into the network's input
    :param selection: thresholds and filters; the other parameters as for `decode`
    """
    found = decode(output, layout, selection)
    boxes = letterbox.inverse_clipped(found.boxes)
    wanted = selection.keep_geometry(boxes, *letterbox.source)
    if layout.final:
        order = best_first(found.scores)
        kept = order[wanted[order]][:selection.max_boxes]
    else:
        classes = None if selection.agnostic else found.classes
        kept = nms(found.boxes, found.scores, classes, selection.iou_threshold,
                   selection.max_boxes, wanted)
    return Detections(
        boxes[kept], found.scores[kept], found.classes[kept], broken=found.broken)


_Selected = Tuple[np.ndarray, np.ndarray, np.ndarray, int]


def _select_raw(rows: np.ndarray, selection: Selection) -> _Selected:
    all_scores = rows[4:]
    # The maximum is cheap and leaves few anchors; argmax over all of them is not.
    best = all_scores.max(axis=0)
    sound = best <= MAX_SCORE  # False for NaN, which the maximum hands on
    anchors = np.flatnonzero(sound & (best >= selection.thresholds.min()))
    classes = all_scores[:, anchors].argmax(axis=0).astype(np.int32)
    keep = best[anchors] >= selection.thresholds[classes]
    anchors = anchors[keep]
    boxes = boxes_.from_center(rows[:4, anchors].T)
    scores = np.minimum(best[anchors], 1)
    return boxes, scores, classes[keep], len(sound) - np.count_nonzero(sound)


def _select_final(rows: np.ndarray, selection: Selection) -> _Selected:
    scores, labels = rows[:, 4], rows[:, 5]
    known = (labels > -1) & (labels < len(selection.thresholds))
    classes = np.where(known, labels, 0).astype(np.int32)
    # Rows that are not used have a score of 0 or less, and any class.
    sound = (scores <= MAX_SCORE) & (known | (scores <= 0))
    keep = known & sound & (scores >= selection.thresholds[classes])
    scores = np.minimum(scores[keep], 1)
    return rows[keep, :4], scores, classes[keep], len(sound) - np.count_nonzero(sound)
