"""Antialiased resize: every pixel counts, in the bytes of Pillow."""

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest

from yolojet_ros.core.antialias import Antialias
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.image_input import Fit, ImageInput
from yolojet_ros.core.letterbox import Letterbox, Letterboxer

_SIDES = st.integers(1, 200)


def _resized(image, width, height):
    source = image.shape[1], image.shape[0]
    return Antialias(source, (width, height), (0, 0, width, height))(image)


@settings(max_examples=60, deadline=None)
@given(width=_SIDES, height=_SIDES, new_width=_SIDES, new_height=_SIDES,
       seed=st.integers(0, 2**32 - 1))
def test_pixels_are_means_below_a_triangle(width, height, new_width, new_height, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    expected = np.einsum('ay,yxc,bx->abc', _triangles(height, new_height), image.astype(float),
                         _triangles(width, new_width), optimize=True)
    assert np.abs(_resized(image, new_width, new_height) - expected).max() <= 1.01


def _triangles(size, new_size):
    """Return float[new_size, size], the weights of all pixels for each new one."""
    reach = max(size / new_size, 1)
    distance = np.arange(size) + 0.5 - ((np.arange(new_size) + 0.5) * size / new_size)[:, None]
    weights = np.maximum(1 - np.abs(distance) / reach, 0)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize('source, size', [
    ((1280, 720), (398, 224)), ((1280, 720), (640, 640)), ((640, 480), (640, 640)),
    ((1920, 1080), (398, 224)), ((100, 60), (373, 224)), ((333, 222), (224, 224))])
def test_bytes_are_those_of_pillow(source, size):
    pillow = pytest.importorskip('PIL.Image')
    image = np.random.default_rng(2).integers(0, 256, (*source[::-1], 3), np.uint8)
    expected = pillow.fromarray(image).resize(size, pillow.BILINEAR)
    np.testing.assert_array_equal(_resized(image, *size), np.asarray(expected))


def test_a_fine_pattern_becomes_its_mean():
    image = np.zeros((400, 400, 3), np.uint8)
    image[::4, ::4] = 255  # what every fourth pixel shows is not what is there
    takes = ImageInput(Fit.CROP, antialias=True)
    tensor, _ = Letterboxer((100, 100), takes)(ImageView.from_bgr(image))
    assert np.abs(tensor[..., 1:-1, 1:-1] * 255 - 255 / 16).max() < 6


@pytest.mark.parametrize('source, resized, offset', [
    ((1280, 720), (398, 224), (-87, 0)), ((641, 480), (299, 224), (-38, 0)),
    ((483, 480), (225, 224), (0, 0)), ((100, 487), (224, 1090), (0, -433)),
    ((224, 224), (224, 224), (0, 0))])
def test_the_middle_is_cut_out_where_torchvision_cuts(source, resized, offset):
    letterbox = Letterbox.fit(source, (224, 224), Fit.CROP)
    assert (letterbox.resized, letterbox.offset) == (resized, offset)


def test_a_change_of_size_leaves_nothing_of_the_old_one():
    rng = np.random.default_rng(4)
    takes = ImageInput(Fit.CROP, antialias=True)
    letterboxer = Letterboxer((64, 48), takes)
    for size in ((90, 200), (48, 64), (300, 30), (90, 200)):
        view = ImageView.from_bgr(rng.integers(0, 256, (*size, 3), np.uint8))
        np.testing.assert_array_equal(
            letterboxer(view)[0], Letterboxer((64, 48), takes)(view)[0])
