"""Sprites, their boxes, their visibility and the objects they show."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from yolojet_ros.sim import objects
from yolojet_ros.sim.frame import CLASS_NAMES
from yolojet_ros.sim.sprites import Layer, measure_visibility, render, Sprite, SpriteCache

SIZE = (320, 192)


def square_sprite(side, margin=4):
    """Return an opaque white square whose origin is its upper left corner."""
    pixels = np.zeros((side + 2 * margin, side + 2 * margin, 4), np.uint8)
    pixels[margin:-margin, margin:-margin] = 255
    sprite = Sprite(pixels, np.array([margin, margin]), 100.0)
    sprite.add_shadow(0.1, 0.3)
    return sprite


def layer_at(sprite, x, y, linear=None):
    linear = np.eye(2) if linear is None else linear
    return Layer(sprite, linear, np.array([x, y], float), np.array([x, y], float), SIZE)


def mask_extent(layer):
    """Return x1 y1 x2 y2 of the pixels that the layer paints."""
    x, y = layer.region[:2]
    rows, columns = np.nonzero(layer.mask)
    return np.array([x + columns.min(), y + rows.min(), x + columns.max() + 1, y + rows.max() + 1])


def similarity(angle, scale):
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]])


def test_an_aligned_square_has_the_exact_box_and_pixels():
    layer = layer_at(square_sprite(20), 50, 60)
    np.testing.assert_allclose(layer.box, [50, 60, 70, 80])
    np.testing.assert_array_equal(mask_extent(layer), [50, 60, 70, 80])
    assert layer.area == 400
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    layer.paint(image, 1.0)
    assert (image[60:80, 50:70] == 255).all()
    assert image.sum(dtype=np.int64) == 400 * 3 * 255


@given(label=st.integers(0, 6), style=st.integers(0, 5), yaw=st.floats(0, 6.3),
       elevation=st.floats(0.05, 0.7), angle=st.floats(-0.6, 0.6), scale=st.floats(0.55, 1.0),
       x=st.floats(120, 200), y=st.floats(110, 140))
@settings(max_examples=60, deadline=None)
def test_boxes_are_tight_around_the_painted_mask(label, style, yaw, elevation, angle, scale, x,
                                                 y):
    sprite = render(objects.build(label, style, 24), yaw, elevation, 50.0)
    layer = layer_at(sprite, x, y, similarity(angle, scale))
    # A tip thinner than half a pixel is in the outline and not in the mask.
    assert np.abs(mask_extent(layer) - layer.box).max() <= 4


@pytest.mark.parametrize('label', range(7))
def test_box_error_is_small_on_average(label):
    errors = []
    rng = np.random.default_rng(label)
    for style in range(25):
        sprite = render(objects.build(label, style, 24), rng.uniform(0, 6), 0.4, 60.0)
        layer = layer_at(sprite, *rng.uniform((120, 110), (200, 140)),
                         similarity(rng.normal(0, 0.1), rng.uniform(0.6, 1)))
        errors.append(mask_extent(layer) - layer.box)
    assert np.abs(errors).mean() < 0.5
    assert np.abs(np.mean(errors)) < 0.15


def test_visibility_of_a_constructed_occlusion():
    sprite = square_sprite(20)
    hidden = np.empty((SIZE[1], SIZE[0]), np.uint8)
    near, far = layer_at(sprite, 55, 50), layer_at(sprite, 50, 50)
    np.testing.assert_allclose(measure_visibility([near, far], hidden), [1.0, 0.25])
    np.testing.assert_allclose(measure_visibility([far, near], hidden), [1.0, 0.25])
    apart = layer_at(sprite, 100, 50)
    np.testing.assert_allclose(measure_visibility([near, apart, far], hidden), [1, 1, 0.25])
    same = layer_at(sprite, 55, 50)
    np.testing.assert_allclose(measure_visibility([near, same], hidden), [1, 0])


def test_visibility_counts_the_border_of_the_image():
    sprite = square_sprite(20)
    hidden = np.empty((SIZE[1], SIZE[0]), np.uint8)
    layers = [layer_at(sprite, -15, 50), layer_at(sprite, SIZE[0] - 10, SIZE[1] - 10),
              layer_at(sprite, -40, 50), layer_at(sprite, 50, 400)]
    np.testing.assert_allclose(measure_visibility(layers, hidden), [0.25, 0.25, 0, 0])


def test_a_cut_object_has_the_box_of_what_is_left_in_the_image():
    # A square on its corner: the left border leaves its right half, or only its right corner.
    half = 30 * math.sqrt(2)
    layer = layer_at(square_sprite(60), 0, 60, similarity(math.pi / 4, 1.0))
    np.testing.assert_allclose(layer.box, [0, 60, half, 60 + 2 * half], atol=1.0)
    cut = layer_at(square_sprite(60), -30, 60, similarity(math.pi / 4, 1.0))
    np.testing.assert_allclose(cut.box, [0, 90, half - 30, 30 + 2 * half], atol=1.0)


def test_layers_outside_paint_nothing():
    image = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    for place in ((-200, 20), (500, 20), (20, -300), (20, 600)):
        layer_at(square_sprite(20), *place).paint(image, 1.0)
    assert (image == 90).all()


@pytest.mark.parametrize('label', range(7))
def test_identities_of_a_class_look_different(label):
    first, again, other = (objects.build(label, style).render(0.3, 0.3, 60)[0]
                           for style in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or np.abs(first.astype(int) - other).mean() > 3


@pytest.mark.parametrize('label', range(7), ids=CLASS_NAMES)
@pytest.mark.parametrize('scale', [8.0, 40.0, 200.0])
def test_sprites_are_premultiplied_and_fill_their_frame(label, scale):
    pixels, origin = objects.build(label, 3).render(1.0, 0.4, scale)
    sprite = Sprite(pixels, origin, scale)
    alpha = pixels[..., 3:]
    assert (pixels[..., :3].astype(int) <= alpha.astype(int) + 1).all()
    assert sprite.area > 0
    box = np.concatenate([sprite.outline.min(0), sprite.outline.max(0)])
    # Corners that a sign's texture leaves empty still count as its frame.
    margin = 3 + 0.06 * scale
    assert (box[:2] + origin <= margin).all()
    assert (np.array(pixels.shape[1::-1]) - (box[2:] + origin) <= margin).all()


def test_detail_does_not_change_the_object():
    coarse, fine = (objects.build(1, 5, segments) for segments in (24, 72))
    assert coarse.height == pytest.approx(fine.height)
    assert coarse.radius == pytest.approx(fine.radius, rel=0.02)


def test_the_cache_renders_once_and_stays_within_its_room():
    crate = objects.build(0, 1)
    cache = SpriteCache(capacity=200_000)
    first = cache.view(0, crate, 0.01, 0.3, 50)
    assert cache.view(0, crate, 0.02, 0.3, 45) is first
    assert first.scale >= 50
    finer = cache.view(0, crate, 0.01, 0.3, 4 * first.scale)
    assert finer.scale >= 4 * first.scale
    for step in range(200):
        cache.view(0, crate, step * 0.1, 0.3, 50)
    total = sum(sprite.pixels.nbytes for sprite in cache._sprites.values())
    assert total <= 200_000
    assert total + cache._room == 200_000
