"""The seven kinds of objects; every identity has colours and details of its own."""

from __future__ import annotations

import math
from typing import Callable, Dict, List, Union

import numpy as np

from yolojet_ros.sim import textures
from yolojet_ros.sim.frame import CLASS_NAMES
from yolojet_ros.sim.mesh import Ball, box, lathe, Model, panel, Part
from yolojet_ros.sim.textures import color, scaled

Shape = Union[Model, Ball]
_Rng = np.random.Generator

# Turns the axis of a lathe from up to right.
_SIDEWAYS = [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]
_SQUARE = 0.5
_STEEL = (150., 146., 142.)
_RUBBER = (44., 42., 40.)


def build(label: int, seed: int, segments: int = 48) -> Shape:
    """
    Return the object of this class and identity.

    :param segments: facets around round parts; more look smoother and cost more time.
    """
    rng = np.random.default_rng([label, seed])
    return _BUILDERS[CLASS_NAMES[label]](rng, segments)


def pillar(seed: int, height: float = 5.0) -> Model:
    """Return a column of concrete with a striped foot, to hide things behind."""
    rng = np.random.default_rng(seed)
    stone = color(rng, (0, 180), (0.02, 0.12), (0.5, 0.75))
    side = textures.grain(rng, stone, 64, 64)
    stripes = textures.hazard((40, 190, 235), (40, 40, 40))
    foot = [stripes] * 4 + [None] * 2
    return Model([box((.5, height, .5), (0, height / 2, 0), stone, textures=[side] * 6),
                  box((.56, .3, .56), (0, .15, 0), stone, layer=1, textures=foot)])


def _weathered(rng: _Rng, colors: np.ndarray, segments: int) -> np.ndarray:
    """Return the colours of rings with dirt that varies around the object."""
    angles = np.arange(segments) * 2 * math.pi / segments
    waves = rng.uniform(0, 2 * math.pi, (len(colors), 3))
    dirt = sum(np.sin(angles * (k + 1) * 2 + waves[:, k:k + 1]) for k in range(3))
    return colors[:, None] * (0.97 + 0.03 * dirt)[..., None]


def _crate(rng: _Rng, segments: int) -> Model:
    base = textures.timber(rng)
    frame = scaled(base, rng.uniform(0.65, 1.15)) if rng.random() < 0.7 else textures.timber(rng)
    brace, stencil = int(rng.integers(4)), int(rng.integers(4))
    if brace and rng.random() < 0.6:
        stencil = 0
    height = rng.uniform(0.65, 0.95)
    width = rng.uniform(0.8, 1.0)
    side = textures.crate_side(rng, base, frame, brace, stencil)
    lid = textures.crate_side(rng, scaled(base, 1.05), frame, 0, 0)
    return Model([box((width, height, rng.uniform(0.75, 0.95)), (0, height / 2, 0), base, 0.02,
                      textures=[side, side, side, side, lid, None])])


def _barrel(rng: _Rng, segments: int) -> Model:
    body = np.float32(color(rng, value=(0.4, 0.9)))
    style = int(rng.integers(3))
    band = np.float32([color(rng), scaled(tuple(body), 0.75), textures.color(
        rng, (0, 180), (0, 0.15), (0.75, 0.95))][style])
    steel = np.float32(_STEEL) if rng.random() < 0.4 else body * 0.8
    lid = body * rng.uniform(0.7, 1.0)
    profile = [(0, .90), (.27, .90), (.275, .93), (.30, .93), (.305, .90), (.295, .88),
               (.295, .635), (.315, .62), (.315, .60), (.295, .585), (.295, .325), (.315, .31),
               (.315, .29), (.295, .275), (.295, .05), (.31, .03), (.31, .0)]
    rings = np.stack([lid, lid * 0.5, steel, steel, steel, body, band * 0.85, band, band * 0.85,
                      band, body * 0.85, body, body * 0.85, body, steel, steel])
    tube = lathe(profile, _weathered(rng, rings, segments), 0.42, 0, segments)
    label = textures.barrel_label(rng, tuple(band.tolist()))
    tube.textures = _wrapped(label, ring=9, rings=len(rings), segments=segments)
    bungs = [lathe([(0, .925), (.035, .925), (.04, .90)], np.tile(steel * f, (2, 1)), 0.5, 1,
                   12).turned(np.eye(3), shift)
             for f, shift in ((1.1, (.15, 0, .08)), (0.9, (-.17, 0, -.05)))]
    return Model([tube] + bungs)


def _wrapped(label: np.ndarray, ring: int, rings: int, segments: int) -> List:
    """Return textures for a lathe with a label on one ring, on two opposite sides."""
    slices: List = [None] * (rings * segments)
    count = max(3, segments // 5)
    bounds = np.linspace(0, label.shape[1], count + 1).astype(int)
    for start in (0, segments // 2):
        for index in range(count):
            place = ring * segments + (start + index) % segments
            slices[place] = np.ascontiguousarray(label[:, bounds[index]:bounds[index + 1]])
    return slices


def _cone(rng: _Rng, segments: int) -> Model:
    hue = (3, 9) if rng.random() < 0.5 else (0, 180)
    skin = np.float32(color(rng, hue, (0.85, 1.0), (0.8, 1.0)))
    collar = np.float32(color(rng, (0, 180), (0, 0.12), (0.85, 1.0)))
    base = np.float32(_RUBBER) if rng.random() < 0.4 else skin * 0.8
    count = int(rng.integers(1, 4))
    top, foot, height = rng.uniform(0.028, 0.045), rng.uniform(0.17, 0.23), rng.uniform(0.66, 0.95)
    ends = np.linspace(height, 0.07, 2 * count + 2)
    radii = top + (foot - top) * (height - ends) / (height - 0.07)
    profile = [(0, height - 0.02), (top * 0.7, height - 0.02), (top, height)]
    profile += list(zip(radii[1:], ends[1:])) + [(foot + 0.035, 0.05)]
    rings = [skin * 0.25, skin * 0.5] + [skin, collar] * count + [skin, skin * 0.9]
    rings = _weathered(rng, np.stack(rings), segments)
    half = rng.uniform(0.26, 0.31) * math.sqrt(2)
    plate = lathe([(0, .05), (half * 0.93, .05), (half, .03), (half, 0)], np.tile(base, (3, 1)),
                  0.1, 0, 4, _SQUARE)
    return Model([plate, lathe(profile, rings, 0.25, 1, segments)])


def _ball(rng: _Rng, segments: int) -> Ball:
    skin = textures.ball_skin(rng)
    axis, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    return Ball(skin, rng.uniform(0.28, 0.42), axis, rng.uniform(0.25, 0.8))


def _robot(rng: _Rng, segments: int) -> Model:
    shell = color(rng, (0, 180), (0.0, 0.25), (0.75, 0.95)) if rng.random() < 0.35 else color(rng)
    accent, glow = color(rng), color(rng, (0, 180), (0.5, 1.0), (0.95, 1.0))
    dark, trim = (58., 54., 52.), scaled(shell, 0.7)
    parts = []
    radius = rng.uniform(0.11, 0.15)
    hub = np.stack([np.float32(accent), np.float32(_STEEL), np.float32(_RUBBER) * 1.5,
                    np.float32(_RUBBER), np.float32(_RUBBER)])
    wheel = lathe([(0, .07), (.04, .07), (radius * 0.6, .06), (radius, .05), (radius, -.05),
                   (0, -.05)], hub, 0.2, 0, max(14, segments // 2))
    mirrored = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    for z in (-.23, 0, .23):
        parts += [wheel.turned(_SIDEWAYS, (.30, radius, z)),
                  wheel.turned(mirrored, (-.30, radius, z))]
    parts.append(box((.48, .16, .72), (0, radius + .05, 0), dark, 0.2))
    chest = textures.robot_chest(rng, shell, accent)
    height = rng.uniform(0.36, 0.5)
    floor = radius + .13
    top = floor + height
    parts.append(box((.54, height, .46), (0, floor + height / 2, 0), shell, 0.12, 1,
                     [chest, None, None, None, None, None]))
    parts.append(box((.56, .04, .48), (0, top, 0), trim, 0.2, 2))
    arm = rng.uniform(0.2, 0.34)
    for x in (-.32, .32):
        parts.append(box((.10, .12, .14), (x, top - .1, 0), trim, 0.2, 1))
        parts.append(box((.08, .08, arm), (x, top - .12, .06 + arm / 2), accent, 0.2, 1))
    neck = np.tile(np.float32(_STEEL), (1, 1))
    parts.append(lathe([(.09, top + .09), (.09, top + .02)], neck, 0.4, 3, max(12, segments // 3)))
    face = textures.robot_face(rng, shell, glow)
    tall = rng.uniform(0.24, 0.32)
    middle = top + .09 + tall / 2
    parts.append(box((.44, tall, .36), (0, middle, 0), shell, 0.12, 4,
                     [face, None, None, None, None, None]))
    for x in (-.24, .24):
        parts.append(box((.05, .12, .12), (x, middle, 0), accent, 0.2, 4))
    if rng.random() < 0.7:
        x = rng.uniform(-.14, .14)
        rod = np.float32([glow, glow, glow, _STEEL])
        reach = middle + tall / 2 + rng.uniform(0.08, 0.2)
        parts.append(lathe([(0, reach + .05), (.035, reach + .03), (.035, reach), (.012, reach),
                            (.012, middle + tall / 2)], rod, 0.5, 5,
                           max(8, segments // 4)).turned(np.eye(3), (x, 0, 0)))
    return Model(parts)


def _sign(rng: _Rng, segments: int) -> Model:
    front, back = textures.sign_faces(rng)
    size = rng.uniform(0.5, 0.66)
    height = rng.uniform(0.72, 1.1)
    post = np.float32([_STEEL, scaled(_STEEL, 0.6), color(rng)][int(rng.integers(3))])
    stand = np.float32(_RUBBER) if rng.random() < 0.5 else np.float32(color(rng, value=(0.3, 0.7)))
    base = lathe([(0, .07), (.08, .07), (.20, .045), (.23, .02), (.23, 0)],
                 np.stack([stand, stand * 1.1, stand, stand]), 0.15, 0, segments)
    if rng.random() < 0.4:
        base = lathe([(0, .06), (.26, .06), (.30, .03), (.30, 0)], np.tile(stand, (3, 1)), 0.15, 0,
                     4, _SQUARE)
    rod = lathe([(0, height), (.032, height), (.032, .06)], np.tile(post, (2, 1)), 0.5, 1,
                max(10, segments // 4))
    middle = height - 0.1 + size * 0.2
    # The brace is what remains to be seen of the panel from the side.
    brace = box((.06, size * 0.97, .05), (0, middle, .05), _STEEL, 0.3, 1)
    sheet = panel((size, size), (0, middle, .09), front, back, 0.12, 1)
    return Model([base, rod, brace, sheet])


def _pallet(rng: _Rng, segments: int) -> Model:
    base = textures.timber(rng)
    length, depth = rng.uniform(1.0, 1.2), rng.uniform(0.75, 0.95)
    count = int(rng.integers(5, 8))
    boards = [textures.grain(rng, scaled(base, rng.uniform(0.8, 1.12)), 16, 128)
              for _ in range(3)]
    parts: List[Part] = []
    for level in range(2 if rng.random() < 0.25 else 1):
        foot, layer = level * 0.19, level * 4
        rows = np.linspace(-depth / 2 + .06, depth / 2 - .06, 3)
        for z in rows:
            parts.append(box((length, .025, .12), (0, foot + .0125, z), scaled(base, 0.8), 0.02,
                             layer))
            parts += [box((.13, .095, .12), (x, foot + .0725, z), scaled(base, 0.86), 0.02,
                          layer + 1) for x in (-length / 2 + .065, 0, length / 2 - .065)]
        parts += [box((.11, .022, depth), (x, foot + .131, 0), scaled(base, 0.9), 0.02, layer + 2)
                  for x in (-length / 2 + .065, 0, length / 2 - .065)]
        wide = depth / count * rng.uniform(0.68, 0.82)
        for index, z in enumerate(np.linspace(-depth / 2 + wide / 2, depth / 2 - wide / 2, count)):
            skin = boards[(index + level) % 3]
            tint = scaled(base, 0.9 + 0.08 * ((index * 7) % 3))
            parts.append(box((length, .025, wide), (0, foot + .1545, z), tint, 0.02, layer + 3,
                             [None, None, None, None, skin, None]))
    return Model(parts)


_BUILDERS: Dict[str, Callable[[_Rng, int], Shape]] = {
    'crate': _crate, 'barrel': _barrel, 'cone': _cone, 'ball': _ball, 'robot': _robot,
    'sign': _sign, 'pallet': _pallet}
