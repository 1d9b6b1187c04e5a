"""The estimator of camera motion against known motions of a textured plane."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from yolojet_ros.core.errors import UserError
from yolojet_ros.tracking.camera_motion import CameraMotion

NOTHING = np.zeros((0, 4), np.float32)
SIZES = [(640, 384), (1280, 720), (320, 240), (401, 1003)]


def plane(width, height, seed=0):
    """Return a picture of blobs of many sizes, larger than the view."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for blobs in (10, 30, 90):
        noise = rng.normal(0, 1, (blobs * height // width + 4, blobs, 3)).astype(np.float32)
        picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def view(picture, size, motion):
    """Return the picture as seen after `motion` (continuous px of the view)."""
    width, height = size
    origin = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    # Continuous coordinates start at the edge of a pixel, those of OpenCV at its centre.
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = np.linalg.inv(half) @ np.vstack((motion, [0, 0, 1])) @ origin @ half
    return cv2.warpAffine(picture, matrix[:2], size, flags=cv2.INTER_LINEAR)


def affine(shift=(0.0, 0.0), scale=1.0, degrees=0.0):
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def error(warp, truth, size):
    width, height = size
    points = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    return np.abs(warp @ points - truth @ points).max()


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('motion', [
    affine((6, -4)), affine(scale=1.03), affine(degrees=1.5), affine((-9, 3), 0.98, -1)])
def test_known_motion_is_found(size, motion):
    picture = plane(2 * size[0], 2 * size[1])
    estimator = CameraMotion('flow')
    assert estimator.estimate(view(picture, size, affine()), NOTHING) is None
    warp = estimator.estimate(view(picture, size, motion), NOTHING)
    assert error(warp, motion, size) < 0.25 * max(size) / 320


def test_gray_and_colour_agree():
    picture = plane(1280, 768)
    motion, size = affine((5, 2)), (640, 384)
    warps = []
    for convert in (lambda image: image, lambda image: cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)):
        estimator = CameraMotion('flow')
        estimator.estimate(convert(view(picture, size, affine())), NOTHING)
        warps.append(estimator.estimate(convert(view(picture, size, motion)), NOTHING))
    assert error(warps[0], warps[1], size) < 0.2


def test_a_large_moving_object_is_masked_out():
    size, box = (640, 384), np.array([[100, 20, 560, 370]], np.float32)
    ground, coat = plane(1280, 768), plane(1280, 768, seed=5)
    estimator, blind = CameraMotion('flow'), CameraMotion('flow')
    motion = affine((3, 0))
    for step in range(2):
        image = view(ground, size, affine((3.0 * step, 0)))
        image[20:370, 100:560] = view(coat, size, affine((-8.0 * step, 0)))[20:370, 100:560]
        warp, wrong = estimator.estimate(image, box), blind.estimate(image, NOTHING)
    assert error(warp, motion, size) < 0.5
    assert wrong is None or error(wrong, motion, size) > 3


def test_auto_rests_on_a_static_camera_and_wakes_up():
    size, picture = (640, 384), plane(1280, 768)
    rng = np.random.default_rng(0)
    estimator = CameraMotion('auto')

    def look(shift):
        image = view(picture, size, affine((shift, 0))).astype(np.int16)
        noise = rng.normal(0, 3, image.shape).astype(np.int16)
        return estimator.estimate(np.clip(image + noise, 0, 255).astype(np.uint8), NOTHING)

    assert [look(0.0) for _ in range(60)] == [None] * 60
    assert estimator.static
    seen = [look(4.0 * k) for k in range(1, 21)]
    told = [warp for warp in seen if warp is not None]
    assert len(told) >= 15
    assert not estimator.static
    # Nothing of the motion is lost while asleep: the told shifts add up.
    assert sum(warp[0, 2] for warp in told) == pytest.approx(80, abs=3)


def test_no_motion_is_told_where_there_is_none_to_see():
    estimator = CameraMotion('flow')
    flat = np.full((240, 320, 3), 90, np.uint8)
    assert [estimator.estimate(flat, NOTHING) for _ in range(3)] == [None] * 3
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (240, 320)).astype(np.uint8) for _ in range(3)]
    assert [estimator.estimate(image, NOTHING) for image in noise] == [None] * 3


def test_off_and_other_sizes():
    picture = plane(1280, 768)
    off, estimator = CameraMotion('off'), CameraMotion('flow')
    for size in ((640, 384), (320, 192), (320, 192)):
        image = view(picture, size, affine())
        assert off.estimate(image, NOTHING) is None
        last = estimator.estimate(image, NOTHING)
        if size == (640, 384):
            assert last is None
    assert error(last, affine(), size) < 0.05
    tiny = np.zeros((5, 4, 3), np.uint8)
    assert estimator.estimate(tiny, NOTHING) is None
    assert estimator.estimate(tiny, NOTHING) is None
    with pytest.raises(UserError, match='camera motion mode'):
        CameraMotion('magic')
