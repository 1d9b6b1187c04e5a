"""Letterbox: geometry, inverse and pixels."""

from dataclasses import replace

import cv2
from hypothesis import given, settings, strategies as st
import numpy as np
import pytest

from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.image_input import ImageInput, PAD_VALUE
from yolojet_ros.core.letterbox import Letterbox, Letterboxer

_SIDES = st.integers(1, 8192)
_NETWORKS = st.tuples(st.integers(1, 40), st.integers(1, 40)).map(
    lambda units: (32 * units[0], 32 * units[1]))


@given(st.tuples(_SIDES, _SIDES), _NETWORKS)
def test_the_image_lies_centred_within_the_input(source, network):
    letterbox = Letterbox.fit(source, network)
    for side, offset, limit in zip(letterbox.resized, letterbox.offset, network):
        assert 1 <= side <= limit
        assert abs((limit - side - offset) - offset) <= 1
    assert any(side == limit for side, limit in zip(letterbox.resized, network))


@given(st.tuples(_SIDES, _SIDES), _NETWORKS, st.lists(
    st.tuples(*[st.floats(0, 1, width=32)] * 4), min_size=1, max_size=8))
def test_inverse_undoes_forward(source, network, rows):
    letterbox = Letterbox.fit(source, network)
    boxes = np.array(rows, np.float32) * np.array([*source, *source], np.float32)
    back = letterbox.inverse(letterbox.forward(boxes))
    # float32 carries 24 bits; offsets and scales cost a few of them.
    np.testing.assert_allclose(back, boxes, atol=max(source) * 1e-5 + 1e-3)


@pytest.mark.parametrize('source', [(1280, 720), (720, 1280), (640, 480), (33, 1000), (5, 3)])
@pytest.mark.parametrize('network', [(320, 192), (640, 640), (192, 320)])
def test_the_frame_of_the_image_maps_onto_the_resized_area(source, network):
    letterbox = Letterbox.fit(source, network)
    full = np.array([[0, 0, *source]], np.float32)
    left, top = letterbox.offset
    inner = [left, top, left + letterbox.resized[0], top + letterbox.resized[1]]
    np.testing.assert_allclose(letterbox.forward(full)[0], inner, atol=1e-3)
    beyond = np.array([[-50, -50, network[0] + 50, network[1] + 50]], np.float32)
    np.testing.assert_array_equal(letterbox.inverse_clipped(beyond), full)


def test_tensor_is_rgb_planes_with_gray_around():
    image = np.zeros((100, 100, 3), np.uint8)
    image[...] = (255, 51, 0)  # blue, green, red
    tensor, letterbox = Letterboxer((320, 192))(ImageView.from_bgr(image))
    assert tensor.shape == (1, 3, 192, 320) and tensor.dtype == np.float32
    left = letterbox.offset[0]
    assert left == 64
    np.testing.assert_allclose(tensor[0, :, 100, 100], [0, 0.2, 1], atol=1e-6)
    np.testing.assert_allclose(tensor[0, :, 100, left - 1], PAD_VALUE / 255, atol=1e-6)
    np.testing.assert_allclose(tensor[0, :, 100, -left], PAD_VALUE / 255, atol=1e-6)


def test_a_new_source_size_leaves_nothing_of_the_old_image():
    letterboxer = Letterboxer((320, 192))
    wide = np.full((100, 200, 3), 255, np.uint8)
    tall = np.full((200, 100, 3), 0, np.uint8)
    letterboxer(ImageView.from_bgr(wide))
    again, _ = letterboxer(ImageView.from_bgr(tall))
    fresh, _ = Letterboxer((320, 192))(ImageView.from_bgr(tall))
    np.testing.assert_array_equal(again, fresh)


@settings(max_examples=25)
@given(st.integers(2, 300), st.integers(2, 300), st.integers(0, 2**32 - 1))
def test_pixels_are_bilinear_at_half_pixel_centres(width, height, seed):
    """Hold cv2's fixed-point resize against the formula that the CUDA kernel computes."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    tensor, letterbox = Letterboxer((64, 32))(ImageView.from_bgr(image))
    (new_width, new_height), (left, top) = letterbox.resized, letterbox.offset
    inner = tensor[0, ::-1, top:top + new_height, left:left + new_width].transpose(1, 2, 0)
    expected = _bilinear(image.astype(np.float64), new_width, new_height)
    assert np.abs(inner * 255 - expected).max() <= 1.01


def _bilinear(image, new_width, new_height):
    def weights(size, new_size):
        position = (np.arange(new_size) + 0.5) * size / new_size - 0.5
        position = np.clip(position, 0, size - 1)
        low = np.floor(position).astype(int)
        return low, np.minimum(low + 1, size - 1), position - low
    y0, y1, fy = weights(image.shape[0], new_height)
    x0, x1, fx = weights(image.shape[1], new_width)
    rows = image[y0] * (1 - fy)[:, None, None] + image[y1] * fy[:, None, None]
    return rows[:, x0] * (1 - fx)[None, :, None] + rows[:, x1] * fx[None, :, None]


@settings(max_examples=25)
@given(st.floats(1e-3, 0.1), st.sampled_from(['rgb', 'bgr']), st.integers(0, 255))
def test_int8_is_what_quantizing_the_float_image_gives(step, order, pad):
    helper = pytest.importorskip('onnx').helper
    onnxruntime = pytest.importorskip('onnxruntime')
    takes = ImageInput(order=order, pad=pad, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 1.0))
    view = ImageView.from_bgr(np.random.default_rng(pad).integers(0, 256, (40, 30, 3), np.uint8))
    tensor = Letterboxer((64, 32), takes)(view)[0]
    node = helper.make_node('QuantizeLinear', ['x', 's', 'z'], ['y'])
    values = [helper.make_tensor_value_info('x', 1, None), helper.make_tensor_value_info('y', 3, None)]
    graph = helper.make_graph([node], 'g', values[:1], values[1:], [
        helper.make_tensor('s', 1, [], [step]), helper.make_tensor('z', 3, [], [0])])
    session = onnxruntime.InferenceSession(helper.make_model(
        graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=7).SerializeToString(),
        providers=['CPUExecutionProvider'])
    found = Letterboxer((64, 32), replace(takes, dtype='int8', step=step))(view)[0]
    assert found.dtype == np.int8 and len(np.unique(found)) > 1
    np.testing.assert_array_equal(found, session.run(None, {'x': tensor})[0])


def test_same_size_is_copied_unchanged():
    image = np.random.default_rng(0).integers(0, 256, (192, 320, 3), np.uint8)
    tensor, _ = Letterboxer((320, 192))(ImageView.from_bgr(image))
    expected = cv2.cvtColor(image, cv2.COLOR_BGR2RGB).transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_allclose(tensor[0], expected, atol=1e-6)
