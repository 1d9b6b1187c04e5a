"""The quick look whether a camera stands still, against known motions of a textured plane."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from test_tracking_camera_motion import affine, encoded, plane, view

from yolojet_ros.core.image_formats import FORMATS, ImageView
from yolojet_ros.tracking.stillness import Stillness

SIZE = (640, 384)
SHIFT = 0.6  # px of these images
GROUND = plane(1280, 768)
STILL = view(GROUND, SIZE, affine())
# As spread over an image as those that are followed.
CORNERS = np.stack(np.meshgrid(
    np.arange(20, 620, 31), np.arange(20, 364, 31)), -1).reshape(-1, 2).astype(np.float32)


def stillness(image=STILL):
    return Stillness(ImageView.from_bgr(image), CORNERS, SHIFT, 2)


def noisy(image, seed, sigma, offset=0):
    noise = np.random.default_rng(seed).normal(offset, sigma, image.shape)
    return ImageView.from_bgr(np.clip(image + noise, 0, 255).astype(np.uint8))


@given(st.integers(0, 2**32), st.floats(0, 1.2), st.integers(-30, 30))
@settings(max_examples=40, deadline=None)
def test_noise_and_another_light_are_no_motion(seed, sigma, offset):
    assert stillness().holds(noisy(STILL, seed, sigma, offset))


@given(st.floats(2.5 * SHIFT, 60), st.floats(0, 2 * np.pi), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_every_shift_is_noticed(length, angle, seed):
    motion = affine((length * np.cos(angle), length * np.sin(angle)))
    assert not stillness().holds(noisy(view(GROUND, SIZE, motion), seed, 2))


@pytest.mark.parametrize('motion', [
    affine(degrees=0.5), affine(degrees=-4), affine(scale=1.01), affine(scale=0.9)])
def test_turns_and_zooms_are_noticed(motion):
    assert not stillness().holds(noisy(view(GROUND, SIZE, motion), 0, 2))


def test_a_slight_shift_is_none():
    assert stillness().holds(noisy(view(GROUND, SIZE, affine((0.2, -0.2))), 0, 1))


def test_an_object_in_front_is_no_motion_unless_it_hides_half_of_a_quarter():
    coat = plane(640, 384, seed=5)
    for height, holds in ((70, True), (180, False)):
        image = STILL.copy()
        image[:height, :310] = coat[:height, :310]
        assert stillness().holds(ImageView.from_bgr(image)) is holds


@pytest.mark.parametrize('encoding', sorted(FORMATS))
def test_all_encodings_agree(encoding):
    still = encoded(STILL, encoding)
    compared = Stillness(still, CORNERS, SHIFT, 2)
    assert compared.holds(replace(still, data=still.data.copy()))
    assert not compared.holds(encoded(view(GROUND, SIZE, affine((3, 2))), encoding))


def test_nothing_is_said_of_an_image_that_cannot_be_compared():
    flat = np.full((384, 640, 3), 90, np.uint8)
    for image, corners in ((flat, CORNERS), (STILL, CORNERS[:0]), (STILL, CORNERS[:2])):
        compared = Stillness(ImageView.from_bgr(image), corners, SHIFT, 2)
        assert not compared.holds(ImageView.from_bgr(image))
    compared = stillness()
    other = view(GROUND, (320, 192), affine())
    assert not compared.holds(ImageView.from_bgr(other))
    assert not compared.holds(replace(ImageView.from_bgr(STILL), encoding='rgb8'))
    short = ImageView.from_bgr(STILL)
    assert not compared.holds(replace(short, data=short.data[:-3]))
