"""Pictures of objects as seen from one side, and their painting into an image."""

from __future__ import annotations

from collections import OrderedDict
import math
from typing import Optional, Sequence, Tuple

import cv2
import numpy as np

from yolojet_ros.sim.mesh import Model

YAW_STEPS = 72
_ELEVATION_STEP = math.radians(3)
_SHADOW_REDUCTION = 4
_SHADOW_STRENGTH = 0.5


class Sprite:
    """
    One view of an object, its outline and its shadow.

    :param pixels: premultiplied uint8[h, w, 4], BGRA.
    :param origin: where the object stands, in continuous pixels of `pixels`.
    :param scale: pixels per metre.
    """

    def __init__(self, pixels: np.ndarray, origin: np.ndarray, scale: float):
        self.pixels = pixels
        self.origin = np.asarray(origin, np.float64)
        self.scale = scale
        self.mask = cv2.compare(pixels[..., 3], 127, cv2.CMP_GT)
        self.area = cv2.countNonZero(self.mask)
        self.outline = _outline(self.mask) - self.origin
        self.shadow: Optional[np.ndarray] = None
        self.shadow_origin = self.origin

    def add_shadow(self, radius: float, elevation: float) -> None:
        """Make the soft shadow of an object of `radius` metres on the ground."""
        unit = self.scale / _SHADOW_REDUCTION
        # A point that is y pixels above the ground darkens the ground right of and behind it.
        slant, lift = 0.5, 0.10 + 0.5 * math.sin(elevation)
        height, width = self.pixels.shape[:2]
        corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) - self.origin
        matrix = np.array([[1, -slant], [0, lift]]) / _SHADOW_REDUCTION
        spread = np.concatenate([corners @ matrix.T, [[-radius * unit, -radius * unit],
                                                      [radius * unit, radius * unit]]])
        margin = 3 + 0.1 * unit
        low = np.floor(spread.min(0) - margin)
        size = np.ceil(spread.max(0) + margin - low).astype(int)
        cast = cv2.warpAffine(self.pixels[..., 3], _centred(matrix, -low - matrix @ self.origin),
                              tuple(size.tolist()), flags=cv2.INTER_LINEAR)
        axes = (max(1, round(radius * unit * 0.95)),
                max(1, round(radius * unit * max(math.sin(elevation), 0.12) * 0.95)))
        centre = tuple(np.round(-low).astype(int).tolist())
        cv2.ellipse(cast, centre, axes, 0, 0, 360, 255, -1)
        sigma = max(0.8, 0.045 * unit)
        soft = cv2.GaussianBlur(cast, (0, 0), sigma)
        self.shadow = 255 - cv2.convertScaleAbs(soft, alpha=_SHADOW_STRENGTH)
        self.shadow_origin = -low


class SpriteCache:
    """
    The latest views of all objects.

    :param capacity: number of views to keep; the least recently used go first.
    """

    def __init__(self, capacity: int = 1024):
        self._capacity = capacity
        self._sprites: 'OrderedDict[Tuple, Sprite]' = OrderedDict()

    def view(self, key: int, model: Model, yaw: float, elevation: float, scale: float) -> Sprite:
        """
        Return a view near the wanted one, at least as fine as `scale` pixels per metre.

        :param key: identity of the model.
        """
        step = round(yaw / (2 * math.pi) * YAW_STEPS) % YAW_STEPS
        tilt = round(elevation / _ELEVATION_STEP)
        octave = math.ceil(math.log2(scale))
        sprite = self._sprites.get((key, step, tilt, octave))
        if sprite is None:
            sprite = render(model, step * 2 * math.pi / YAW_STEPS, tilt * _ELEVATION_STEP,
                            2.0 ** octave)
            self._sprites[key, step, tilt, octave] = sprite
            if len(self._sprites) > self._capacity:
                self._sprites.popitem(last=False)
        else:
            self._sprites.move_to_end((key, step, tilt, octave))
        return sprite


def render(model: Model, yaw: float, elevation: float, scale: float) -> Sprite:
    """Return the view of a model with its shadow."""
    pixels, origin = model.render(yaw, elevation, scale)
    sprite = Sprite(pixels, origin, scale)
    sprite.add_shadow(model.radius, elevation)
    return sprite


class Layer:
    """
    A sprite placed in an image.

    :param linear: float[2, 2], sprite pixels to image pixels.
    :param position: where the origin of the sprite lands, in continuous image pixels.
    :param size: width and height of the image.
    """

    def __init__(self, sprite: Sprite, linear: np.ndarray, position: np.ndarray,
                 size: Tuple[int, int]):
        self.sprite = sprite
        self.linear = linear
        self.position = position
        points = sprite.outline @ linear.T + position
        self.full_box = np.concatenate([points.min(0), points.max(0)])
        self.area = sprite.area * abs(np.linalg.det(linear))
        corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * sprite.pixels.shape[1::-1]
        self.region = _region((corners - sprite.origin) @ linear.T + position, size)
        self.pixels: Optional[np.ndarray] = None
        self.mask: Optional[np.ndarray] = None
        if self.region is not None:
            x, y, width, height = self.region
            matrix = _centred(linear, position - linear @ sprite.origin - (x, y))
            self.pixels = cv2.warpAffine(sprite.pixels, matrix, (width, height),
                                         flags=cv2.INTER_LINEAR)
            self.mask = cv2.compare(cv2.extractChannel(self.pixels, 3), 127, cv2.CMP_GT)

    def cast_shadow(self, image: np.ndarray, ground: np.ndarray) -> None:
        """Darken the image around `ground`, the point of the floor below the object."""
        shadow = self.sprite.shadow
        linear = self.linear * _SHADOW_REDUCTION
        corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * shadow.shape[::-1]
        origin = self.sprite.shadow_origin
        region = _region((corners - origin) @ linear.T + ground, image.shape[1::-1])
        if region is None:
            return
        x, y, width, height = region
        matrix = _centred(linear, ground - linear @ origin - (x, y))
        factor = cv2.warpAffine(shadow, matrix, (width, height), flags=cv2.INTER_LINEAR,
                                borderValue=255)
        target = image[y:y + height, x:x + width]
        cv2.multiply(target, cv2.cvtColor(factor, cv2.COLOR_GRAY2BGR), target, 1 / 255)

    def paint(self, image: np.ndarray) -> None:
        """Paint the object over the image."""
        if self.region is None:
            return
        x, y, width, height = self.region
        target = image[y:y + height, x:x + width]
        through = cv2.bitwise_not(cv2.extractChannel(self.pixels, 3))
        cv2.multiply(target, cv2.cvtColor(through, cv2.COLOR_GRAY2BGR), target, 1 / 255)
        cv2.add(target, cv2.cvtColor(self.pixels, cv2.COLOR_BGRA2BGR), target)


def visible_pixels(layer: Layer, hidden: np.ndarray) -> int:
    """
    Return how many pixels of the layer nothing in front covers.

    :param hidden: uint8[H, W], 255 where layers in front of this one have painted.
    """
    if layer.region is None:
        return 0
    x, y, width, height = layer.region
    return cv2.countNonZero(cv2.subtract(layer.mask, hidden[y:y + height, x:x + width]))


def hide(layer: Layer, hidden: np.ndarray) -> None:
    """Mark the pixels of the layer as covered for everything behind it."""
    if layer.region is not None:
        x, y, width, height = layer.region
        target = hidden[y:y + height, x:x + width]
        cv2.bitwise_or(target, layer.mask, target)


def _centred(linear: np.ndarray, shift: Sequence[float]) -> np.ndarray:
    """Return the matrix for OpenCV, which counts pixels from their centres."""
    matrix = np.empty((2, 3))
    matrix[:, :2] = linear
    matrix[:, 2] = np.asarray(shift) + linear @ (0.5, 0.5) - 0.5
    return matrix


def _outline(mask: np.ndarray) -> np.ndarray:
    """Return the convex hull of the covered pixels, corners included."""
    columns = np.arange(mask.shape[1])
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return np.zeros((1, 2))
    first = mask[rows].argmax(1)
    last = columns[-1] - mask[rows, ::-1].argmax(1) + 1
    points = np.concatenate([
        np.stack([side, rows + edge], 1) for side in (first, last) for edge in (0, 1)])
    return cv2.convexHull(points.astype(np.int32))[:, 0].astype(np.float64)


def _region(points: np.ndarray, size: Tuple[int, int]) -> Optional[Tuple[int, int, int, int]]:
    """Return x, y, width, height of the pixels that the points span, or None if outside."""
    low = np.maximum(np.floor(points.min(0)).astype(int), 0)
    high = np.minimum(np.ceil(points.max(0)).astype(int), size)
    if (high <= low).any():
        return None
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])
