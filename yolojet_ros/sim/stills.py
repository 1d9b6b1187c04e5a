"""Independent random pictures with truth, to train and to test a detector."""

from __future__ import annotations

from functools import lru_cache
import math
from typing import List, NamedTuple, Tuple

import cv2
import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.sim import objects
from yolojet_ros.sim.background import KINDS, panorama, View
from yolojet_ros.sim.camera import Illumination, Sensor, similarity
from yolojet_ros.sim.frame import CLASS_NAMES, frame_of, SceneFrame
from yolojet_ros.sim.sprites import (
    centred, compose, instance_map, Layer, marks_seen, render)

_MIN_VISIBLE = 0.4
_MIN_PIXELS = 45
_MIN_SIDE = 5
_SMALLEST = 12
# The sizes above are pixels of an image of this height.
_REFERENCE_HEIGHT = 192
_PLACES = 49
_PLACE_MARGIN = 1.3
_PLACE_HEIGHT = 384
_IDENTITIES = 64
_PILLAR_SHARE = 0.12


def sample(seed: int, width: int, height: int, turned: bool = False) -> SceneFrame:
    """
    Return one random still with the greatest variety; the same seed gives the same bytes.

    :param turned: turn objects by any angle in the picture, as if things lay on the ground
        below the camera, instead of letting them stand more or less upright.

    Objects that would show less than 40 % of themselves, or only a few pixels, are left out of
    the picture, so that every object in it stands in the truth. `stamp` is 0, `warp` the
    identity, `ids` count from 0. The first few hundred calls of a process also prepare what
    later ones share, and take longer.

    :raises UserError: if the seed or the size is out of range.
    """
    if seed < 0 or min(width, height) < 32 or max(width, height) > 4096:
        raise UserError(f'a still of {width}x{height} pixels with seed {seed} was asked for; '
                        'choose 32 to 4096 pixels and a seed of 0 or above')
    rng = np.random.default_rng(seed)
    size = (width, height)
    image = _ground(rng, size)
    _clutter(rng, image)
    front, truth = _arrange(rng, size, turned)
    compose(image, front, Illumination(rng, size, rng.uniform(0, 0.5)).shade(0.0))
    blur = max(0.0, rng.uniform(-1.0, 1.0)) * height / 192
    noise = 10 * rng.uniform(0, 1) ** 2
    Sensor(rng, size).expose(image, rng.uniform(0.8, 1.45), noise, blur)
    return frame_of(image, 0.0, [item.layer.box for item in truth],
                    [item.label for item in truth], range(len(truth)),
                    np.array([item.visibility for item in truth]), np.eye(2, 3),
                    instance_map(front, [item.layer for item in truth], size),
                    [item.layer.rotated for item in truth],
                    [marks_seen(item.layer, front, size) for item in truth])


class _Thing(NamedTuple):
    layer: Layer
    label: int
    visibility: float


def _arrange(rng: np.random.Generator, size: Tuple[int, int],
             turned: bool) -> Tuple[List[Layer], List[_Thing]]:
    """Return all layers, nearest first, and those of them that are objects."""
    width, height = size
    front: List[Layer] = []
    truth: List[_Thing] = []
    hidden = np.zeros((height, width), np.uint8)
    crowd = int(rng.integers(0, 21) * rng.uniform(0.3, 1))
    unit = height / _REFERENCE_HEIGHT
    largest = height * rng.uniform(0.3, 0.75)
    extents = np.exp(rng.uniform(math.log(_SMALLEST * unit), math.log(largest), crowd))
    # Mostly the larger ones are nearer and lower, as on a floor; now and then in any order.
    if rng.random() < 0.8:
        extents = np.sort(extents)[::-1]
    roll = rng.normal(0, 0.04)
    elevation = rng.uniform(0.08, 0.65)
    if rng.random() < _PILLAR_SHARE:
        front.append(_pillar(rng, roll, elevation, size))
        front[0].hide(hidden)
    for extent in extents.tolist():
        label = int(rng.integers(len(CLASS_NAMES)))
        layer = _throw(rng, label, extent, roll, elevation, size, turned)
        visible = layer.visibility(hidden)
        side = (layer.box[2:] - layer.box[:2]).min()
        if (visible < _MIN_VISIBLE or visible * layer.area < _MIN_PIXELS * unit ** 2
                or side < _MIN_SIDE * unit):
            continue
        layer.hide(hidden)
        front.append(layer)
        truth.append(_Thing(layer, label, visible))
    return front, truth


def _pillar(rng: np.random.Generator, roll: float, elevation: float,
            size: Tuple[int, int]) -> Layer:
    """Place something in the foreground that is no object."""
    width, height = size
    sprite = render(objects.pillar(int(rng.integers(1 << 31))), rng.uniform(0, 6.3), elevation,
                    height * rng.uniform(0.1, 0.35))
    ground = np.array([rng.uniform(0, width), height * rng.uniform(0.6, 1.2)])
    linear = similarity(np.zeros(2), np.zeros(2), 1.0, roll)[:, :2]
    return Layer(sprite, linear, ground, ground, size)


def _throw(rng: np.random.Generator, label: int, extent: float, roll: float, elevation: float,
           size: Tuple[int, int], turned: bool) -> Layer:
    """Place one object of about `extent` pixels somewhere in the image."""
    shape = _identity(label, int(rng.integers(_IDENTITIES)), 24 if size[1] <= 256 else 36)
    scale = extent / max(shape.height, 2 * shape.radius)
    tilt = float(np.clip(elevation + rng.normal(0, 0.06), 0.05, 0.75))
    sprite = render(shape, rng.uniform(0, 2 * math.pi), tilt, scale)
    sprite.tint(_tint(rng))
    width, height = size
    angle = roll + rng.normal(0, 0.05 if rng.random() < 0.8 else 0.3)
    if turned:
        angle = rng.uniform(-math.pi, math.pi)
    matrix = similarity(np.zeros(2), np.zeros(2), 1.0, angle)
    stretch = math.exp(rng.normal(0, 0.04))
    linear = matrix[:, :2] * (stretch, 1 / stretch)
    depth = min(1.0, extent / height)
    low = height * (0.15 + 0.5 * depth)
    ground = np.array([rng.uniform(-0.02, 1.02) * width, rng.uniform(low, height * 1.12)])
    lift = rng.uniform(0, extent) if CLASS_NAMES[label] == 'ball' or rng.random() < 0.05 else 0.0
    return Layer(sprite, linear, ground - (0, lift), ground, size)


@lru_cache(maxsize=_IDENTITIES * len(CLASS_NAMES))
def _identity(label: int, style: int, segments: int) -> objects.Shape:
    """Return one of the shapes that stills are made of; tint() makes them all differ."""
    return objects.build(label, style, segments)


def _tint(rng: np.random.Generator) -> np.ndarray:
    """Return float32[3, 3] that turns the hue and changes the strength of colours."""
    angle = rng.normal(0, 0.5)
    strength = rng.uniform(0.6, 1.15)
    grey = np.full((3, 3), 1 / 3)
    axis = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turn = math.cos(angle) * (np.eye(3) - grey) + math.sin(angle) * axis
    return ((grey + strength * turn) * rng.uniform(0.8, 1.15)).astype(np.float32)


@lru_cache(maxsize=_PLACES)
def _place(index: int, width: int, height: int) -> np.ndarray:
    """Return one of the places that stills are made of, uint8[h, w, 4]."""
    rng = np.random.default_rng([index, 7])
    view = View((width, height), height * rng.uniform(0.02, 0.5), height * rng.uniform(0.7, 1.1),
                rng.uniform(1.2, 3.0))
    return cv2.cvtColor(panorama(rng, view, index % KINDS), cv2.COLOR_BGR2BGRA)


def _ground(rng: np.random.Generator, size: Tuple[int, int]) -> np.ndarray:
    """Return a random part of a random place, sometimes mirrored, in other colours."""
    width, height = size
    # Larger images enlarge the place, which bounds the memory that places take.
    enlarge = max(1.0, height / _PLACE_HEIGHT)
    world = tuple(round(side * _PLACE_MARGIN / enlarge) for side in size)
    place = _place(int(rng.integers(_PLACES)), *world)
    zoom = enlarge * rng.uniform(0.77, 1.6)
    reach = np.maximum(np.array(world) - np.array(size) / zoom, 0) / 2
    source = np.array(world) / 2 + rng.uniform(-1, 1, 2) * reach
    matrix = similarity(source, np.array(size) / 2, zoom, rng.normal(0, 0.06))
    if rng.random() < 0.5:
        matrix = np.array([[-1, 0], [0, 1]]) @ matrix + np.array([[0, 0, width], [0, 0, 0]])
    ground = cv2.warpAffine(place, centred(matrix[:, :2], matrix[:, 2]), size,
                            flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    turned = np.concatenate([_tint(rng), rng.uniform(-12, 12, (3, 1))], 1)
    return cv2.transform(cv2.cvtColor(ground, cv2.COLOR_BGRA2BGR), turned)


def _clutter(rng: np.random.Generator, image: np.ndarray) -> None:
    """Scatter flat shapes that are none of the classes, so that shape alone is no proof."""
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(0, 8)) if rng.random() < 0.5 else 0):
        paint = rng.uniform(20, 235, 3).tolist()
        centre = rng.uniform((0, 0), (width, height))
        points = centre + rng.normal(0, rng.uniform(0.02, 0.12) * height, (4, 2))
        if rng.random() < 0.5:
            cv2.fillConvexPoly(image, cv2.convexHull(points.astype(np.int32)), paint, cv2.LINE_AA)
        else:
            cv2.polylines(image, [points.astype(np.int32)], False, paint,
                          int(rng.integers(1, 4)), cv2.LINE_AA)
