"""Decoding of every head layout, and the filters."""

from dataclasses import replace

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest

from models import NAMES, raw_output
from yolojet_ros.core.decode import detect
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.filters import FilterParams
from yolojet_ros.core.head import raw_reading
from yolojet_ros.core.letterbox import Letterbox

_SIZE = (320, 192)
_SOURCE = (640, 384)
_LETTERBOX = Letterbox.fit(_SOURCE, _SIZE)
_KEYS = ('yolov8', 'yolov8_transposed', 'end2end')
_RAW, _TRANSPOSED, _FINAL = (raw_reading(1260, len(NAMES), key=key) for key in _KEYS)


def _raw(boxes, scores):
    return raw_output(boxes, scores, _SIZE)[0]


def _detect(boxes, scores, **wishes):
    return detect([_raw(boxes, scores)], _RAW, _LETTERBOX,
                  FilterParams(**wishes).resolve(NAMES))


def test_a_box_comes_out_in_image_pixels_with_its_best_class():
    found = _detect([[100, 50, 40, 20]], [[0.3, 0.9, 0.1]])
    np.testing.assert_allclose(found.boxes, [[160, 80, 240, 120]])
    assert found.scores.tolist() == [np.float32(0.9)] and found.classes.tolist() == [1]
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert found.classes.dtype == np.int32


def test_boxes_are_clipped_and_those_outside_vanish():
    found = _detect([[5, 5, 40, 40], [400, 50, 20, 20]], [[0.9, 0, 0], [0.9, 0, 0]])
    np.testing.assert_allclose(found.boxes, [[0, 0, 50, 50]])


def test_all_layouts_agree():
    rng = np.random.default_rng(3)
    boxes = np.concatenate((rng.uniform(20, 150, (40, 2)), rng.uniform(5, 60, (40, 2))), 1)
    scores = rng.uniform(0, 1, (40, 3))
    raw = _raw(boxes, scores)
    selection = FilterParams(score_threshold=0.4).resolve(NAMES)
    a = detect([raw], _RAW, _LETTERBOX, selection)
    b = detect([np.ascontiguousarray(raw.T)], _TRANSPOSED, _LETTERBOX, selection)
    corners = np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), 1)
    final = np.column_stack((corners, scores.max(1), scores.argmax(1))).astype(np.float32)
    c = detect([final], _FINAL, _LETTERBOX, selection)
    assert len(a) > 5
    for other in (b, c):
        np.testing.assert_allclose(other.boxes, a.boxes, atol=1e-3)
        np.testing.assert_array_equal(other.classes, a.classes)
        np.testing.assert_allclose(other.scores, a.scores)


def test_garbage_rows_of_a_final_output_are_ignored():
    rows = np.array([[0, 0, 9, 9, 0.9, 7], [0, 0, 9, 9, 0.9, -1], [0, 0, 0, 0, 0, 0],
                     [0, 0, 9, 9, np.nan, 1], [np.nan, 0, 9, 9, 0.9, 1]], np.float32)
    found = detect([rows], _FINAL, _LETTERBOX, FilterParams().resolve(NAMES))
    assert len(found) == 0 and found.broken == 4


@pytest.mark.parametrize('reading', (_RAW, _TRANSPOSED, _FINAL), ids=_KEYS)
def test_a_score_of_one_that_was_rounded_up_counts_as_one(reading):
    # Sigmoids of ONNX Runtime give 1.0000001, and eight bits 1.004.
    for score in (np.nextafter(np.float32(1), np.float32(2)), 1.004):
        output = _raw([[19, 19, 20, 20]], [[score, 0, 0]])
        if reading is _FINAL:
            output = np.array([[9, 9, 29, 29, score, 0]], np.float32)
        elif reading is _TRANSPOSED:
            output = output.T
        found = detect([output], reading, _LETTERBOX, FilterParams().resolve(NAMES))
        assert found.scores.tolist() == [1.0] and found.broken == 0


@pytest.mark.parametrize('score', [1.02, np.inf, np.nan])
@pytest.mark.parametrize('reading', (_RAW, _TRANSPOSED, _FINAL), ids=_KEYS)
def test_a_score_that_is_none_is_dropped_and_counted_never_published(reading, score):
    if reading is _FINAL:
        output = np.array([[9, 9, 29, 29, score, 0], [99, 9, 129, 29, 0.9, 1],
                           [0, 0, 0, 0, -1, -1], [0, 0, 0, 0, 0, 0]], np.float32)
    else:
        output = _raw([[19, 19, 20, 20], [114, 19, 30, 20]], [[score, 0, 0], [0, 0.9, 0]])
        output = output if reading is _RAW else np.ascontiguousarray(output.T)
    for threshold in (0.0, 0.5):
        found = detect([output], reading, _LETTERBOX,
                       FilterParams(score_threshold=threshold).resolve(NAMES))
        assert found.scores.tolist() == [np.float32(0.9)] and found.broken == 1
        assert found[:1].broken == 1


def test_a_score_where_the_class_belongs_is_dropped_and_counted():
    # Score and class in the other order: nothing of it may look like an object.
    rows = np.array([[10, 10, 50, 50, 1, 0.9], [60, 60, 90, 90, 1, 0.3]], np.float32)
    found = detect([rows], _FINAL, _LETTERBOX, FilterParams().resolve(NAMES))
    assert len(found) == 0 and found.broken == 2


def test_keypoints_that_are_no_numbers_are_seen_nowhere():
    reading = raw_reading(1260, len(NAMES), 'pose', keypoints=(2, 3))
    output = np.zeros((4 + len(NAMES) + 6, 1260), np.float32)
    output[:, 0] = [100, 50, 40, 20, 0.9, 0, 0, np.nan, 5, 0.9, 100, 50, 0.8]
    found = detect([output], reading, _LETTERBOX, FilterParams().resolve(NAMES))
    np.testing.assert_allclose(found.keypoints[0], [[0, 0, 0], [200, 100, 0.8]], atol=1e-5)


@pytest.mark.parametrize('sides', [(-20, 10), (20, 0), (-20, -10)])
def test_a_rotated_box_without_area_is_none(sides):
    reading = raw_reading(1260, len(NAMES), 'obb')
    output = np.zeros((4 + len(NAMES) + 1, 1260), np.float32)
    output[:, 0] = [100, 50, *sides, 0.9, 0, 0, 0.3]
    assert not len(detect([output], reading, _LETTERBOX, FilterParams().resolve(NAMES)))


@pytest.mark.parametrize('value', [np.inf, -np.inf, np.nan, 3e38])
def test_a_box_that_is_not_finite_is_dropped_and_counted(value):
    for place in range(4):
        if place < 2 and value == 3e38:
            continue  # so far outside that it has no area
        box = [60, 60, 20, 20]
        box[place] = value
        found = _detect([box, [150, 50, 20, 20]], [[0.9, 0, 0], [0, 0.8, 0]])
        assert found.classes.tolist() == [1]
        assert found.broken == 1


def test_a_half_precision_head_is_decoded_in_single_precision():
    rng = np.random.default_rng(5)
    boxes = np.concatenate((rng.uniform(20, 300, (40, 2)), rng.uniform(5, 60, (40, 2))), 1)
    half = _raw(boxes, rng.uniform(0, 1, (40, 3))).astype(np.float16)
    selection = FilterParams(score_threshold=0.3).resolve(NAMES)
    for reading, output in ((_RAW, half), (_TRANSPOSED, half.T)):
        found = detect([output], reading, _LETTERBOX, selection)
        expected = detect([output.astype(np.float32)], reading, _LETTERBOX, selection)
        assert found.boxes.dtype == found.scores.dtype == np.float32
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        np.testing.assert_array_equal(found.scores, expected.scores)


def test_rows_of_a_final_output_do_not_suppress_each_other():
    rows = np.array([[10, 10, 50, 50, 0.8, 1], [10, 10, 50, 51, 0.9, 1],
                     [10, 10, 50, 50, 0.7, 2]], np.float32)
    for agnostic in (False, True):
        selection = FilterParams(iou_threshold=0.0, agnostic_nms=agnostic).resolve(NAMES)
        found = detect([rows], _FINAL, _LETTERBOX, selection)
        np.testing.assert_allclose(found.scores, [0.9, 0.8, 0.7])
    found = detect([rows], _FINAL, _LETTERBOX,
                   FilterParams(max_detections=2).resolve(NAMES))
    np.testing.assert_allclose(found.scores, [0.9, 0.8])


def test_boxes_at_the_border_are_clipped_after_nms():
    # Inside the image they overlap by 50/60, as the network means them by 50/160.
    found = _detect([[-25, 50, 150, 40], [30, 50, 60, 40]], [[0.9, 0, 0], [0.8, 0, 0]])
    np.testing.assert_allclose(found.boxes, [[0, 60, 100, 140], [0, 60, 120, 140]])


def test_a_region_cannot_bring_back_a_suppressed_box():
    boxes, scores = [[50, 50, 40, 40], [60, 50, 40, 40]], [[0.9, 0, 0], [0.8, 0, 0]]
    right = ((0.17, 0.0), (1.0, 0.0), (1.0, 1.0), (0.17, 1.0))
    assert len(_detect(boxes, scores)) == 1
    assert len(_detect(boxes[1:], scores[1:], roi=right)) == 1
    assert len(_detect(boxes, scores, roi=right)) == 0


def test_as_many_boxes_as_wanted_are_found_behind_those_outside_the_region():
    boxes = [[10 + 30 * (index % 10), 10 + 30 * (index // 10), 20, 20] for index in range(60)]
    scores = [[0.99 - 0.01 * index, 0, 0] for index in range(60)]
    lower = ((0.0, 0.6), (1.0, 0.6), (1.0, 1.0), (0.0, 1.0))
    found = _detect(boxes, scores, max_detections=3, roi=lower)
    np.testing.assert_allclose(found.scores, [0.59, 0.58, 0.57], atol=1e-6)


def test_a_class_has_its_own_threshold():
    boxes, scores = [[50, 50, 20, 20], [150, 50, 20, 20]], [[0.4, 0, 0], [0, 0.4, 0]]
    assert len(_detect(boxes, scores, score_threshold=0.5)) == 0
    found = _detect(boxes, scores, score_threshold=0.5, class_thresholds=(('barrel', 0.3),))
    assert found.classes.tolist() == [1]


def test_unwanted_classes_do_not_hide_wanted_ones():
    found = _detect([[50, 50, 20, 20], [50, 50, 20, 20]], [[0.9, 0, 0], [0, 0.8, 0]],
                    classes=('barrel',), agnostic_nms=True)
    assert found.classes.tolist() == [1]


def test_agnostic_nms_lets_classes_suppress_each_other():
    boxes, scores = [[50, 50, 20, 20], [50, 50, 20, 20]], [[0.9, 0, 0], [0, 0.8, 0]]
    assert len(_detect(boxes, scores)) == 2
    assert _detect(boxes, scores, agnostic_nms=True).classes.tolist() == [0]


def test_region_of_interest_keeps_centres_inside():
    left_half = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
    found = _detect([[50, 50, 20, 20], [250, 50, 20, 20]], [[0.9, 0, 0], [0.8, 0, 0]],
                    roi=left_half)
    assert found.scores.tolist() == [np.float32(0.9)]


def test_min_box_size_counts_pixels_of_the_image():
    boxes, scores = [[50, 50, 20, 20], [150, 50, 20, 4]], [[0.9, 0, 0], [0.8, 0, 0]]
    assert len(_detect(boxes, scores, min_box_size=8.0)) == 2
    assert len(_detect(boxes, scores, min_box_size=8.5)) == 1


def test_the_tracker_sees_weak_detections_of_wanted_classes():
    selection = FilterParams(score_threshold=0.5, classes=('crate', 'cone')).resolve(NAMES)
    weak = selection.for_tracking(0.1)
    assert weak.thresholds.tolist() == [np.float32(0.1), np.inf, np.float32(0.1)]
    scores = [[0.6, 0, 0], [0, 0.9, 0], [0, 0, 0.2]]
    boxes = [[50, 50, 20, 20], [150, 50, 20, 20], [250, 50, 20, 20]]
    found = detect([_raw(boxes, scores)], _RAW, _LETTERBOX, weak)
    assert found.classes.tolist() == [0, 2]
    assert selection.publishable(found).classes.tolist() == [0]


_WISHES = st.fixed_dictionaries({}, optional={
    'score_threshold': st.floats(0, 1), 'classes': st.sampled_from([(), ('crate',), NAMES]),
    'min_box_size': st.floats(0, 60), 'agnostic_nms': st.booleans(),
    'class_thresholds': st.sampled_from([(), (('cone', 0.7),)]),
    'roi': st.sampled_from([(), ((0.1, 0.1), (0.9, 0.2), (0.5, 0.8))])})


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), _WISHES)
def test_filters_equal_an_obvious_loop(seed, wishes):
    rng = np.random.default_rng(seed)
    boxes = np.concatenate((rng.uniform(-20, 340, (30, 2)), rng.uniform(0, 90, (30, 2))), 1)
    scores = rng.uniform(0, 1, (30, 3)).astype(np.float32)
    params = replace(FilterParams(), **wishes)
    found = _detect(boxes, scores, iou_threshold=1.0, **wishes)
    expected = [index for index in range(30) if _wanted(boxes[index], scores[index], params)]
    np.testing.assert_allclose(found.scores, np.sort(scores.max(axis=1)[expected])[::-1])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), _WISHES, st.sampled_from([0.0, 0.2]))
def test_a_filter_of_size_or_region_only_removes(seed, wishes, iou):
    rng = np.random.default_rng(seed)
    boxes = np.concatenate((rng.uniform(-20, 340, (30, 2)), rng.uniform(10, 150, (30, 2))), 1)
    scores = rng.uniform(0, 1, (30, 3)).astype(np.float32)
    free = {key: value for key, value in wishes.items() if key not in ('roi', 'min_box_size')}
    everything = _detect(boxes, scores, iou_threshold=iou, **free)
    found = _detect(boxes, scores, iou_threshold=iou, **wishes)
    params = replace(FilterParams(), **wishes)
    source = [int(np.argmax(scores.max(axis=1) == score)) for score in everything.scores]
    kept = [index for index in source if _wanted(boxes[index], scores[index], params)]
    np.testing.assert_array_equal(found.scores, scores.max(axis=1)[kept])


def _wanted(box, scores, params):
    name = NAMES[int(scores.argmax())]
    threshold = dict(params.class_thresholds).get(name, params.score_threshold)
    if params.classes and name not in params.classes or scores.max() < np.float32(threshold):
        return False
    cx, cy, w, h = (float(value) * 2 for value in box)
    x1, x2 = max(cx - w / 2, 0), min(cx + w / 2, _SOURCE[0])
    y1, y2 = max(cy - h / 2, 0), min(cy + h / 2, _SOURCE[1])
    if x2 <= x1 or y2 <= y1 or min(x2 - x1, y2 - y1) < params.min_box_size:
        return False
    x, y = (x1 + x2) / 2 / _SOURCE[0], (y1 + y2) / 2 / _SOURCE[1]
    if not params.roi:
        return True
    sides = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0
             for (ax, ay), (bx, by) in zip(params.roi, params.roi[1:] + params.roi[:1])]
    return all(sides) or not any(sides)  # a triangle is convex


@pytest.mark.parametrize('wishes,words', [
    ({'score_threshold': 1.5}, 'score_threshold is 1.5'),
    ({'score_threshold': float('nan')}, 'score_threshold'),
    ({'iou_threshold': -0.1}, 'iou_threshold'),
    ({'max_detections': 0}, 'max_detections is 0'),
    ({'max_detections': 301}, '300'), ({'agnostic_nms': 1}, 'true or false'),
    ({'min_box_size': float('inf')}, 'min_box_size'),
    ({'class_thresholds': (('crate', 2.0),)}, 'class_thresholds "crate" is 2.0'),
    ({'roi': ((0.0, 0.0), (1.0, 1.0))}, '2 corners'),
    ({'roi': ((0.0, 0.0), (1.0, 1.0), (0.0, 1.1))}, 'roi is 1.1')])
def test_bad_wishes_are_refused(wishes, words):
    with pytest.raises(UserError, match=words):
        FilterParams(**wishes)


@pytest.mark.parametrize('wishes', [
    {'classes': ('dog',)}, {'class_thresholds': (('dog', 0.5),)}])
def test_an_unknown_class_is_named_with_those_known(wishes):
    with pytest.raises(UserError, match='"dog".*crate, barrel, cone'):
        FilterParams(**wishes).resolve(NAMES)
