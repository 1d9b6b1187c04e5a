"""The estimator of camera motion against known motions of a textured plane."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.image_formats import FORMATS, ImageView
from yolojet_ros.tracking.camera_motion import CameraMotion

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


def look(estimator, image, boxes=None):
    """Show an array to the estimator, and then the objects in it; return the motion."""
    height, width = image.shape[:2]
    encoding = 'mono8' if image.ndim == 2 else 'bgr8'
    warp = estimator.look(
        ImageView(image.reshape(-1), width, height, image.strides[0], encoding))
    if boxes is not None:
        estimator.mask(boxes)
    return warp


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
    assert look(estimator, view(picture, size, affine())) is None
    warp = look(estimator, view(picture, size, motion))
    assert error(warp, motion, size) < 0.25 * max(size) / 320


def encoded(bgr, encoding):
    """Return a view of the picture in another encoding, its rows padded by some bytes."""
    height, width = bgr.shape[:2]
    gray = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    if encoding.startswith('bayer'):
        channel = {'r': 2, 'g': 1, 'b': 0}
        samples = np.empty((height, width), np.uint8)
        for place, name in enumerate(encoding[len('bayer_'):-1]):
            y, x = divmod(place, 2)
            samples[y::2, x::2] = bgr[y::2, x::2, channel[name]]
    elif encoding == 'nv12':
        planes = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)
        chroma = planes[height:].reshape(2, -1)
        samples = np.vstack((planes[:height], chroma.T.reshape(-1, width)))
    elif FORMATS[encoding].channels == 2:
        planes = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV)
        samples = np.empty((height, width, 2), np.uint8)
        bright = 0 if encoding in ('yuyv', 'yuv422_yuy2') else 1
        samples[..., bright] = planes[..., 0]
        samples[:, ::2, 1 - bright], samples[:, 1::2, 1 - bright] = (
            planes[:, ::2, 1], planes[:, ::2, 2])
    elif encoding in ('mono8', '8UC1'):
        samples = gray
    elif encoding in ('mono16', '16UC1'):
        samples = (gray.astype(np.uint16) * 257).astype('<u2')
    else:
        order = {'rgb8': cv2.COLOR_BGR2RGB, 'rgba8': cv2.COLOR_BGR2RGBA,
                 'bgra8': cv2.COLOR_BGR2BGRA, '8UC4': cv2.COLOR_BGR2BGRA}.get(encoding)
        samples = bgr if order is None else cv2.cvtColor(bgr, order)
    rows = np.ascontiguousarray(samples).reshape(len(samples), -1).view(np.uint8)
    padded = np.pad(rows, ((0, 0), (0, 6)), constant_values=200)
    return ImageView(padded.reshape(-1), width, height, padded.shape[1], encoding)


@pytest.mark.parametrize('size', [(640, 384), (1280, 720), (320, 240), (1924, 1082)])
@pytest.mark.parametrize('encoding', sorted(FORMATS))
def test_all_encodings_agree(encoding, size):
    picture, motion = plane(2 * size[0], 2 * size[1]), affine((5, 2), 1.01, 0.5)
    estimator = CameraMotion('flow')
    for step in (affine(), motion):
        warp = estimator.look(encoded(view(picture, size, step), encoding))
    assert error(warp, motion, size) < 0.25 * max(size) / 320


class Guarded(ImageView):
    """An image that must not be converted whole."""

    def bgr(self):
        raise AssertionError('converted to BGR')


@pytest.mark.parametrize('encoding', ['rgb8', 'nv12', 'yuyv', 'bayer_rggb8', 'mono16'])
def test_an_estimate_converts_no_whole_image_and_a_rest_reads_next_to_nothing(encoding):
    size, picture, reads = (640, 384), plane(1280, 768), []

    class Counted(Guarded):
        def samples(self):
            reads.append(1)
            return super().samples()

    still = encoded(view(picture, size, affine()), encoding)
    still = Counted(still.data, *size, still.step, encoding)
    estimator = CameraMotion('auto')
    while not estimator.static:
        estimator.look(still)
        assert len(reads) < 30
    estimator.look(still)  # from now on there is one to compare with
    del reads[:]
    for _ in range(122):
        assert estimator.look(still) is None
    assert len(reads) == 2


def test_a_large_moving_object_is_masked_out():
    size, box = (640, 384), np.array([[100, 20, 560, 370]], np.float32)
    ground, coat = plane(1280, 768), plane(1280, 768, seed=5)
    estimator, blind = CameraMotion('flow'), CameraMotion('flow')
    motion = affine((3, 0))
    for step in range(2):
        image = view(ground, size, affine((3.0 * step, 0)))
        image[20:370, 100:560] = view(coat, size, affine((-8.0 * step, 0)))[20:370, 100:560]
        warp, wrong = look(estimator, image, box), look(blind, image)
    assert error(warp, motion, size) < 0.5
    assert wrong is None or error(wrong, motion, size) > 3


def test_auto_rests_on_a_static_camera_and_wakes_up():
    size, picture = (640, 384), plane(1280, 768)
    rng = np.random.default_rng(0)
    estimator = CameraMotion('auto')

    def shifted(shift):
        image = view(picture, size, affine((shift, 0))).astype(np.int16)
        noise = rng.normal(0, 3, image.shape).astype(np.int16)
        return look(estimator, np.clip(image + noise, 0, 255).astype(np.uint8))

    assert [shifted(0.0) for _ in range(60)] == [None] * 60
    assert estimator.static
    seen = [shifted(4.0 * k) for k in range(1, 21)]
    told = [warp for warp in seen if warp is not None]
    assert len(told) >= 15
    assert not estimator.static
    # Nothing of the motion is lost while asleep: the told shifts add up.
    assert sum(warp[0, 2] for warp in told) == pytest.approx(80, abs=3)


@pytest.mark.parametrize('motion', [affine((4, 0)), affine(scale=1.02), affine((30, -20))])
def test_the_fifth_image_of_a_motion_at_the_latest_ends_the_rest(motion):
    size, picture = (640, 384), plane(1280, 768)
    still, moved = (view(picture, size, step) for step in (affine(), motion))
    for images in range(40, 45):
        estimator = CameraMotion('auto')
        for _ in range(images):
            assert look(estimator, still) is None
        warps = [look(estimator, moved) for _ in range(5)]
        told, = [warp for warp in warps if warp is not None]
        assert error(told, motion, size) < 0.5


def test_flow_looks_at_every_image_however_long_the_camera_has_stood():
    size, picture, estimator = (640, 384), plane(1280, 768), CameraMotion('flow')
    still = view(picture, size, affine())
    warps = [look(estimator, still) for _ in range(60)]
    assert warps[0] is None and all(warp is not None for warp in warps[1:])
    assert not estimator.resting
    told = [look(estimator, view(picture, size, affine((3 * step, 0)))) for step in (1, 2, 3)]
    assert [warp[0, 2] for warp in told] == pytest.approx([3, 3, 3], abs=0.5)


def test_an_object_that_never_rests_costs_no_look_at_every_image():
    size, picture, looks = (640, 384), plane(1280, 768), []

    class Counted(ImageView):
        def gray(self, reduction=1):
            looks.append(1)
            return super().gray(reduction)

    image, coat, estimator = view(picture, size, affine()), plane(640, 384, 3), CameraMotion()
    for index in range(140):
        seen = image.copy()
        seen[:230, :300] = np.roll(coat, 40 * index, axis=1)[:230, :300]
        if index == 40:
            del looks[:]
        warp = estimator.look(Counted(seen.reshape(-1), *size, seen.strides[0], 'bgr8'))
        assert warp is None
        estimator.mask(np.zeros((0, 4)))
    assert len(looks) <= 21


def test_no_motion_is_told_where_there_is_none_to_see():
    estimator = CameraMotion('flow')
    flat = np.full((240, 320, 3), 90, np.uint8)
    assert [look(estimator, flat) for _ in range(3)] == [None] * 3
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (240, 320)).astype(np.uint8) for _ in range(3)]
    assert [look(estimator, image) for image in noise] == [None] * 3


def test_off_and_other_sizes():
    picture = plane(1280, 768)
    off, estimator = CameraMotion('off'), CameraMotion('flow')
    for size in ((640, 384), (320, 192), (320, 192)):
        image = view(picture, size, affine())
        assert look(off, image) is None
        last = look(estimator, image)
        if size == (640, 384):
            assert last is None
    assert error(last, affine(), size) < 0.05
    tiny = np.zeros((5, 4, 3), np.uint8)
    assert look(estimator, tiny) is None
    assert look(estimator, tiny) is None
    with pytest.raises(UserError, match='camera motion mode'):
        CameraMotion('magic')
