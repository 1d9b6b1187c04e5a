"""What is drawn: masks, boxes of any angle, keypoints, classes, and nothing elsewhere."""

import cv2
import numpy as np
import pytest

from yolojet_ros.core.detections import Detections
from yolojet_ros.core.drawing import color_of, draw_detections, draw_masks, NO_TRACK
from yolojet_ros.core.masks import LabelImage

_GRAY = 90
_NAMES = ['crate', 'a\nb\x1b' + 'x' * 300, 'half \ud83d', 'kind 3', 'kind 4', 'kind 5', 'kind 6']


def _image(width=640, height=360):
    return np.full((height, width, 3), _GRAY, np.uint8)


def _detections(boxes, classes=None, **task):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    classes = np.zeros(len(boxes)) if classes is None else classes
    return Detections(boxes, np.full(len(boxes), 0.9, np.float32),
                      np.array(classes, np.int32), **task)


def _is(image, x, y, color):
    """Return whether a pixel has a colour, at most half mixed with the gray by smoothing."""
    if color == _GRAY:
        return (image[y, x] == _GRAY).all()
    share = (image[y, x].astype(float) - _GRAY) / (np.array(color) - _GRAY)
    return 0.45 < share.min() and share.max() < 1.05


def test_a_box_and_nothing_inside_it():
    image = draw_detections(_image(), _detections([[100, 100, 200, 180]]), _NAMES)
    assert _is(image, 100, 140, color_of(0)) and _is(image, 150, 180, color_of(0))
    assert (image[103:178, 103:198] == _GRAY).all() and (image[185:] == _GRAY).all()


def test_no_label_covers_another_one():
    boxes = [[300 + 9 * index, 150 + 7 * index, 420 + 9 * index, 260 + 7 * index]
             for index in range(4)]
    classes = [0, 3, 4, 5]
    together = draw_detections(_image(), _detections(boxes, classes), _NAMES)
    for box, index in zip(boxes, classes):
        alone = draw_detections(_image(), _detections([box], [index]), _NAMES)
        counts = [np.count_nonzero((image == color_of(index)).all(axis=2))
                  for image in (alone, together)]
        assert counts[1] > 0.85 * counts[0], index


def test_labels_without_room_stay_in_the_image():
    boxes = [[0, 0, 60, 20]] * 40
    image = draw_detections(_image(64, 24), _detections(boxes), _NAMES)
    assert image.shape == (24, 64, 3) and (image == color_of(0)).all(axis=2).any()


def test_a_mask_lets_half_of_the_image_through():
    labels = np.zeros((360, 640), np.uint16)
    labels[120:160, 120:180] = 1
    labels[120:160, 300:320] = 2
    image = draw_detections(
        _image(), _detections([[100, 100, 200, 180], [290, 100, 330, 180]], [0, 3],
                              masks=LabelImage(labels, 2)), _NAMES)
    for x, index in ((150, 0), (310, 3)):
        np.testing.assert_allclose(
            image[140, x].astype(int), (np.array(color_of(index)) + _GRAY) / 2, atol=1)
    assert _is(image, 110, 140, _GRAY) and _is(image, 250, 140, _GRAY)


@pytest.mark.parametrize('count', [0, 1, 254, 255, 300])
def test_each_mask_has_the_colour_of_its_detection_and_the_last_are_gray(count):
    image = np.full((400, 3), 100, np.uint8)
    labels = np.zeros(400, np.uint16)
    labels[:count] = np.arange(1, count + 1)
    colors = [(index % 200, 7, 9) for index in range(count)]
    expected = image.astype(float)
    for index, color in enumerate(colors):
        expected[index] = (100 + np.array(color if index < 254 else NO_TRACK)) / 2
    image = image.reshape(20, 20, 3)
    draw_masks(image, labels.reshape(20, 20), colors)
    np.testing.assert_allclose(image.reshape(400, 3), expected, atol=0.5)


@pytest.mark.parametrize('turn, long_side', [(0.0, (400, 180)), (np.pi / 2, (320, 260))])
def test_a_rotated_box_is_drawn_as_it_lies(turn, long_side):
    rotated = np.array([[320, 180, 160, 40, turn]], np.float32)
    around = [[240, 160, 400, 200]] if turn == 0 else [[300, 100, 340, 260]]
    image = draw_detections(_image(), _detections(around, rotated=rotated), _NAMES)
    assert _is(image, *long_side, color_of(0)) and _is(image, 320, 180, _GRAY)
    slanted = np.array([[320, 180, 160, 40, 0.5]], np.float32)
    image = draw_detections(
        _image(), _detections([[240, 124, 400, 236]], rotated=slanted), _NAMES)
    end = (320 + 80 * np.cos(0.5), 180 + 80 * np.sin(0.5))  # y points down
    assert _is(image, int(round(end[0])), int(round(end[1])), color_of(0))
    assert _is(image, 241, 230, _GRAY)  # a corner of the upright box


def test_sure_keypoints_and_the_limbs_of_a_person():
    points = np.zeros((1, 17, 3), np.float32)
    points[0, :, 0], points[0, :, 1] = 20 + 30 * np.arange(17), 200
    points[0, 5] = (100, 300, 0.9)  # the shoulders are joined
    points[0, 6] = (300, 300, 0.9)
    points[0, 7] = (100, 340, 0.2)  # not sure
    image = draw_detections(
        _image(), _detections([[50, 50, 500, 350]], keypoints=points), _NAMES)
    for x, y, drawn in ((100, 300, True), (200, 300, True), (100, 340, False), (100, 320, False),
                        (20, 200, False)):
        assert _is(image, x, y, color_of(0)) == drawn, (x, y)
    few = draw_detections(
        _image(), _detections([[50, 50, 500, 350]], keypoints=points[:, 5:8]), _NAMES)
    assert _is(few, 100, 300, color_of(0)) and _is(few, 200, 300, _GRAY)


def test_points_that_are_no_numbers_or_far_away_are_no_error():
    points = np.array([[[np.nan, 5, 1], [1e9, -1e9, 0.9], [np.inf, 3, 0.9]]], np.float32)
    far = np.array([[-4000, 90, 1e5, 60, 0.3]], np.float32)
    draw_detections(_image(), _detections([[0, 0, 9, 9]], keypoints=points), _NAMES)
    draw_detections(_image(), _detections([[0, 0, 640, 360]], rotated=far), _NAMES)


def test_the_best_classes_of_a_classifier_stand_below_each_other():
    likely = np.array([0.05, 0, 0, 0.5, 0.3, 0.1, 0.02], np.float32)
    image = draw_detections(_image(), _detections([], probabilities=likely), _NAMES)
    rows = [np.flatnonzero((image == color_of(index)).all(axis=2).any(axis=1))
            for index in (3, 4, 5, 0, 6)]
    assert all(len(row) > 5 for row in rows)
    for above, below in zip(rows, rows[1:]):
        assert above.max() <= below.min()
    assert not (image == color_of(1)).all(axis=2).any()


def test_labels_stay_in_the_image_whatever_the_name():
    for index in range(3):
        for box in ([0, 0, 9, 9], [600, 330, 640, 360], [-50, -50, 5, 5]):
            image = draw_detections(_image(), _detections([box], [index]), _NAMES)
            # A long name is cut; the whole ground of the label is there.
            rows = np.count_nonzero((image == color_of(index)).all(axis=2).sum(axis=1) > 10)
            assert rows >= 8, (index, box)
    small = draw_detections(_image(20, 10), _detections([[1, 1, 5, 5]], [1]), _NAMES)
    assert small.shape == (10, 20, 3) and cv2.mean(small) != (_GRAY,) * 4
