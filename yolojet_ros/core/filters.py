"""What the user wants to see: thresholds, classes, sizes and the region of interest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Sequence, Tuple

import numpy as np

from yolojet_ros.core import boxes as boxes_
from yolojet_ros.core.detections import Detections
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.knobs import check_knobs, knob
from yolojet_ros.core.text import listed, shown

MAX_BOXES = 300
MAX_ROI_POINTS = 32


@dataclass(frozen=True)
class FilterParams:
    """
    The user's wishes, independent of a model. Each only removes detections.

    class_thresholds holds (name, 0..1) pairs, roi (x, y) corners from 0 to 1.

    :raises UserError: if a value has the wrong type or is out of its range.
    """

    score_threshold: float = knob(
        0.25, 'Least score of a published detection. Raising it publishes fewer, surer ones.',
        0.0, 1.0)
    iou_threshold: float = knob(
        0.5, 'Overlap (IoU) above which NMS drops the weaker of two boxes. Raising it keeps '
        'more boxes that overlap each other. A model that ends in NMS or needs none ignores it.',
        0.0, 1.0)
    class_thresholds: Tuple[Tuple[str, float], ...] = knob(
        (), 'NAME:VALUE entries that replace score_threshold for a class.')
    classes: Tuple[str, ...] = knob((), 'Names of the classes to keep; empty keeps all.')
    agnostic_nms: bool = knob(
        False, 'Let boxes of different classes suppress each other, where iou_threshold acts.')
    max_detections: int = knob(
        MAX_BOXES, 'Most detections published for an image, the best by score.', 1, MAX_BOXES)
    min_box_size: float = knob(
        0.0, 'Pixels of the image. Raising it drops boxes whose shorter side is below it.',
        0.0, 8192.0)
    roi: Tuple[Tuple[float, float], ...] = knob(
        (), 'Corners x1, y1, x2, y2, ... of a polygon in 0..1 of the image; boxes whose centre '
        'is outside are dropped; empty keeps all.')

    def __post_init__(self) -> None:
        check_knobs(self)
        for name, value in self.class_thresholds:
            _check_unit(f'class_thresholds {shown(name)}', value)
        if self.roi and not 3 <= len(self.roi) <= MAX_ROI_POINTS:
            raise UserError(
                f'roi has {len(self.roi)} corners; a polygon has 3 to {MAX_ROI_POINTS}, '
                'an empty list switches it off')
        for corner in self.roi:
            for value in corner:
                _check_unit('roi', value)

    def resolve(self, names: Sequence[str]) -> Selection:
        """
        Return these wishes for a model with the class names `names`.

        :raises UserError: if a class name is not one of the model's.
        """
        thresholds = np.full(len(names), self.score_threshold, np.float32)
        for name, value in self.class_thresholds:
            thresholds[_indices(names, name, 'class_thresholds')] = value
        if self.classes:
            keep = np.concatenate([_indices(names, name, 'classes') for name in self.classes])
            thresholds[np.setdiff1d(np.arange(len(names)), keep)] = np.inf
        return Selection(
            thresholds, np.float32(self.iou_threshold), self.agnostic_nms,
            self.max_detections, np.float32(self.min_box_size),
            np.array(self.roi, np.float32).reshape(-1, 2), thresholds)


@dataclass(frozen=True)
class Selection:
    """
    The user's wishes as arrays for one model; what decoding and NMS read.

    thresholds: float32[nc], least score of each class, inf for an unwanted class
    iou_threshold: float32, 0..1
    agnostic: NMS across classes
    max_boxes: 1..300
    min_size: float32, pixels
    roi: float32[k, 2], corners 0..1 of the image, k = 0 for none
    published: float32[nc], least score of each class that the user is to see
    """

    thresholds: np.ndarray
    iou_threshold: np.float32
    agnostic: bool
    max_boxes: int
    min_size: np.float32
    roi: np.ndarray
    published: np.ndarray

    def for_tracking(self, floor: float) -> Selection:
        """
        Return the selection that feeds a tracker: weak detections keep tracks alive.

        :param floor: score down to which the tracker looks at detections
        """
        lowered = np.minimum(self.thresholds, np.float32(floor))
        thresholds = np.where(np.isinf(self.thresholds), self.thresholds, lowered)
        return replace(self, thresholds=thresholds, max_boxes=MAX_BOXES)

    def keep_geometry(self, boxes: np.ndarray, width: int, height: int) -> np.ndarray:
        """
        Return bool[n]: boxes that are large enough and centred in the region.

        :param boxes: float32[n, 4], pixels, within a width x height image
        """
        sides = boxes[:, 2:] - boxes[:, :2]
        keep = (sides > 0).all(axis=1) & (sides >= self.min_size).all(axis=1)
        if len(self.roi):
            polygon = self.roi * np.array((width, height), np.float32)
            centers = (boxes[:, :2] + boxes[:, 2:]) * np.float32(0.5)
            keep &= boxes_.inside_polygon(centers, polygon)
        return keep

    def publishable(self, detections: Detections) -> Detections:
        """
        Return the detections that reach the user's thresholds, best first.

        Of a classifier the probabilities that do not reach them become 0.
        """
        keep = detections.scores >= self.thresholds[detections.classes]
        chosen = detections[np.flatnonzero(keep)[:self.max_boxes]]
        likely = detections.probabilities
        if likely is None:
            return chosen
        return replace(chosen, probabilities=np.where(likely >= self.thresholds, likely, 0))


def _check_unit(name: str, value: float) -> None:
    if not 0 <= value <= 1:  # False for NaN too
        raise UserError(f'{name} is {value}; it must be from 0 to 1')


def _indices(names: Sequence[str], name: str, parameter: str) -> np.ndarray:
    found = np.flatnonzero([name == other for other in names])
    if not len(found):
        raise UserError(
            f'{parameter} names {shown(name)}, which this model does not know; its classes are '
            + listed(names))
    return found
