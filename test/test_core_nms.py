"""NMS against a slow obvious version."""

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest

from yolojet_ros.core.boxes import iou
from yolojet_ros.core.nms import MAX_CANDIDATES, nms


def _slow_nms(boxes, scores, classes, threshold, max_boxes):
    waiting = sorted(range(len(scores)), key=lambda index: -scores[index])
    kept = []
    while waiting and len(kept) < max_boxes:
        best = waiting.pop(0)
        kept.append(best)
        waiting = [
            other for other in waiting
            if (classes is not None and classes[other] != classes[best])
            or _slow_iou(boxes[best], boxes[other]) <= threshold]
    return kept


def _slow_iou(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), np.float32(0))
    height = max(min(a[3], b[3]) - max(a[1], b[1]), np.float32(0))
    inter = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union > 0 else np.float32(0)


def _random_case(seed, count, spread):
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, spread, (count, 2))
    sides = rng.integers(0, 30, (count, 2))
    boxes = np.concatenate((corners, corners + sides), 1).astype(np.float32)
    scores = (rng.integers(0, 50, count) / 50).astype(np.float32)  # with ties
    return boxes, scores, rng.integers(0, 3, count).astype(np.int32)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 120), st.integers(1, 120),
       st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]), st.booleans(), st.integers(1, 300))
def test_equals_the_obvious_version(seed, count, spread, threshold, agnostic, max_boxes):
    boxes, scores, classes = _random_case(seed, count, spread)
    classes = None if agnostic else classes
    expected = _slow_nms(boxes, scores, classes, np.float32(threshold), max_boxes)
    assert nms(boxes, scores, classes, threshold, max_boxes).tolist() == expected


@pytest.mark.parametrize('count', [257, 700])
def test_equals_the_obvious_version_across_blocks(count):
    boxes, scores, classes = _random_case(count, count, 150)
    expected = _slow_nms(boxes, scores, classes, np.float32(0.4), 300)
    assert nms(boxes, scores, classes, 0.4, 300).tolist() == expected


def test_ten_thousand_candidates_are_bounded():
    boxes, scores, classes = _random_case(1, 10000, 2000)
    kept = nms(boxes, scores, classes, 0.99, 300)
    assert len(kept) == 300
    best = np.argsort(-scores, kind='stable')[:MAX_CANDIDATES]
    assert set(kept) <= set(best)


@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_iou_is_symmetric_bounded_and_one_for_itself(seed, count):
    boxes, _, _ = _random_case(seed, count, 60)
    matrix = iou(boxes, boxes)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert ((matrix >= 0) & (matrix <= 1)).all()
    has_area = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(axis=1)
    np.testing.assert_array_equal(np.diag(matrix), has_area.astype(np.float32))
