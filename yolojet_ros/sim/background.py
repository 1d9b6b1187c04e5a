"""The painted world behind the objects: a floor in perspective and what stands behind it."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Callable, Tuple

import cv2
import numpy as np

from yolojet_ros.sim.textures import Color, color, scaled

_Rng = np.random.Generator
_TILE_METRES = 6.0
_WALL_METRES = 20.0


@dataclass(frozen=True)
class View:
    """
    How the floor is seen.

    :param size: width and height of the picture in pixels.
    :param horizon: row of the horizon in pixels.
    :param focal: focal length in pixels.
    :param eye: height of the camera above the floor in metres.
    """

    size: Tuple[int, int]
    horizon: float
    focal: float
    eye: float


def panorama(rng: _Rng, view: View, kind: int) -> np.ndarray:
    """
    Return one random place as uint8[height, width, 3], BGR.

    :param kind: 0 .. KINDS - 1, which floor and surroundings.
    """
    floor, behind, outside = _PLACES[kind]
    width, height = view.size
    # A wall stands on the floor at some distance; the open country ends at the horizon.
    foot = view.horizon + (0 if outside else view.focal * view.eye / _WALL_METRES)
    edge = int(min(max(round(foot), 0), height))
    image = np.empty((height, width, 3), np.uint8)
    haze = color(rng, (0, 180), (0.02, 0.2), (0.55, 0.9))
    if edge < height:
        tile = floor(rng, 512 if height < 600 else 1024)
        _lay(image, tile, view, edge, rng.uniform(0, _TILE_METRES, 2), haze, outside)
    if edge > 0:
        # Walls need more rows than there are when only a strip of them can be seen.
        wall = behind(rng, max(edge, 48), width, haze)
        image[:edge] = wall[-edge:]
    if not outside and 0 < edge < height:
        _skirting(image, edge, rng)
    return image


def _lay(image: np.ndarray, tile: np.ndarray, view: View, edge: int, start: np.ndarray,
         haze: Color, outside: bool) -> None:
    """Project a floor tile that repeats into the rows below the horizon."""
    width, height = view.size
    rows = np.arange(edge, height, dtype=np.float32) + 0.5
    away = view.focal * view.eye / np.maximum(rows - view.horizon, 0.35)
    columns = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / view.focal
    per_metre = len(tile) / _TILE_METRES
    # Far rows skip texels: take them from a smaller level of the tile, so they do not flicker.
    steps = np.maximum(away / view.focal * per_metre, away ** 2 / (
        view.focal * view.eye) * per_metre * 0.35)
    levels = np.clip(np.log2(np.maximum(steps, 1)), 0, int(math.log2(len(tile))) - 3).astype(int)
    for level in np.unique(levels):
        which = np.flatnonzero(levels == level)
        small = tile if level == 0 else cv2.resize(
            tile, None, fx=0.5 ** level, fy=0.5 ** level, interpolation=cv2.INTER_AREA)
        unit = np.float32(len(small) / _TILE_METRES)
        x = (away[which, None] * columns + start[0]) * unit
        y = np.repeat((away[which, None] + start[1]) * unit, width, 1)
        first = edge + which[0]
        image[first:first + len(which)] = cv2.remap(
            small, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_WRAP)
    fade = np.exp(-away / (45.0 if outside else 28.0))[:, None, None]
    near = np.clip(1.06 - 0.10 * (rows - rows[0]) / height, 0, 2)[:, None, None]
    ground = image[edge:]
    image[edge:] = np.clip(ground * (fade * near) + np.float32(haze) * (1 - fade), 0, 255)


def _cloudy(rng: _Rng, height: int, width: int, cells: Tuple[int, ...],
            falloff: float = 0.6) -> np.ndarray:
    """Return float32[height, width], noise of several sizes that wraps around, about -1..1."""
    total = np.zeros((height, width), np.float32)
    weight = 1.0
    for count in cells:
        coarse = rng.uniform(-1, 1, (count, count)).astype(np.float32)
        wrapped = np.pad(coarse, 2, 'wrap')
        matrix = np.array([[count / width, 0, 1.5 + 0.5 * count / width],
                           [0, count / height, 1.5 + 0.5 * count / height]])
        total += weight * cv2.warpAffine(wrapped, matrix, (width, height),
                                         flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        weight *= falloff
    return total


def _speckle(rng: _Rng, size: int, strength: float) -> np.ndarray:
    grain = rng.integers(0, 256, (size, size), np.uint8).astype(np.float32)
    return (cv2.GaussianBlur(grain, (3, 3), 0.6) - 127.5) * (strength / 127.5)


def _finish(base: np.ndarray, pattern: np.ndarray) -> np.ndarray:
    return np.clip(base * (1 + pattern[..., None]), 0, 255).astype(np.uint8)


def _plain(size: int, base: Color) -> np.ndarray:
    image = np.empty((size, size, 3), np.float32)
    image[:] = base
    return image


def _concrete(rng: _Rng, size: int) -> np.ndarray:
    image = _plain(size, color(rng, (0, 180), (0.02, 0.15), (0.38, 0.72)))
    pattern = 0.13 * _cloudy(rng, size, size, (3, 8, 20, 60)) + _speckle(rng, size, 0.16)
    for at in (0, size // 2):
        pattern[at:at + size // 128 + 1] -= 0.35
        pattern[:, at:at + size // 128 + 1] -= 0.35
    if rng.random() < 0.7:
        line = size * int(rng.integers(15, 85)) // 100
        paint = color(rng, (15, 32), (0.5, 0.9), (0.7, 0.95))
        worn = np.clip(0.9 - 0.6 * np.maximum(_cloudy(rng, size, size, (16, 50)), 0), 0, 1)
        strip = (slice(None), slice(line, line + size // 50))
        if rng.random() < 0.5:
            strip = strip[::-1]
        image[strip] += (np.float32(paint) - image[strip]) * worn[strip][..., None]
    return _finish(image, pattern)


def _tiles(rng: _Rng, size: int) -> np.ndarray:
    first = color(rng, (0, 180), (0.02, 0.35), (0.45, 0.9))
    second = scaled(first, rng.uniform(0.6, 1.0))
    count = int(rng.choice([6, 8, 12]))
    index = np.arange(size) * count // size
    board = ((index[:, None] + index) % 2)[..., None]
    image = np.where(board, np.float32(first), np.float32(second))
    tones = rng.uniform(-0.05, 0.05, (count, count)).astype(np.float32)
    pattern = tones[index[:, None], index[None]] + 0.05 * _cloudy(rng, size, size, (6, 30))
    gap = (np.arange(size) * count % size) < count * max(1, size // 256)
    pattern[gap] -= 0.25
    pattern[:, gap] -= 0.25
    return _finish(image, pattern + _speckle(rng, size, 0.05))


def _planks(rng: _Rng, size: int) -> np.ndarray:
    base = color(rng, (8, 20), (0.3, 0.65), (0.4, 0.8))
    count = int(rng.choice([16, 24, 32]))
    row = np.arange(size) * count // size
    tones = rng.uniform(-0.16, 0.16, (count, 4)).astype(np.float32)
    shift = rng.integers(0, size, count)
    column = (np.arange(size)[None] + shift[row][:, None]) % size * 4 // size
    fibre = cv2.resize(rng.uniform(-1, 1, (size, 16)).astype(np.float32), (size, size))
    pattern = tones[row[:, None], column] + 0.09 * fibre
    pattern[np.diff(row, prepend=-1) != 0] -= 0.4
    pattern[:, 1:][np.diff(column, axis=1) != 0] -= 0.4
    return _finish(_plain(size, base), pattern)


def _asphalt(rng: _Rng, size: int) -> np.ndarray:
    image = _plain(size, color(rng, (90, 130), (0.02, 0.15), (0.25, 0.45)))
    pattern = 0.12 * _cloudy(rng, size, size, (4, 9, 40)) + _speckle(rng, size, 0.42)
    width = size // 45
    paint = np.float32((225, 228, 230) if rng.random() < 0.6 else (60, 190, 235))
    worn = np.clip(0.85 - 0.8 * np.maximum(_cloudy(rng, size, size, (20, 70)), 0), 0, 1)
    for at in (size // 4, 3 * size // 4)[:int(rng.integers(3))]:
        strip = (slice(size // 8, 7 * size // 8), slice(at, at + width))
        image[strip] += (paint - image[strip]) * worn[strip][..., None]
    return _finish(image, pattern)


def _grass(rng: _Rng, size: int) -> np.ndarray:
    first = color(rng, (32, 48), (0.45, 0.75), (0.35, 0.65))
    dry = color(rng, (20, 30), (0.35, 0.6), (0.45, 0.7))
    patches = np.clip(0.25 + 0.5 * _cloudy(rng, size, size, (3, 7, 15)), 0, 0.8)[..., None]
    image = np.float32(first) * (1 - patches) + np.float32(dry) * patches
    blades = cv2.blur(_speckle(rng, size, 1.1), (1, 3))
    blades += 0.16 * _cloudy(rng, size, size, (40, 110))
    if rng.random() < 0.5:
        blades += 0.07 * np.sign(np.sin(np.arange(size) * 4 * math.pi / size))[None]
    return _finish(image, blades)


def _paving(rng: _Rng, size: int) -> np.ndarray:
    base = color(rng, (0, 25), (0.1, 0.5), (0.4, 0.75))
    rows = int(rng.choice([16, 20, 24]))
    unit = size / rows
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / np.float32(unit)
    row = y.astype(int)
    across = (x + (row % 2)) / 2
    column = across.astype(int) % (rows // 2)
    tones = rng.uniform(-0.2, 0.2, (rows, rows // 2)).astype(np.float32)
    pattern = tones[row, column] + _speckle(rng, size, 0.14)
    joints = (y - row < 0.09) | ((across % 1) < 0.05)
    pattern[joints] -= 0.38
    return _finish(_plain(size, base), pattern + 0.06 * _cloudy(rng, size, size, (5, 30)))


def _gradient(top: Color, bottom: Color, height: int, width: int) -> np.ndarray:
    slope = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    rows = np.float32(top) * (1 - slope) + np.float32(bottom) * slope
    return np.repeat(rows, width, 1)


def _hall(rng: _Rng, height: int, width: int, haze: Color) -> np.ndarray:
    """Return the far wall of a hall: ribs, a painted band, windows, doors and pipes."""
    wall = color(rng, (0, 180), (0.03, 0.4), (0.4, 0.8))
    image = _gradient(scaled(wall, 0.72), scaled(wall, 1.02), height, width)
    rib = max(4, height // 9)
    wave = 0.05 * np.sin(np.arange(width) * 2 * math.pi / rib)[None, :, None]
    image *= (1 + wave).astype(np.float32)
    image *= (1 + 0.04 * _cloudy(rng, height, width, (5, 17)))[..., None]
    band = int(height * rng.uniform(0.55, 0.75))
    image[band:] *= np.float32(rng.uniform(0.55, 1.1, 3))
    cursor = rng.uniform(-0.5, 0.5) * height
    while cursor < width:
        kind, wide = int(rng.integers(4)), rng.uniform(0.45, 1.1) * height
        left, right = int(cursor), int(cursor + wide)
        if kind == 0:
            _window(rng, image, left, int(height * 0.18), right, int(height * 0.5))
        elif kind == 1:
            _shutter(rng, image, left, int(height * 0.3), right, height)
        elif kind == 2:
            cv2.rectangle(image, (left, int(height * .25)), (right, int(height * .45)),
                          color(rng), -1)
            cv2.rectangle(image, (left, int(height * .25)), (right, int(height * .45)),
                          scaled(wall, 0.4), max(1, height // 70))
        cursor += wide + rng.uniform(0.15, 0.9) * height
    thick = max(2, height // 30)
    for row in rng.uniform(0.03, 0.14, 2):
        y = int(row * height)
        shades = np.sin(np.linspace(0.3, math.pi, thick, dtype=np.float32))[:, None, None]
        pipe = np.float32(color(rng, (0, 180), (0.0, 0.7), (0.5, 0.9)))
        strip = image[y:y + thick]
        strip[:] = (pipe * (0.35 + 0.75 * shades))[:len(strip)]
    mist = np.float32(haze) * 0.12
    return np.clip(image * 0.88 + mist, 0, 255).astype(np.uint8)


def _window(rng: _Rng, image: np.ndarray, x1: int, y1: int, x2: int, y2: int) -> None:
    glass = np.float32(color(rng, (95, 110), (0.1, 0.35), (0.8, 1.0)))
    frame = max(2, (y2 - y1) // 14)
    cv2.rectangle(image, (x1, y1), (x2, y2), scaled(tuple(glass.tolist()), 0.35), -1)
    panes = max(2, (x2 - x1) // max(1, y2 - y1) + 2)
    edges = np.linspace(x1, x2, panes + 1).astype(int)
    for left, right in zip(edges[:-1], edges[1:]):
        tone = tuple((glass * rng.uniform(0.8, 1.05)).tolist())
        cv2.rectangle(image, (left + frame, y1 + frame), (right - frame, y2 - frame), tone, -1)
        cv2.line(image, (left + frame, y2 - frame), (right - frame, y1 + frame),
                 scaled(tone, 1.12), frame, cv2.LINE_AA)


def _shutter(rng: _Rng, image: np.ndarray, x1: int, y1: int, x2: int, y2: int) -> None:
    paint = color(rng, (0, 180), (0.1, 0.8), (0.35, 0.8))
    step = max(3, (y2 - y1) // 14)
    cv2.rectangle(image, (x1 - step, y1 - step), (x2 + step, y2), scaled(paint, 0.4), -1)
    cv2.rectangle(image, (x1, y1), (x2, y2), paint, -1)
    for row in range(y1, y2, step):
        cv2.line(image, (x1, row), (x2, row), scaled(paint, 0.7), max(1, step // 4))


def _skirting(image: np.ndarray, edge: int, rng: _Rng) -> None:
    """Separate wall and floor by a strip and the shade at its foot."""
    height = image.shape[0]
    thick = max(2, height // 90)
    top = max(0, edge - thick)
    image[top:edge] = cv2.convertScaleAbs(image[top:edge], alpha=rng.uniform(0.35, 0.7))
    reach = min(height - edge, max(2, height // 24))
    shade = np.linspace(0.62, 1.0, reach, dtype=np.float32)[:, None, None]
    image[edge:edge + reach] = image[edge:edge + reach] * shade


def _sky(rng: _Rng, height: int, width: int) -> np.ndarray:
    mood = int(rng.integers(3))
    top = color(rng, [(100, 115), (105, 120), (100, 130)][mood], [(0.5, 0.75), (0.3, 0.6),
                (0.05, 0.2)][mood], (0.6, 0.9))
    low = color(rng, [(95, 110), (8, 20), (90, 120)][mood], [(0.1, 0.3), (0.3, 0.6),
                (0.02, 0.1)][mood], (0.8, 0.98))
    image = _gradient(top, low, height, width)
    clouds = np.clip(_cloudy(rng, height, width, (4, 9, 18, 40)) + rng.uniform(-0.6, 0.3), 0, 1)
    image += (np.float32(scaled(low, 1.12)) - image) * (0.75 * clouds)[..., None]
    return image


def _ridge(rng: _Rng, width: int, roughness: Tuple[int, ...]) -> np.ndarray:
    """Return float32[width] in 0..1, the outline of hills or woods."""
    outline = np.zeros(width, np.float32)
    weight = 1.0
    for count in roughness:
        points = rng.uniform(0, 1, (1, count)).astype(np.float32)
        outline += weight * cv2.resize(points, (width, 1), interpolation=cv2.INTER_CUBIC)[0]
        weight *= 0.4
    return np.clip(outline / 1.6, 0, 1)


def _hills(rng: _Rng, height: int, width: int, haze: Color) -> np.ndarray:
    """Return a sky above hills and woods."""
    image = _sky(rng, height, width)
    rows = np.arange(height)[:, None]
    green = color(rng, (35, 65), (0.3, 0.6), (0.25, 0.5))
    for index, (reach, roughness) in enumerate([
            (0.55, (5, 11)), (0.36, (7, 17)), (0.20, (9, 40, 150, 300))]):
        top = height * (1 - reach * _ridge(rng, width, roughness) - 0.03)
        mist = 0.6 - 0.28 * index
        tone = np.float32(green) * (1 - mist) + np.float32(haze) * mist
        texture = 1 + (0.04 + 0.05 * index) * _cloudy(rng, height, width, (20, 60))
        image = np.where((rows > top)[..., None], tone * texture[..., None], image)
    return np.clip(image, 0, 255).astype(np.uint8)


def _town(rng: _Rng, height: int, width: int, haze: Color) -> np.ndarray:
    """Return a sky above two rows of houses."""
    image = _sky(rng, height, width)
    for tall, mist in ((0.75, 0.55), (0.5, 0.2)):
        cursor = -rng.uniform(0, 0.3) * height
        while cursor < width:
            wide = rng.uniform(0.25, 0.7) * height
            top = int(height * (1 - tall * rng.uniform(0.4, 1)))
            tone = np.float32(color(rng, (0, 180), (0.05, 0.4), (0.3, 0.75)))
            tone = tuple((tone * (1 - mist) + np.float32(haze) * mist).tolist())
            left, right = int(cursor), int(cursor + wide)
            cv2.rectangle(image, (left, top), (right, height), tone, -1)
            cv2.rectangle(image, (right - max(1, int(wide * 0.2)), top), (right, height),
                          scaled(tone, 0.82), -1)
            step = max(4, height // 14)
            lit = scaled(tone, rng.uniform(0.55, 1.25))
            for y in range(top + step // 2, height - step, step):
                for x in range(left + step // 2, right - step // 2, step):
                    cv2.rectangle(image, (x, y), (x + step // 3, y + step // 2), lit, -1)
            cursor += wide * rng.uniform(0.8, 1.3)
    return np.clip(image, 0, 255).astype(np.uint8)


_Floor = Callable[[_Rng, int], np.ndarray]
_Behind = Callable[[_Rng, int, int, Color], np.ndarray]

# Floor, what is behind it, and whether that is far away.
_PLACES: Tuple[Tuple[_Floor, _Behind, bool], ...] = (
    (_concrete, _hall, False), (_tiles, _hall, False), (_planks, _hall, False),
    (_asphalt, _town, True), (_grass, _hills, True), (_paving, _hills, True),
    (_concrete, _town, True))
KINDS = len(_PLACES)
