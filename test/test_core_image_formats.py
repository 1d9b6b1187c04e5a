"""Every encoding of the table, with padding, byte order and damage."""

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from yolojet_ros.core.image_formats import FORMATS, ImageError, ImageView

_WIDTH, _HEIGHT = 12, 8


def _picture():
    """Return a smooth BGR picture, so that chroma subsampling loses little."""
    y, x = np.mgrid[0:_HEIGHT, 0:_WIDTH]
    return np.stack((x * 10 + 60, y * 12 + 70, x * 5 + y * 5 + 50), -1).astype(np.uint8)


def _yuv(bgr):
    """Return luma and chroma planes in video range (ITU-R BT.601)."""
    b, g, r = (bgr[..., index].astype(float) for index in range(3))
    luma = 16 + (65.738 * r + 129.057 * g + 25.064 * b) / 256
    u = 128 + (-37.945 * r - 74.494 * g + 112.439 * b) / 256
    v = 128 + (112.439 * r - 94.154 * g - 18.285 * b) / 256
    return luma, u, v


def _encode(encoding, bgr):
    luma, u, v = (np.rint(plane).astype(np.uint8) for plane in _yuv(bgr))
    if encoding in ('bgr8', '8UC3'):
        return bgr
    if encoding == 'rgb8':
        return bgr[..., ::-1]
    if encoding in ('bgra8', '8UC4'):
        return np.dstack((bgr, np.full(bgr.shape[:2], 9, np.uint8)))
    if encoding == 'rgba8':
        return np.dstack((bgr[..., ::-1], np.full(bgr.shape[:2], 9, np.uint8)))
    if encoding in ('yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv'):
        packed = np.empty((_HEIGHT, _WIDTH, 2), np.uint8)
        chroma, bright = (0, 1) if encoding in ('yuv422', 'uyvy') else (1, 0)
        packed[..., bright] = luma
        packed[:, ::2, chroma], packed[:, 1::2, chroma] = u[:, ::2], v[:, ::2]
        return packed
    if encoding == 'nv12':
        planes = np.empty((_HEIGHT * 3 // 2, _WIDTH), np.uint8)
        planes[:_HEIGHT] = luma
        planes[_HEIGHT:, ::2], planes[_HEIGHT:, 1::2] = u[::2, ::2], v[::2, ::2]
        return planes
    raise AssertionError(encoding)


def _view(encoding, samples, padding=0, **changes):
    rows = samples.reshape(samples.shape[0], -1)
    rows = np.ascontiguousarray(rows).view(np.uint8)
    padded = np.full((rows.shape[0], rows.shape[1] + padding), 77, np.uint8)
    padded[:, :rows.shape[1]] = rows
    arguments = dict(width=_WIDTH, height=_HEIGHT, step=padded.shape[1], encoding=encoding)
    arguments.update(changes)
    return ImageView(padded.reshape(-1), **arguments)


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('encoding,tolerance', [
    ('bgr8', 0), ('8UC3', 0), ('rgb8', 0), ('bgra8', 0), ('8UC4', 0), ('rgba8', 0),
    ('yuv422', 14), ('uyvy', 14), ('yuv422_yuy2', 14), ('yuyv', 14), ('nv12', 20)])
def test_colors_survive(encoding, tolerance, padding):
    picture = _picture()
    bgr = _view(encoding, _encode(encoding, picture), padding).bgr()
    assert bgr.dtype == np.uint8 and bgr.shape == picture.shape
    assert np.abs(bgr.astype(int) - picture).max() <= tolerance


@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_gray_becomes_three_equal_channels(encoding, padding):
    gray = _picture()[..., 0]
    bgr = _view(encoding, gray, padding).bgr()
    for channel in range(3):
        np.testing.assert_array_equal(bgr[..., channel], gray)


@pytest.mark.parametrize('padding', [0, 2, 3])
@pytest.mark.parametrize('order', ['<', '>'])
def test_mono16_keeps_the_upper_byte_in_either_byte_order(order, padding):
    gray = _picture()[..., 0].astype(np.uint16) * 256 + 99
    bgr = _view('mono16', gray.astype(order + 'u2'), padding, big_endian=order == '>').bgr()
    np.testing.assert_array_equal(bgr[..., 0], gray >> 8)


@pytest.mark.parametrize('encoding,corner', [
    ('bayer_rggb8', ((2, 1), (1, 0))), ('bayer_bggr8', ((0, 1), (1, 2))),
    ('bayer_gbrg8', ((1, 0), (2, 1))), ('bayer_grbg8', ((1, 2), (0, 1)))])
@pytest.mark.parametrize('color', [(200, 0, 0), (0, 200, 0), (0, 0, 200)])
def test_bayer_patterns_are_named_by_their_first_two_rows(encoding, corner, color):
    pattern = np.tile(np.array(corner), (_HEIGHT // 2, _WIDTH // 2))
    mosaic = np.array(color, np.uint8)[pattern]
    bgr = _view(encoding, mosaic).bgr()
    np.testing.assert_array_equal(bgr[3, 5], color)


def test_every_encoding_of_the_table_is_covered_here():
    covered = {'mono8', '8UC1', 'mono16', '16UC1', 'bayer_rggb8', 'bayer_bggr8', 'bayer_gbrg8',
               'bayer_grbg8', 'bgr8', '8UC3', 'rgb8', 'bgra8', '8UC4', 'rgba8', 'yuv422', 'uyvy',
               'yuv422_yuy2', 'yuyv', 'nv12'}
    assert set(FORMATS) == covered


def test_bgr8_is_not_copied():
    view = ImageView.from_bgr(_picture())
    assert np.shares_memory(view.bgr(), view.data)


@pytest.mark.parametrize('changes,cause,words', [
    ({'width': 0}, 'empty', '0x8'), ({'height': 0}, 'empty', '12x0'),
    ({'encoding': 'jpeg9000'}, 'encoding', 'jpeg9000'),
    ({'encoding': 'a\n[ERROR] b' + 'x' * 10**6}, 'encoding', 
     r'^cannot decode encoding "a.n.{,120}; '),
    ({'encoding': ''}, 'encoding', 'bgr8, '),
    ({'step': 35}, 'step', '36'), ({'step': 0}, 'step', '36'),
    ({'height': 9}, 'data', '324'), ({'height': 7}, 'data', '252'),
    ({'step': 40}, 'data', '320'), ({'width': 2**31, 'height': 2**31}, 'size', 'million'),
    ({'encoding': 'yuv422', 'width': 11}, 'size', 'odd'),
    ({'encoding': 'nv12', 'height': 7}, 'size', 'odd')])
def test_damage_is_named(changes, cause, words):
    with pytest.raises(ImageError, match=words) as error:
        _view(**{'encoding': 'bgr8', 'samples': _picture(), **changes}).bgr()
    assert error.value.cause == cause


def test_eight_thousand_pixels_square_are_accepted():
    side = 8192
    data = np.lib.stride_tricks.as_strided(
        np.zeros(1, np.uint8), (side * side,), (0,))  # no 64 MB for this test
    assert ImageView(data, side, side, side, 'mono8').samples().shape == (side, side)


def _any_view(encoding, width, height, padding, rng):
    """Return an image of random, smooth brightness in any encoding; chroma is neutral."""
    kind = FORMATS[encoding]
    gray = cv2.resize(rng.integers(0, 256, (4, 4)).astype(np.uint8), (width, height))
    samples = np.full((height * kind.rows[0] // kind.rows[1], width, kind.channels), 128)
    if encoding in ('uyvy', 'yuv422'):
        samples[..., 1] = gray
    elif kind.channels == 2 or kind.rows != (1, 1):
        samples[:height, :, 0] = gray
    else:
        samples[:] = gray[..., None]
    if kind.dtype.itemsize == 2:
        samples = samples * 257
    rows = samples.astype(kind.dtype).reshape(len(samples), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding * kind.dtype.itemsize)), constant_values=77)
    return ImageView(rows.reshape(-1), width, height, rows.shape[1], encoding), gray


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(FORMATS)), st.integers(4, 60), st.integers(4, 60),
       st.sampled_from([1, 2, 4, 6, 8]), st.integers(0, 5), st.integers(0, 2**32))
def test_gray_is_the_mean_brightness_of_blocks(encoding, width, height, reduction, padding, seed):
    width, height = 2 * width, 2 * height
    reduction = reduction if min(width, height) >= reduction else 1
    view, gray = _any_view(encoding, width, height, padding, np.random.default_rng(seed))
    before = view.data.copy()
    found = view.gray(reduction)
    rows, columns = height // reduction, width // reduction
    blocks = gray[:rows * reduction, :columns * reduction].reshape(
        rows, reduction, columns, reduction).astype(float)
    assert found.shape == (rows, columns) and found.dtype == np.uint8
    # It lies among the brightnesses of the block; a mosaic's is interpolated where it is not.
    slack = 2 + np.ptp(blocks, axis=(1, 3)) * (reduction > 1)
    if FORMATS[encoding].mosaic and reduction == 1:
        slack = 2 + np.abs(np.gradient(gray.astype(float))).sum(0).max() * 2
    assert (np.abs(found - blocks.mean((1, 3))) <= slack).all()
    found[:] = 0  # it is the caller's own
    np.testing.assert_array_equal(view.data, before)


@pytest.mark.parametrize('encoding', sorted(FORMATS))
def test_an_image_is_converted_once_and_nobody_can_spoil_it_for_others(encoding):
    view, _ = _any_view(encoding, 12, 8, 3, np.random.default_rng(0))
    image = view.bgr()
    assert np.shares_memory(view.bgr(), image)
    if not np.shares_memory(image, view.data):
        with pytest.raises(ValueError):
            image[:] = 0


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(FORMATS)), st.integers(2, 30), st.integers(2, 30),
       st.integers(0, 5), st.integers(0, 2**32))
def test_one_byte_tells_the_brightness_of_a_pixel(encoding, width, height, padding, seed):
    view, gray = _any_view(encoding, 2 * width, 2 * height, padding, np.random.default_rng(seed))
    y, x = np.indices(gray.shape)
    np.testing.assert_array_equal(view.data[view.places(x, y)], gray)


def test_of_two_bytes_the_upper_one_and_of_colours_green_tells_the_brightness():
    x = np.arange(3)
    for order in '<>':
        samples = np.array([[256, 512, 768]], order + 'u2').view(np.uint8)
        view = ImageView(samples.reshape(-1), 3, 1, 6, 'mono16', big_endian=order == '>')
        assert view.data[view.places(x, 0 * x)].tolist() == [1, 2, 3]
    for encoding, channels in (('bgr8', 3), ('rgb8', 3), ('rgba8', 4), ('bgra8', 4)):
        samples = np.zeros((1, 3, channels), np.uint8)
        samples[..., 1] = 1, 2, 3
        view = ImageView(samples.reshape(-1), 3, 1, 3 * channels, encoding)
        assert view.data[view.places(x, 0 * x)].tolist() == [1, 2, 3]
