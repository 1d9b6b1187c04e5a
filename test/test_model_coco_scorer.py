"""Average precision of masks, keypoints and rotated boxes, on answers that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip('pycocotools')

from yolojet_ros.core.detections import Detections  # noqa: E402
from yolojet_ros.core.masks import LabelImage  # noqa: E402
from yolojet_ros.model.coco_scorer import CocoScorer, spreads  # noqa: E402

_BOXES = np.float32([[10, 10, 50, 40], [60, 20, 100, 90]])
_CLASSES = np.array([0, 1])
_CLEAR = np.array([True, True])


def _found(**shapes):
    return Detections(_BOXES, np.float32([0.9, 0.8]), np.int32([0, 1]), **shapes)


def _instances(boxes=_BOXES):
    image = np.zeros((100, 120), np.uint8)
    for index, (x1, y1, x2, y2) in enumerate(boxes.astype(int)):
        image[y1:y2, x1:x2] = index + 1
    return image


def _score(task, found, shapes, clear=_CLEAR):
    scorer = CocoScorer(('a', 'b'), task)
    scorer.add(_BOXES, _CLASSES, clear, found, shapes)
    first = scorer.accuracy()
    # Asking again changes nothing.
    assert repr(scorer.accuracy()) == repr(first)
    return first


def test_masks_match_by_their_pixels():
    truth = _instances()
    exact = _score('segment', _found(masks=LabelImage(truth.astype(np.uint16), 2)), truth)
    assert exact.map == pytest.approx(1) and exact.objects == 2
    # Half of the first mask is gone: IoU 0.5 passes the first of ten thresholds.
    half = truth.astype(np.uint16)
    half[10:25, 10:50] = 0
    result = _score('segment', _found(masks=LabelImage(half, 2)), truth)
    assert result.per_class == pytest.approx({'a': 0.1, 'b': 1})


def _keypoints(shift=0.0):
    middle = (_BOXES[:, :2] + _BOXES[:, 2:]) / 2
    points = np.full((2, 4, 3), 2, np.float32)
    points[:, :, :2] = middle[:, None] + np.float32([[0, -5], [0, 5], [-5, 0], [5, 0]])
    points[0, :, 0] += shift
    return points


def test_keypoints_match_by_object_keypoint_similarity():
    assert spreads(4) == (0.05,) * 4 and len(spreads(17)) == 17
    truth = _keypoints()
    assert _score('pose', _found(keypoints=truth), truth).map == pytest.approx(1)
    # exp(-d^2 / (2 area (2 spread)^2)) = 0.72 lies between the thresholds 0.70 and 0.75.
    away = math.sqrt(-math.log(0.72) * 2 * 40 * 30 * 0.1 ** 2)
    result = _score('pose', _found(keypoints=_keypoints(away)), truth)
    assert result.per_class == pytest.approx({'a': 0.5, 'b': 1})
    # A keypoint that is not labelled does not count.
    truth[0, 1:, 2] = 0
    moved = _keypoints()
    moved[0, 1:, :2] += 500
    assert _score('pose', _found(keypoints=moved), truth).map == pytest.approx(1)


def test_rotated_boxes_match_by_their_exact_overlap():
    truth = np.float32([[30, 25, 40, 30, 0.3], [80, 55, 40, 70, -1.0]])
    same = truth.copy()
    # The same rectangle, written with its sides exchanged.
    same[0] = [30, 25, 30, 40, 0.3 - math.pi / 2]
    assert _score('obb', _found(rotated=same), truth).map == pytest.approx(1)
    # Moved by a third of its width along its own axis: IoU 2/3 / (4/3) = 0.5.
    moved = truth.copy()
    moved[0, :2] += np.float32([math.cos(0.3), math.sin(0.3)]) * (40 / 3 - 0.01)
    result = _score('obb', _found(rotated=moved), truth)
    assert result.per_class == pytest.approx({'a': 0.1, 'b': 1})
    # Quarter turns of long boxes are not the same.
    turned = truth.copy()
    turned[1, 4] += math.pi / 2
    assert _score('obb', _found(rotated=turned), truth).per_class['b'] < 0.2


@pytest.mark.parametrize('task', ['segment', 'obb'])
def test_what_need_not_be_found_is_neither_right_nor_wrong(task):
    rotated = np.float32([[30, 25, 40, 30, 0.3], [80, 55, 40, 70, -1.0]])
    truth = _instances() if task == 'segment' else rotated
    found = _found(rotated=rotated, masks=LabelImage(_instances().astype(np.uint16), 2))
    result = _score(task, found, truth, np.array([True, False]))
    assert result.per_class['a'] == pytest.approx(1) and math.isnan(result.per_class['b'])
    nothing = found[np.array([], np.int64)]
    assert _score(task, nothing, truth, np.array([True, False])).map == 0


def test_small_and_large_masks_are_told_apart_by_their_pixels():
    truth = _instances()
    truth[12:, :][truth[12:, :] == 1] = 0
    found = _found(masks=LabelImage(truth.astype(np.uint16), 2))
    result = _score('segment', found, truth)
    assert result.per_size['small'] == result.per_size['medium'] == pytest.approx(1)
    assert math.isnan(result.per_size['large'])
