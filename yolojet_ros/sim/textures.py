"""Painted surfaces: wood, stencils, faces, signs and the skins of balls."""

from __future__ import annotations

import math
from typing import Tuple

import cv2
import numpy as np

Color = Tuple[float, float, float]

_WHITE = (240, 240, 240)
_BLACK = (28, 28, 28)
_FONT = cv2.FONT_HERSHEY_DUPLEX


def color(rng: np.random.Generator, hue: Tuple[float, float] = (0, 180),
          saturation: Tuple[float, float] = (0.55, 0.95),
          value: Tuple[float, float] = (0.55, 0.95)) -> Color:
    """Return a random BGR colour; `hue` is in OpenCV's half degrees."""
    pixel = np.uint8([[[rng.uniform(*hue) % 180, 255 * rng.uniform(*saturation),
                        255 * rng.uniform(*value)]]])
    return tuple(cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0].tolist())


def timber(rng: np.random.Generator) -> Color:
    """Return the colour of wood: mostly raw, sometimes painted."""
    if rng.random() < 0.62:
        return color(rng, (9, 21), (0.32, 0.62), (0.55, 0.9))
    return color(rng, (0, 180), (0.4, 0.8), (0.45, 0.85))


def scaled(base: Color, factor: float) -> Color:
    """Return the colour made lighter or darker."""
    return tuple(min(255.0, channel * factor) for channel in base)


def _noise(rng: np.random.Generator, shape: Tuple[int, int], cells: Tuple[int, int]) -> np.ndarray:
    """Return float32[shape], smooth noise of `cells` rows and columns, about -1..1."""
    coarse = rng.uniform(-1, 1, cells).astype(np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def grain(rng: np.random.Generator, base: Color, height: int, width: int) -> np.ndarray:
    """Return uint8[height, width, 3], a board whose fibres run along the rows."""
    fibre = _noise(rng, (height, width), (max(3, height), 3)) * 0.10
    fibre += _noise(rng, (height, width), (max(2, height // 4), 2)) * 0.10
    return np.clip(np.float32(base) * (1 + fibre[..., None]), 0, 255).astype(np.uint8)


def _bevel(image: np.ndarray, x1: int, y1: int, x2: int, y2: int) -> None:
    """Give a board a bright upper edge and a dark gap around it."""
    region = image[y1:y2, x1:x2]
    region[:2] = cv2.convertScaleAbs(region[:2], alpha=1.22)
    region[-2:] = cv2.convertScaleAbs(region[-2:], alpha=0.62)
    region[:, :1] = cv2.convertScaleAbs(region[:, :1], alpha=1.1)
    region[:, -2:] = cv2.convertScaleAbs(region[:, -2:], alpha=0.7)


def crate_side(rng: np.random.Generator, base: Color, frame: Color, brace: int,
               stencil: int) -> np.ndarray:
    """
    Return uint8[128, 128, 3], one side of a crate.

    :param brace: 0 none, 1 one diagonal, 2 a cross, 3 a bar across the middle.
    :param stencil: 0 none, 1 arrows up, 2 a glass, 3 a number.
    """
    size, edge = 128, 15
    side = np.empty((size, size, 3), np.uint8)
    bounds = np.linspace(0, size, 7).astype(int)
    for top, bottom in zip(bounds[:-1], bounds[1:]):
        plank = grain(rng, scaled(base, rng.uniform(0.84, 1.06)), bottom - top, size)
        side[top:bottom] = plank
        side[bottom - 2:bottom] = cv2.convertScaleAbs(plank[-2:], alpha=0.45)
        side[top:top + 1] = cv2.convertScaleAbs(plank[:1], alpha=1.15)
    if stencil:
        _stencil(rng, side, stencil)
    # The frame throws a shadow on the planks behind it.
    shade = np.ones((size, size), np.float32)
    cv2.rectangle(shade, (edge, edge), (size - edge, size - edge), 0.62, 7)
    side[:] = side * cv2.GaussianBlur(shade, (9, 9), 3)[..., None]
    diagonals = {1: [(0, 1)], 2: [(0, 1), (1, 0)]}.get(brace, [])
    for start, end in diagonals:
        ends = (6, int(6 + start * 116)), (122, int(6 + end * 116))
        cv2.line(side, *ends, scaled(frame, 0.45), edge + 3, cv2.LINE_AA)
        cv2.line(side, *ends, frame, edge - 2, cv2.LINE_AA)
    if brace == 3:
        side[57:72] = grain(rng, frame, 15, size)
        _bevel(side, 0, 57, size, 72)
    for top in (0, size - edge):
        side[top:top + edge] = grain(rng, frame, edge, size)
        _bevel(side, 0, top, size, top + edge)
    for left in (0, size - edge):
        board = grain(rng, scaled(frame, 0.96), edge, size - 2 * edge)
        side[edge:size - edge, left:left + edge] = cv2.rotate(board, cv2.ROTATE_90_CLOCKWISE)
        _bevel(side, left, edge, left + edge, size - edge)
    for x in (7, size - 8):
        for y in (7, 36, 64, 92, size - 8):
            cv2.circle(side, (x, y), 2, scaled(frame, 0.4), -1, cv2.LINE_AA)
            cv2.circle(side, (x - 1, y - 1), 1, (190, 190, 190), -1, cv2.LINE_AA)
    falloff = np.linspace(1.06, 0.80, size, dtype=np.float32)[:, None, None]
    return np.clip(side * falloff, 0, 255).astype(np.uint8)


def _stencil(rng: np.random.Generator, side: np.ndarray, kind: int) -> None:
    ink = _BLACK if side.mean() > 95 else _WHITE
    painted = side.copy()
    if kind == 1:
        for x in (44, 84):
            cv2.arrowedLine(painted, (x, 92), (x, 38), ink, 7, cv2.LINE_AA, tipLength=0.4)
        cv2.line(painted, (32, 100), (96, 100), ink, 5, cv2.LINE_AA)
    elif kind == 2:
        cv2.fillPoly(painted, [np.int32([[46, 34], [82, 34], [74, 66], [54, 66]])], ink)
        cv2.line(painted, (64, 66), (64, 92), ink, 5)
        cv2.line(painted, (50, 94), (78, 94), ink, 5)
    else:
        cv2.putText(painted, '%02d' % rng.integers(100), (30, 84), _FONT, 1.9, ink, 5, cv2.LINE_AA)
    cv2.addWeighted(painted, 0.8, side, 0.2, 0, side)


def barrel_label(rng: np.random.Generator, ground: Color) -> np.ndarray:
    """Return uint8[64, 64, 3], what is glued on a barrel."""
    label = np.full((64, 64, 3), ground, np.uint8)
    kind = int(rng.integers(3))
    ink = color(rng, (0, 180), (0.7, 1.0), (0.6, 0.95))
    if kind == 0:
        diamond = np.int32([[32, 3], [61, 32], [32, 61], [3, 32]])
        cv2.fillPoly(label, [diamond], _WHITE, cv2.LINE_AA)
        cv2.fillPoly(label, [(diamond - 32) * 8 // 10 + 32], ink, cv2.LINE_AA)
        cv2.line(label, (32, 20), (32, 36), _WHITE, 5, cv2.LINE_AA)
        cv2.circle(label, (32, 46), 3, _WHITE, -1, cv2.LINE_AA)
    elif kind == 1:
        label[8:56, 4:60] = _WHITE
        label[12:24, 8:56] = ink
        for row in (30, 37, 44):
            cv2.line(label, (9, row), (int(rng.integers(36, 55)), row), _BLACK, 2)
    else:
        label[6:58, 2:62] = ink
        cv2.circle(label, (32, 32), 20, _WHITE, -1, cv2.LINE_AA)
        cv2.putText(label, str(int(rng.integers(10))), (21, 44), _FONT, 1.2, ink, 3, cv2.LINE_AA)
    return label


def hazard(first: Color, second: Color, width: int = 64, height: int = 16) -> np.ndarray:
    """Return uint8[height, width, 3], slanted stripes."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    stripes = ((x + y) // 8 % 2)[..., None]
    return np.where(stripes, np.uint8(first), np.uint8(second)).astype(np.uint8)


def robot_face(rng: np.random.Generator, shell: Color, glow: Color) -> np.ndarray:
    """Return uint8[64, 96, 3], a visor with eyes and a mouth."""
    face = np.full((64, 96, 3), shell, np.uint8)
    cv2.rectangle(face, (9, 8), (86, 55), scaled(shell, 0.5), -1, cv2.LINE_AA)
    cv2.rectangle(face, (12, 11), (83, 52), (34, 28, 26), -1, cv2.LINE_AA)
    eyes = int(rng.integers(3))
    centres = [(32, 28), (64, 28)] if eyes else [(48, 29)]
    for centre in centres:
        if eyes == 2:
            cv2.rectangle(face, (centre[0] - 9, 20), (centre[0] + 9, 35), glow, -1)
            cv2.rectangle(face, (centre[0] - 5, 24), (centre[0] + 5, 31), _WHITE, -1)
        else:
            cv2.circle(face, centre, 11 - 2 * eyes + 2, scaled(glow, 0.5), -1, cv2.LINE_AA)
            cv2.circle(face, centre, 10 - 2 * eyes + 1, glow, -1, cv2.LINE_AA)
            cv2.circle(face, (centre[0] - 3, centre[1] - 3), 3, _WHITE, -1, cv2.LINE_AA)
    for x in range(32, 66, 6):
        cv2.line(face, (x, 43), (x, 47), glow, 3)
    return face


def robot_chest(rng: np.random.Generator, shell: Color, accent: Color) -> np.ndarray:
    """Return uint8[96, 96, 3], the front of a robot: a plate, lamps, vents and a number."""
    chest = np.full((96, 96, 3), shell, np.uint8)
    cv2.rectangle(chest, (12, 10), (83, 60), scaled(shell, 0.55), -1)
    cv2.rectangle(chest, (14, 12), (83, 60), scaled(accent, 0.9), -1)
    cv2.rectangle(chest, (14, 12), (81, 15), scaled(accent, 1.2), -1)
    cv2.putText(chest, str(int(rng.integers(10))), (20, 52), _FONT, 1.4, _WHITE, 4, cv2.LINE_AA)
    for row in range(3):
        lamp = color(rng, (0, 180), (0.6, 1.0), (0.9, 1.0))
        cv2.circle(chest, (68, 24 + 13 * row), 4, lamp, -1, cv2.LINE_AA)
        cv2.circle(chest, (67, 23 + 13 * row), 1, _WHITE, -1, cv2.LINE_AA)
    for row in range(68, 88, 6):
        cv2.line(chest, (24, row), (72, row), scaled(shell, 0.45), 3)
    for x in (5, 90):
        for y in (5, 90):
            cv2.circle(chest, (x, y), 2, scaled(shell, 0.5), -1, cv2.LINE_AA)
    return chest


_SHAPES = {
    'circle': 40, 'triangle': 3, 'diamond': 4, 'octagon': 8, 'square': 0}


def sign_faces(rng: np.random.Generator) -> Tuple[np.ndarray, np.ndarray]:
    """Return the front and the back of a sign, uint8[128, 128, 4]; outside is transparent."""
    shape = list(_SHAPES)[int(rng.integers(len(_SHAPES)))]
    ground = color(rng, (0, 180), (0.75, 1.0), (0.55, 0.98))
    ink = _WHITE if sum(ground) < 400 and rng.random() < 0.75 else _BLACK
    if rng.random() < 0.3:
        ground, ink = _WHITE, scaled(ground, 0.8)
    front = np.zeros((128, 128, 4), np.uint8)
    back = np.zeros((128, 128, 4), np.uint8)
    for radius, paint in ((64, ground), (59, ink), (53, ground)):
        cv2.fillPoly(front, [_polygon(shape, radius)], tuple(paint) + (255,), cv2.LINE_8, 4)
    cv2.fillPoly(back, [_polygon(shape, 64)], (170, 166, 162, 255), cv2.LINE_8, 4)
    cv2.fillPoly(back, [_polygon(shape, 58)], (205, 200, 196, 255), cv2.LINE_8, 4)
    cv2.rectangle(back, (10, 58), (118, 68), (130, 126, 122, 255), -1)
    back[..., 3] = front[..., 3]
    front_only = rng.random() < 0.4
    _pictogram(rng, front, tuple(ink) + (255,), 76 if shape == 'triangle' else 64)
    return front, back if front_only else front


def _polygon(shape: str, radius: float) -> np.ndarray:
    """Return int32[n, 2] corners in sixteenths of a pixel."""
    corners = _SHAPES[shape]
    if not corners:
        points = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (radius - 3) + 64
    else:
        turn = math.pi / 8 if shape == 'octagon' else 0
        angles = np.arange(corners) * 2 * math.pi / corners + turn
        points = np.stack([np.sin(angles), -np.cos(angles)], 1) * radius + 64
        if shape == 'triangle':
            points = (points - (64, 48)) * (1.12, 1.30) + (64, 62)
    return np.rint(points * 16).astype(np.int32)


def _pictogram(rng: np.random.Generator, image: np.ndarray, ink: Tuple, y: int) -> None:
    kind = int(rng.integers(6))
    if kind == 0:
        tip = (64 + int(rng.integers(-1, 2)) * 22, y - 28)
        cv2.line(image, (64, y + 28), (64, y), ink, 10, cv2.LINE_AA)
        cv2.arrowedLine(image, (64, y), tip, ink, 10, cv2.LINE_AA, tipLength=0.6)
    elif kind == 1:
        cv2.line(image, (64, y - 26), (64, y + 8), ink, 12, cv2.LINE_AA)
        cv2.circle(image, (64, y + 26), 7, ink, -1, cv2.LINE_AA)
    elif kind == 2:
        cv2.rectangle(image, (34, y - 9), (94, y + 9), ink, -1)
    elif kind == 3:
        cv2.putText(image, str(int(rng.integers(10, 99))), (28, y + 20), _FONT, 1.9, ink, 6,
                    cv2.LINE_AA)
    elif kind == 4:
        bolt = [[70, -34], [44, 6], [62, 6], [54, 36], [86, -8], [66, -8]]
        cv2.fillPoly(image, [np.int32(bolt) + (0, y)], ink, cv2.LINE_AA)
    else:
        cv2.circle(image, (64, y - 20), 9, ink, -1, cv2.LINE_AA)
        cv2.line(image, (64, y - 10), (64, y + 10), ink, 9, cv2.LINE_AA)
        for end in ((48, y + 32), (80, y + 30)):
            cv2.line(image, (64, y + 10), end, ink, 7, cv2.LINE_AA)
        for end in ((46, y + 6), (82, y + 2)):
            cv2.line(image, (64, y - 6), end, ink, 6, cv2.LINE_AA)


def ball_skin(rng: np.random.Generator) -> np.ndarray:
    """Return uint8[128, 256, 3], the skin of a ball by latitude and longitude."""
    longitude, latitude = np.meshgrid((np.arange(256) + 0.5) / 256 * 2 * math.pi,
                                      (np.arange(128) + 0.5) / 128 * math.pi)
    first, second = color(rng), color(rng, value=(0.3, 0.95))
    if rng.random() < 0.4:
        second = _WHITE
    kind = int(rng.integers(5))
    if kind == 0:
        panels = int(rng.integers(3, 5)) * 2
        which = (longitude / (2 * math.pi) * panels).astype(int) % 2 == 0
        which = which[..., None] & np.ones(3, bool)
        skin = np.where(which, np.float32(first), np.float32(second))
        skin[(latitude < 0.3) | (latitude > math.pi - 0.3)] = color(rng)
    elif kind == 1:
        edges = math.pi * np.array([0.3, 0.42, 0.58, 0.7])
        bands = np.searchsorted(edges, latitude) % 2 == 0
        skin = np.where(bands[..., None], np.float32(first), np.float32(second))
    elif kind == 2:
        skin = _patches(longitude, latitude, np.float32(_WHITE if rng.random() < 0.5 else second),
                        np.float32(scaled(first, 0.6)))
    elif kind == 3:
        skin = np.empty((128, 256, 3), np.float32)
        skin[:] = first
        offset = np.abs(np.sin(latitude) * np.cos(longitude))
        seams = (np.abs(np.cos(latitude)) < 0.035) | (offset < 0.035) | (
            np.abs(np.sin(latitude) * np.sin(longitude)) > 0.86) & (
            np.abs(np.sin(latitude) * np.sin(longitude)) < 0.90)
        skin[seams] = _BLACK
    else:
        swirl = np.sin(4 * longitude + 3.0 * latitude) > 0
        skin = np.where(swirl[..., None], np.float32(first), np.float32(second))
    return cv2.GaussianBlur(skin, (3, 3), 0.7).astype(np.uint8)


def _patches(longitude: np.ndarray, latitude: np.ndarray, ground: np.ndarray,
             ink: np.ndarray) -> np.ndarray:
    """Return a football: a dark patch and a thin ring at each corner of an icosahedron."""
    golden = (1 + math.sqrt(5)) / 2
    corners = np.array([[0, i, j * golden] for i in (-1, 1) for j in (-1, 1)])
    corners = np.concatenate([np.roll(corners, shift, 1) for shift in range(3)])
    corners /= math.hypot(1, golden)
    points = np.stack([np.sin(latitude) * np.sin(longitude), np.cos(latitude),
                       np.sin(latitude) * np.cos(longitude)], 2)
    near = np.sort(points @ corners.T, 2)
    skin = np.empty(points.shape, np.float32)
    skin[:] = ground
    skin[near[..., -1] - near[..., -2] < 0.02] = ground * 0.7
    skin[near[..., -1] > 0.925] = ink
    return skin
