"""
Turn the output of a network into detections in image pixels.

Threshold, NMS, clipping to the image, then the filters of size and region: so a filter only
removes detections, and a box at the border suppresses what it would suppress anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import List, Optional, Sequence, Tuple

import numpy as np

from yolojet_ros.core import boxes as boxes_
from yolojet_ros.core import rotated as rotated_
from yolojet_ros.core.detections import Detections
from yolojet_ros.core.filters import Selection
from yolojet_ros.core.head import Place, Reading, STRIDES
from yolojet_ros.core.letterbox import Letterbox
from yolojet_ros.core.masks import PrototypeMasks
from yolojet_ros.core.nms import best_first, nms, rotated_nms

# Pixels. Beyond it float32 has no whole pixels and areas come near to overflow; no box is longer.
MAX_SIDE = 1 << 24
# A sigmoid, or the eight bits it was kept in, rounds a score of 1 up by less. It counts as 1.
MAX_SCORE = np.float32(1.01)


@dataclass(frozen=True)
class Candidates:
    """
    Boxes of one image that reach their class's threshold.

    boxes: float32[n, 4], x1, y1, x2, y2 in network pixels, with sides between 0 and MAX_SIDE;
        of a rotated box the upright one around it
    scores: float32[n], 0..1
    classes: int32[n]
    rows: int64[n], rows of the head they come from
    broken: rows of the output that no detection can be: a score above MAX_SCORE, an infinite or
        NaN value, a box longer than MAX_SIDE, an unknown class
    rotated: float32[n, 5], cx, cy, w, h in network pixels and angle; None if boxes are upright
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    rows: np.ndarray
    broken: int
    rotated: Optional[np.ndarray] = None


class Table:
    """
    The outputs of a head for one image, as one table of rows.

    :param outputs: arrays without batch dimension, in the order of `reading.outputs`
    :param reading: what they mean
    """

    def __init__(self, outputs: Sequence[np.ndarray], reading: Reading) -> None:
        self._reading, head = reading, reading.head
        # Halves are compared slowly, and NumPy 1 would go on calculating in them.
        parts = [part.astype(np.float32, copy=False) for part in outputs]
        self.prototypes = parts.pop() if reading.masks else None
        if head.count is not None:
            used = int(parts[head.count].reshape(-1)[0])
            parts = [part if index == head.count else part[:max(used, 0)]
                     for index, part in enumerate(parts)]
        # A list of values is a table of one column.
        tables = [part[:, None] if part.ndim == 1 else part for part in parts]
        # Columns first, the way that most heads come and the maximum of scores is quickest.
        self._columns = [table if head.columns_first else table.T for table in tables]

    def take(self, place: Place, count: int, rows=slice(None)) -> np.ndarray:
        """Return float32[count, n], `count` columns from `place` on, of the given rows."""
        columns = self._columns[place.output][place.column:place.column + count]
        return columns if isinstance(rows, slice) else columns[:, rows]

    def one(self, place: Place) -> np.ndarray:
        """Return float32[n], the column at `place`."""
        return self._columns[place.output][place.column]

    def class_scores(self) -> np.ndarray:
        """Return float32[classes, n] of a head with a score for each class."""
        return self.take(self._reading.head.class_score, self._reading.classes)


def detect(
    outputs: Sequence[np.ndarray], reading: Reading, letterbox: Letterbox, selection: Selection,
    extras: bool = True,
) -> Detections:
    """
    Return the detections of one image, best score first.

    :param outputs: of one image, as `Table` takes them
    :param reading: what they mean
    :param letterbox: how the image was fitted into the network's input
    :param selection: thresholds and filters
    :param extras: give keypoints and masks, too, where the head has them
    """
    if reading.task == 'classify':
        return classify(outputs, reading)
    table = Table(outputs, reading)
    found = decode(table, reading, letterbox.network, selection)
    boxes = letterbox.inverse_clipped(found.boxes)
    wanted = selection.keep_geometry(boxes, *letterbox.source)
    classes = None if selection.agnostic else found.classes
    if reading.final:
        order = best_first(found.scores)
        kept = order[wanted[order]][:selection.max_boxes]
    else:
        suppress, shapes = (nms, found.boxes) if found.rotated is None else (
            rotated_nms, found.rotated)
        kept = suppress(shapes, found.scores, classes, selection.iou_threshold,
                        selection.max_boxes, wanted)
    rows = found.rows[kept]
    return Detections(
        boxes[kept], found.scores[kept], found.classes[kept], broken=found.broken,
        rotated=None if found.rotated is None else letterbox.inverse_rotated(found.rotated[kept]),
        keypoints=_keypoints(table, reading, rows, letterbox) if extras else None,
        masks=_masks(table, reading, rows, found.boxes[kept], letterbox) if extras else None)


def classify(outputs: Sequence[np.ndarray], reading: Reading) -> Detections:
    """Return no boxes, but the score of each class."""
    scores = outputs[0].astype(np.float32).reshape(-1)
    broken = 0 if (scores <= MAX_SCORE).all() and (scores >= 0).all() else 1
    nothing = Detections.empty()
    return Detections(
        nothing.boxes, nothing.scores, nothing.classes, broken=broken,
        probabilities=np.zeros_like(scores) if broken else np.minimum(scores, 1))


@lru_cache(maxsize=8)
def grid(size: Tuple[int, int]) -> np.ndarray:
    """
    Return float32[3, A], column, row and stride of every anchor point of a (width, height) input.

    Ordered by stride, then row, then column. It is the same array every time: read it only.
    """
    points = []
    for stride in STRIDES:
        columns, rows = size[0] // stride, size[1] // stride
        y, x = np.mgrid[:rows, :columns]
        points.append(np.stack((x.ravel(), y.ravel(), np.full(x.size, stride))))
    found = np.concatenate(points, axis=1).astype(np.float32)
    found.flags.writeable = False
    return found


def decode(
    table: Table, reading: Reading, size: Tuple[int, int], selection: Selection,
) -> Candidates:
    """
    Return the candidates of one image.

    A row's class is its best one; it is a candidate if that score reaches the
    class's threshold.

    :param size: (width, height) of the network's input
    :param selection: thresholds
    """
    with np.errstate(over='ignore', invalid='ignore'):
        if reading.head.label is None:
            rows, scores, classes, broken = _best_classes(table, reading, selection)
        else:
            rows, scores, classes, broken = _labelled(table, reading, selection)
        boxes, rotated = _boxes(table, reading, size, rows)
        sides = boxes[:, 2:] - boxes[:, :2]
        sound = (np.abs(sides) < MAX_SIDE).all(axis=1)  # False for NaN
        keep = sound & (sides > 0).all(axis=1)
        if rotated is not None:
            keep &= (rotated[:, 2:4] > 0).all(axis=1)
    broken += len(sound) - np.count_nonzero(sound)
    return Candidates(boxes[keep], scores[keep], classes[keep], rows[keep], int(broken),
                      None if rotated is None else rotated[keep])


_Selected = Tuple[np.ndarray, np.ndarray, np.ndarray, int]


def _best_classes(table: Table, reading: Reading, selection: Selection) -> _Selected:
    head = reading.head
    all_scores = table.class_scores()
    # The maximum is cheap and leaves few rows; argmax over all of them is not.
    best = all_scores.max(axis=0)
    if head.logits:
        best = sigmoid(best)
    if head.objectness is not None:
        best = best * table.one(head.objectness)
    sound = best <= MAX_SCORE  # False for NaN, which the maximum hands on
    rows = np.flatnonzero(sound & (best >= selection.thresholds.min()))
    classes = all_scores[:, rows].argmax(axis=0).astype(np.int32)
    keep = best[rows] >= selection.thresholds[classes]
    rows = rows[keep]
    return rows, np.minimum(best[rows], 1), classes[keep], len(sound) - np.count_nonzero(sound)


def _labelled(table: Table, reading: Reading, selection: Selection) -> _Selected:
    head = reading.head
    scores, labels = table.one(head.score), table.one(head.label)
    # A score in its place is mostly no whole number.
    known = (labels >= 0) & (labels < len(selection.thresholds)) & (labels == np.rint(labels))
    classes = np.where(known, labels, 0).astype(np.int32)
    # Rows that are not used have a score of 0 or less, and any class.
    sound = (scores <= MAX_SCORE) & (known | (scores <= 0))
    rows = np.flatnonzero(known & sound & (scores >= selection.thresholds[classes]))
    return rows, np.minimum(scores[rows], 1), classes[rows], len(sound) - np.count_nonzero(sound)


def _boxes(
    table: Table, reading: Reading, size: Tuple[int, int], rows: np.ndarray,
) -> Tuple[np.ndarray, Optional[np.ndarray]]:
    """Return (upright boxes, rotated ones or None) in network pixels."""
    head = reading.head
    values = table.take(head.box, 4, rows).T
    if head.grid:
        column, row, stride = grid(size)[:, rows]
        values = np.stack((
            (values[:, 0] + column) * stride, (values[:, 1] + row) * stride,
            np.exp(values[:, 2]) * stride, np.exp(values[:, 3]) * stride), axis=1)
    if head.normalized:
        values = values * np.array((*size, *size), np.float32)
    if reading.task == 'obb':
        rotated = np.concatenate((values, table.take(reading.extra, 1, rows).T), axis=1)
        return rotated_.upright(rotated), rotated
    return (np.ascontiguousarray(values) if reading.corners else boxes_.from_center(values)), None


def _keypoints(
    table: Table, reading: Reading, rows: np.ndarray, letterbox: Letterbox,
) -> Optional[np.ndarray]:
    count, values = reading.keypoints
    if reading.task != 'pose':
        return None
    return keypoints_of(table.take(reading.extra, count * values, rows).T, reading, letterbox)


def keypoints_of(raw: np.ndarray, reading: Reading, letterbox: Letterbox) -> np.ndarray:
    """
    Return float32[n, K, 3], x and y in image pixels and confidence.

    :param raw: float32[n, K * D] in network pixels, as the head has them
    """
    count, values = reading.keypoints
    raw = raw.reshape(-1, count, values)
    points = np.ones((len(raw), count, 3), np.float32)
    points[..., :2] = letterbox.inverse_points(raw[..., :2])
    if values == 3:
        points[..., 2] = np.clip(raw[..., 2], 0, 1)
    points[~np.isfinite(raw).all(axis=2)] = 0  # seen nowhere
    return points


def _masks(
    table: Table, reading: Reading, rows: np.ndarray, boxes: np.ndarray, letterbox: Letterbox,
) -> Optional[PrototypeMasks]:
    if not reading.masks:
        return None
    coefficients = np.ascontiguousarray(table.take(reading.extra, reading.masks, rows).T)
    return PrototypeMasks(coefficients, table.prototypes, boxes, letterbox)


def of_image(
    outputs: Sequence[np.ndarray], reading: Reading, image: int,
) -> List[np.ndarray]:
    """
    Return what `Table` takes of one image in a batch.

    :param outputs: as the network gives them, in the order of `reading.outputs`
    """
    batch = reading.head.batch
    if batch is None:
        return [output[image] for output in outputs]
    return [rows[rows[:, batch.column] == image] for rows in outputs]


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x)), float32, in the order of the kernel's operations."""
    return np.float32(1) / (np.float32(1) + np.exp(-values))


def one_label_each(
    outputs: Sequence[np.ndarray], reading: Reading, least: float, most: int,
) -> List[np.ndarray]:
    """
    Give every class of a row that scores at least `least` a row of its own.

    :param outputs: of a head with a score for each class and one table of rows, one image
    :returns: outputs of the same reading with at most `most` rows, the best.
    """
    head = reading.head
    rows = outputs[0] if head.columns_first else outputs[0].T
    rows = rows.astype(np.float32, copy=False)
    first = head.score.column
    classes, anchors = np.nonzero(rows[first:first + reading.classes] >= least)
    scores = rows[first + classes, anchors]
    best = np.argsort(-scores, kind='stable')[:most]
    columns = rows[:, anchors[best]].copy()
    columns[first:first + reading.classes] = 0
    columns[first + classes[best], np.arange(len(best))] = scores[best]
    return [columns if head.columns_first else columns.T, *outputs[1:]]
