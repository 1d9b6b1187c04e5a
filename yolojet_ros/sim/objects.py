"""The seven kinds of objects; every identity has colours and details of its own."""

from __future__ import annotations

import math

import cv2
import numpy as np

from yolojet_ros.sim.frame import CLASS_NAMES
from yolojet_ros.sim.mesh import box, Color, lathe, Model


def build(class_index: int, seed: int) -> Model:
    """Return the object of this class and identity."""
    rng = np.random.default_rng([class_index, seed])
    return _BUILDERS[CLASS_NAMES[class_index]](rng)


def paint(rng: np.random.Generator, saturation=(0.55, 0.95), value=(0.55, 0.95)) -> Color:
    """Return a random BGR colour."""
    pixel = np.uint8([[[rng.uniform(0, 180), 255 * rng.uniform(*saturation),
                        255 * rng.uniform(*value)]]])
    return tuple(cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0].tolist())


def _crate(rng):
    side = np.full((64, 64, 3), paint(rng, (0.3, 0.6)), np.uint8)
    dark = (side[0, 0] * 0.6).tolist()
    for row in range(0, 64, 13):
        cv2.line(side, (0, row), (63, row), dark, 1)
    cv2.rectangle(side, (3, 3), (60, 60), dark, 5)
    cv2.line(side, (6, 57), (57, 6), dark, 5)
    return Model([box((0.9, 0.9, 0.9), (0, 0.45, 0), (0, 0, 0), textures=[side] * 6)])


def _barrel(rng):
    color, band = np.float32(paint(rng)), np.float32(paint(rng))
    profile = [(0, .92), (.29, .92), (.31, .9), (.3, .62), (.33, .6), (.3, .58), (.3, .34),
               (.33, .32), (.3, .3), (.31, .02)]
    colors = np.stack([color] * 2 + [color, band, band, band, color, color, color])
    return Model([lathe(profile, colors, 0.5)])


def _cone(rng):
    color = np.float32(paint(rng, (0.85, 1.0), (0.8, 1.0)))
    white = np.float32([235, 235, 235])
    heights = np.linspace(0.78, 0.05, 6)
    profile = [(0, .78)] + [(0.03 + 0.2 * (0.78 - y) / 0.73, y) for y in heights]
    rings = np.stack([color, color, white, color, white, color])
    return Model([box((.56, .05, .56), (0, .025, 0), tuple(color * 0.7)),
                  lathe(profile, rings, 0.2, layer=1)])


def _ball(rng):
    first, second = np.float32(paint(rng)), np.float32(paint(rng))
    angles = np.linspace(0, math.pi, 15)
    profile = [(0.36 * math.sin(a), 0.36 + 0.36 * math.cos(a)) for a in angles]
    stripes = np.where((np.arange(32) // 4 % 2)[None, :, None], first, second)
    return Model([lathe(profile, np.repeat(stripes, 14, 0), 0.6)])


def _robot(rng):
    color, accent = paint(rng), paint(rng)
    dark = (50, 50, 50)
    face = np.full((32, 48, 3), 40, np.uint8)
    cv2.circle(face, (14, 15), 6, accent, -1)
    cv2.circle(face, (33, 15), 6, accent, -1)
    return Model([
        box((.16, .24, .7), (-.3, .12, 0), dark), box((.16, .24, .7), (.3, .12, 0), dark),
        box((.5, .5, .5), (0, .45, 0), color, 0.3, 1),
        box((.4, .28, .36), (0, .88, 0), color, 0.3, 2,
            [face, None, None, None, None, None])])


def _sign(rng):
    color = paint(rng)
    panel = np.full((64, 64, 3), color, np.uint8)
    cv2.rectangle(panel, (3, 3), (60, 60), (240, 240, 240), 3)
    cv2.arrowedLine(panel, (32, 54), (32, 12), (240, 240, 240), 6, tipLength=0.4)
    return Model([
        lathe([(0, .05), (.22, .05), (.24, 0)], np.full((2, 3), 70.)),
        lathe([(0.025, .8), (.025, .05)], np.full((1, 3), 150.), layer=1),
        box((.56, .56, .04), (0, .95, 0.03), (120, 120, 120), 0.2, 2,
            [panel, None, None, None, None, None])])


def _pallet(rng):
    color = paint(rng, (0.25, 0.5))
    parts = [box((1.2, .03, .12), (0, .015, z), color) for z in (-.38, 0, .38)]
    parts += [box((.12, .1, .12), (x, .08, z), color, layer=1)
              for x in (-.54, 0, .54) for z in (-.38, 0, .38)]
    parts += [box((1.2, .03, .1), (0, .145, z), color, layer=2)
              for z in np.linspace(-.4, .4, 6)]
    return Model(parts)


_BUILDERS = {'crate': _crate, 'barrel': _barrel, 'cone': _cone, 'ball': _ball,
             'robot': _robot, 'sign': _sign, 'pallet': _pallet}
