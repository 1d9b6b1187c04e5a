"""Independent random pictures with truth, to train and to test a detector."""

from __future__ import annotations

import math

import numpy as np

from yolojet_ros.sim import background, objects
from yolojet_ros.sim.camera import Sensor
from yolojet_ros.sim.frame import CLASS_NAMES, SceneFrame
from yolojet_ros.sim.sprites import hide, Layer, render, visible_pixels

_MIN_VISIBLE = 0.35


def sample(seed: int, width: int, height: int) -> SceneFrame:
    """
    Return one random still with the greatest variety; the same seed gives the same bytes.

    Objects that would be hidden by more than 65 % are left out of the picture, so that every
    object in it stands in the truth.
    """
    rng = np.random.default_rng(seed)
    size = (width, height)
    image = background.panorama(rng, size, height * rng.uniform(-0.2, 0.6))
    hidden = np.zeros((height, width), np.uint8)
    layers, labels, visibility = [], [], []
    for _ in range(int(rng.integers(0, 21))):
        label = int(rng.integers(len(CLASS_NAMES)))
        model = objects.build(label, int(rng.integers(1 << 31)))
        extent = height * math.exp(rng.uniform(math.log(0.06), math.log(0.6)))
        scale = extent / max(model.height, 2 * model.radius)
        sprite = render(model, rng.uniform(0, 2 * math.pi), rng.uniform(0.1, 0.7), scale)
        angle = rng.normal(0, 0.12)
        linear = np.array([[math.cos(angle), -math.sin(angle)],
                           [math.sin(angle), math.cos(angle)]])
        position = rng.uniform((0, 0.1 * height), (width, 1.2 * height))
        layer = Layer(sprite, linear, position, size)
        visible = visible_pixels(layer, hidden) / max(layer.area, 1)
        if visible < _MIN_VISIBLE:
            continue
        hide(layer, hidden)
        layers.append(layer)
        labels.append(label)
        visibility.append(min(1.0, visible))
    for layer in reversed(layers):
        layer.cast_shadow(image, layer.position)
        layer.paint(image)
    Sensor(rng, size).expose(image, rng.uniform(0.7, 1.3), rng.uniform(0, 8),
                             max(0.0, rng.uniform(-1, 1)))
    boxes = np.array([layer.full_box for layer in layers], np.float32).reshape(-1, 4)
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    return SceneFrame(image, 0.0, boxes, np.array(labels, np.int32),
                      np.arange(len(labels), dtype=np.int64), np.array(visibility, np.float32),
                      np.eye(2, 3))
