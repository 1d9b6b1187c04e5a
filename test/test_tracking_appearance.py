"""The descriptor knows the same look again and tells others apart; the tracker uses it."""

from __future__ import annotations

import math

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
import numpy as np
import pytest

from yolojet_ros.tracking import create_tracker
from yolojet_ros.tracking.appearance import describe, DESCRIPTOR_LENGTH

PLACES = np.array([[20, 20, 80, 140], [120, 30, 180, 150], [220, 10, 300, 90]], np.float64)


def picture(seed):
    """Return three objects of random looks on a gray ground, drawn at PLACES."""
    rng = np.random.default_rng(seed)
    image = np.full((200, 320, 3), 110, np.uint8)
    for x1, y1, x2, y2 in PLACES.astype(int):
        coat = rng.integers(0, 255, (4, 3, 3)).astype(np.uint8)
        image[y1:y2, x1:x2] = cv2.resize(
            coat, (x2 - x1, y2 - y1), interpolation=cv2.INTER_NEAREST)
    return image


@pytest.mark.parametrize('seed', range(5))
def test_same_look_at_another_size_and_brightness_is_nearest(seed):
    image = picture(seed)
    known = describe(image, PLACES)
    assert np.linalg.norm(known, axis=1) == pytest.approx(1, abs=1e-5)
    seen = cv2.resize(image, None, fx=0.7, fy=0.8)
    seen = cv2.convertScaleAbs(seen, alpha=0.85)
    again = describe(seen, PLACES * (0.7, 0.8, 0.7, 0.8) + 1.5)
    similarity = known @ again.T
    assert (similarity.argmax(1) == np.arange(3)).all()
    assert similarity.diagonal().min() > similarity[~np.eye(3, dtype=bool)].max()


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, (3, 4), elements=st.one_of(
    st.floats(-100, 500), st.floats(allow_nan=True, allow_infinity=True))))
def test_any_boxes_give_finite_descriptors(boxes):
    with np.errstate(all='ignore'):
        result = describe(picture(0), boxes)
    assert result.shape == (3, DESCRIPTOR_LENGTH)
    assert np.isfinite(result).all()


def test_boxes_outside_the_image_are_like_nothing():
    assert not describe(picture(0), np.array([[400, 10, 450, 90]])).any()
    assert describe(picture(0), np.zeros((0, 4))).shape == (0, DESCRIPTOR_LENGTH)


def box(x):
    return [x - 20, 60, x + 20, 140]


def run_hidden_turn(with_looks):
    """Return the ids after two objects turn while hidden, where motion tells nothing."""
    looks = np.eye(8, dtype=np.float32)
    tracker = create_tracker()

    def feed(k, xs, looks):
        n = len(xs)
        return tracker.update(
            np.array([box(x) for x in xs]).reshape(n, 4), np.full(n, 0.8), np.zeros(n, int),
            k / 30, embeddings=looks if with_looks else None).tolist()

    for k in range(30):
        feed(k, [100 + 4 * k, 500 - 4 * k], looks[:2])
    for k in range(30, 45):
        feed(k, [], looks[:0])
    for k in range(45, 50):
        ids = feed(k, [365, 240], looks[[1, 0]])
    return ids


def test_look_brings_lost_tracks_back_to_the_right_objects():
    assert run_hidden_turn(True) == [2, 1]
    assert run_hidden_turn(False) != [2, 1]


def test_other_looks_start_new_tracks():
    tracker = create_tracker()
    looks = np.eye(4, dtype=np.float32)
    for k in range(10):
        tracker.update(
            np.array([box(100)]), np.array([0.8]), np.array([0]), k / 30, embeddings=looks[:1])
    for k in range(20, 23):
        ids = tracker.update(
            np.array([box(160)]), np.array([0.8]), np.array([0]), k / 30, embeddings=looks[1:2])
    assert ids.tolist() == [2]


def test_bad_embeddings():
    tracker = create_tracker()
    one = (np.array([box(100)]), np.array([0.8]), np.array([0]))
    with pytest.raises(ValueError, match='embeddings'):
        tracker.update(*one, 0.0, embeddings=np.zeros((2, 8)))
    for k, values in enumerate([
            np.full((1, 8), math.nan), np.full((1, 8), math.inf), np.ones((1, 3)), None,
            np.ones((1, 8), np.float16)]):
        ids = tracker.update(*one, k / 30, embeddings=values)
    assert ids.tolist() == [1]
