"""Decode the output of a YOLOv8 head into boxes in image pixels, threshold first."""

from __future__ import annotations

import numpy as np

from yolojet_ros.core import boxes as boxes_
from yolojet_ros.core.detections import Detections
from yolojet_ros.core.filters import Selection
from yolojet_ros.core.letterbox import Letterbox
from yolojet_ros.core.model_card import HeadLayout
from yolojet_ros.core.nms import nms


def decode(
    output: np.ndarray, layout: HeadLayout, letterbox: Letterbox, selection: Selection,
) -> Detections:
    """
    Return the candidates of one image that pass every filter, before NMS.

    An anchor point's class is its best one; it is a candidate if that score
    reaches the class's threshold. So every filter only removes detections.

    :param output: float32[4 + nc, A] (RAW: cx, cy, w, h in network pixels, then
        class scores 0..1), float32[A, 4 + nc] (TRANSPOSED: the same) or
        float32[N, 6] (NMS: x1, y1, x2, y2, score, class)
    :param layout: which of the three
    :param letterbox: how the image was fitted into the network's input
    :param selection: thresholds and filters
    """
    if layout is HeadLayout.NMS:
        boxes, scores, classes = _select_final(output, selection)
    else:
        rows = output if layout is HeadLayout.RAW else output.T
        boxes, scores, classes = _select_raw(rows, selection)
    boxes = letterbox.inverse_clipped(boxes.astype(np.float32, copy=False))
    keep = selection.keep_geometry(boxes, *letterbox.source)
    return Detections(boxes[keep], scores[keep].astype(np.float32, copy=False), classes[keep])


def detect(
    output: np.ndarray, layout: HeadLayout, letterbox: Letterbox, selection: Selection,
) -> Detections:
    """Return the detections of one image: `decode`, then NMS; best score first."""
    candidates = decode(output, layout, letterbox, selection)
    classes = None if selection.agnostic else candidates.classes
    kept = nms(candidates.boxes, candidates.scores, classes, selection.iou_threshold,
               selection.max_boxes)
    return candidates[kept]


def _select_raw(rows: np.ndarray, selection: Selection):
    all_scores = rows[4:]
    # The maximum is cheap and leaves few anchors; argmax over all of them is not.
    anchors = np.flatnonzero(all_scores.max(axis=0) >= selection.thresholds.min())
    survivors = all_scores[:, anchors]
    classes = survivors.argmax(axis=0).astype(np.int32)
    scores = survivors[classes, np.arange(len(anchors))]
    keep = scores >= selection.thresholds[classes]
    boxes = boxes_.from_center(rows[:4, anchors[keep]].T)
    return boxes, scores[keep], classes[keep]


def _select_final(rows: np.ndarray, selection: Selection):
    scores, classes = rows[:, 4], rows[:, 5].astype(np.int32)
    known = (classes >= 0) & (classes < len(selection.thresholds))
    thresholds = selection.thresholds[np.where(known, classes, 0)]
    keep = known & (scores >= thresholds)
    return rows[keep, :4], scores[keep], classes[keep]
