"""Masks, keypoints and oriented boxes of the scene, against what its pictures show."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from yolojet_ros.sim import objects
from yolojet_ros.sim.camera import similarity
from yolojet_ros.sim.frame import CLASS_NAMES
from yolojet_ros.sim.scene import Scene
from yolojet_ros.sim.sprites import instance_map, Layer, marks_seen, render
from yolojet_ros.sim.stills import sample

_SIZE = (240, 200)


def _layer(label, place, angle=0.0, scale=80.0, yaw=0.7, elevation=0.3):
    shape = objects.build(label, 3, 24)
    sprite = render(shape, yaw, elevation, scale)
    linear = similarity(np.zeros(2), np.zeros(2), 1.0, angle)[:, :2]
    return Layer(sprite, linear, np.array(place, float), np.array(place, float), _SIZE)


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('turned', [False, True])
def test_truth_of_a_still_fits_together(seed, turned):
    frame = sample(seed, 320, 192, turned)
    assert frame.instances.shape == (192, 320) and frame.instances.max() <= len(frame.boxes)
    for index, (box, rotated) in enumerate(zip(frame.boxes, frame.rotated)):
        rows, columns = np.nonzero(frame.instances == index + 1)
        assert len(rows) > 0
        x1, y1, x2, y2 = box
        assert columns.min() >= x1 - 1.5 and columns.max() + 1 <= x2 + 1.5
        assert rows.min() >= y1 - 1.5 and rows.max() + 1 <= y2 + 1.5
        # Every visible pixel lies in the turned box.
        cosine, sine = math.cos(rotated[4]), math.sin(rotated[4])
        dx, dy = columns + 0.5 - rotated[0], rows + 0.5 - rotated[1]
        assert np.abs(dx * cosine + dy * sine).max() <= rotated[2] / 2 + 1.5
        assert np.abs(dy * cosine - dx * sine).max() <= rotated[3] / 2 + 1.5
    share = [(frame.instances == i + 1).sum() for i in range(len(frame.boxes))]
    sides = frame.boxes[:, 2:] - frame.boxes[:, :2]
    assert all(s <= w * h * 1.1 + 4 for s, (w, h) in zip(share, sides))


def test_a_mask_is_what_nothing_in_front_hides():
    far = _layer(CLASS_NAMES.index('crate'), (110, 150))
    near = _layer(CLASS_NAMES.index('barrel'), (150, 160))
    pillar = _layer(CLASS_NAMES.index('cone'), (90, 160))
    front = [near, pillar, far]
    seen = instance_map(front, [far, near], _SIZE)
    alone = {id(layer): instance_map([layer], [layer], _SIZE) > 0 for layer in front}
    assert np.array_equal(seen == 2, alone[id(near)])
    hidden = alone[id(near)] | alone[id(pillar)]
    assert np.array_equal(seen == 1, alone[id(far)] & ~hidden)
    assert (alone[id(far)] & hidden).sum() > 50


@pytest.mark.parametrize('angle', [-2.5, -0.6, 0.0, 0.4, 1.3])
def test_the_box_of_a_sign_turns_clockwise_with_it(angle):
    upright = _layer(CLASS_NAMES.index('sign'), (120, 130), 0.0, 60.0)
    turned = _layer(CLASS_NAMES.index('sign'), (120, 100), angle, 60.0)
    assert turned.rotated[4] == pytest.approx(angle, abs=1e-6)
    assert turned.rotated[2:4] == pytest.approx(upright.rotated[2:4], abs=1e-6)
    # The box hugs the silhouette: its own minimum-area rectangle is hardly smaller.
    mask = instance_map([turned], [turned], _SIZE)
    contours = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[-2]
    wide, high = cv2.minAreaRect(np.concatenate(contours))[1]
    assert (wide + 1) * (high + 1) > 0.7 * turned.rotated[2] * turned.rotated[3]
    # Up in the object's own axes, x to the right and y down, is where its panel is.
    across, up = turned.marks[0] - turned.marks[1]
    assert math.atan2(across, -up) == pytest.approx(
        math.remainder(angle, 2 * math.pi), abs=0.05)


def test_a_ball_has_no_direction():
    ball = _layer(CLASS_NAMES.index('ball'), (120, 130), 1.0)
    assert ball.rotated[4] == 0
    assert ball.rotated[2] == pytest.approx(ball.rotated[3], rel=0.1)


@pytest.mark.parametrize('label', range(len(CLASS_NAMES)))
def test_keypoints_lie_on_the_object(label):
    layer = _layer(label, (120, 170), 0.1)
    mask = instance_map([layer], [layer], _SIZE)
    near = cv2.dilate(mask, np.ones((7, 7), np.uint8))
    top, foot, left, right = marks_seen(layer, [layer], _SIZE)[:, :2]
    assert top[1] < foot[1] and left[0] < foot[0] < right[0]
    for x, y in (top, left, right):
        assert near[int(y), int(x)], (CLASS_NAMES[label], x, y)


def test_keypoints_tell_hidden_from_seen_and_from_outside():
    far = _layer(CLASS_NAMES.index('crate'), (120, 150))
    wall = _layer(CLASS_NAMES.index('crate'), (120, 160))
    assert (marks_seen(far, [far], _SIZE)[:, 2] == 2).all()
    assert (marks_seen(far, [wall, far], _SIZE)[:, 2] == 1).any()
    low = _layer(CLASS_NAMES.index('crate'), (120, 230))
    shown = marks_seen(low, [low], _SIZE)
    assert shown[0, 2] == 2 and shown[1, 2] == 0


def test_a_film_carries_the_same_truth():
    frame = Scene(320, 192, seed=4, object_count=8, occluders=1).read()
    count = len(frame.boxes)
    assert frame.rotated.shape == (count, 5) and frame.keypoints.shape == (count, 4, 3)
    visible = np.bincount(frame.instances.ravel(), minlength=count + 1)[1:]
    assert (visible[frame.visibility > 0.3] > 0).all()
