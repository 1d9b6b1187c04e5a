"""Pictures of objects as seen from one side, and their painting into an image."""

from __future__ import annotations

from collections import OrderedDict
import math
from typing import Optional, Sequence, Tuple

import cv2
import numpy as np

from yolojet_ros.sim.camera import SHADE_REDUCTION
from yolojet_ros.sim.frame import KEYPOINT_NAMES
from yolojet_ros.sim.objects import Shape

YAW_STEPS = 60
_ELEVATION_STEP = math.radians(5)
# Views are rendered at powers of this factor and reduced when painted.
_SCALE_STEP = math.sqrt(2)
_SHADOW_STRENGTH = 0.55
_HALF = np.array([0.5, 0.5])
_UNIT = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float64)

Size = Tuple[int, int]


class Sprite:
    """
    One view of an object, its outline and its shadow.

    :param pixels: premultiplied uint8[h, w, 4], BGRA.
    :param origin: where the object stands, in continuous pixels of `pixels`.
    :param scale: pixels per metre.
    :param marks: float[K, 2], the keypoints in pixels right of and below the origin.
    :param directed: whether it looks turned when it is turned in the picture.
    """

    def __init__(self, pixels: np.ndarray, origin: np.ndarray, scale: float,
                 marks: Optional[np.ndarray] = None, directed: bool = True):
        self.pixels = pixels
        self.origin = np.asarray(origin, np.float64)
        self.scale = scale
        self.marks = np.zeros((len(KEYPOINT_NAMES), 2)) if marks is None else marks
        self.directed = directed
        mask = cv2.compare(pixels[..., 3], 127, cv2.CMP_GT)
        self.area = cv2.countNonZero(mask)
        self.outline = _outline(mask) - self.origin
        self.shadow: Optional[np.ndarray] = None
        self.shadow_origin = self.origin

    def add_shadow(self, radius: float, elevation: float) -> None:
        """Make the soft shadow of an object of `radius` metres on the ground."""
        unit = self.scale / SHADE_REDUCTION
        # A point that is y pixels above the ground darkens the ground right of and behind it.
        slant, lift = 0.5, 0.10 + 0.5 * math.sin(elevation)
        height, width = self.pixels.shape[:2]
        corners = _UNIT * (width, height) - self.origin
        matrix = np.array([[1, -slant], [0, lift]]) / SHADE_REDUCTION
        spread = np.concatenate([corners @ matrix.T, [[-radius * unit, -radius * unit],
                                                      [radius * unit, radius * unit]]])
        margin = 3 + 0.1 * unit
        low = np.floor(spread.min(0) - margin)
        size = np.ceil(spread.max(0) + margin - low).astype(int)
        cast = cv2.warpAffine(self.pixels[..., 3], centred(matrix, -low - matrix @ self.origin),
                              tuple(size.tolist()), flags=cv2.INTER_LINEAR)
        axes = (max(1, round(radius * unit * 0.95)),
                max(1, round(radius * unit * max(math.sin(elevation), 0.12) * 0.95)))
        centre = tuple(np.round(-low).astype(int).tolist())
        cv2.ellipse(cast, centre, axes, 0, 0, 360, 255, -1)
        sigma = max(0.8, 0.045 * unit)
        soft = cv2.GaussianBlur(cast, (0, 0), sigma)
        self.shadow = 255 - cv2.convertScaleAbs(soft, alpha=_SHADOW_STRENGTH)
        self.shadow_origin = -low

    def tint(self, matrix: np.ndarray) -> None:
        """
        Change the colours in place.

        :param matrix: float32[3, 3] from BGR to BGR.
        """
        colors = cv2.transform(cv2.cvtColor(self.pixels, cv2.COLOR_BGRA2BGR), matrix)
        alpha = cv2.extractChannel(self.pixels, 3)
        # Premultiplied colours never exceed their alpha.
        cv2.min(colors, cv2.cvtColor(alpha, cv2.COLOR_GRAY2BGR), colors)
        self.pixels = cv2.merge([*cv2.split(colors), alpha])


class SpriteCache:
    """
    The latest views of all objects.

    :param capacity: bytes to keep; the least recently used views go first.
    """

    def __init__(self, capacity: int = 64 << 20):
        self._room = capacity
        self._sprites: 'OrderedDict[Tuple, Sprite]' = OrderedDict()

    def view(self, key: int, shape: Shape, yaw: float, elevation: float, scale: float) -> Sprite:
        """
        Return a view near the wanted one, at least as fine as `scale` pixels per metre.

        :param key: identity of the shape.
        """
        step = round(yaw / (2 * math.pi) * YAW_STEPS) % YAW_STEPS
        tilt = round(elevation / _ELEVATION_STEP)
        sprite = self._sprites.pop((key, step, tilt), None)
        if sprite is None or not 1 <= sprite.scale / scale < 2 * _SCALE_STEP:
            self._room += 0 if sprite is None else sprite.pixels.nbytes
            level = math.ceil(math.log(scale, _SCALE_STEP))
            sprite = render(shape, step * 2 * math.pi / YAW_STEPS, tilt * _ELEVATION_STEP,
                            _SCALE_STEP ** level)
            self._room -= sprite.pixels.nbytes
            while self._room < 0 and self._sprites:
                _, oldest = self._sprites.popitem(last=False)
                self._room += oldest.pixels.nbytes
        self._sprites[key, step, tilt] = sprite
        return sprite


def render(shape: Shape, yaw: float, elevation: float, scale: float) -> Sprite:
    """Return the view of a shape with its shadow."""
    pixels, origin = shape.render(yaw, elevation, scale)
    sprite = Sprite(
        pixels, origin, scale, shape.marks(yaw, elevation) * scale, shape.directed)
    sprite.add_shadow(shape.radius, elevation)
    return sprite


class Layer:
    """
    A sprite placed in an image.

    :param linear: float[2, 2], sprite pixels to image pixels.
    :param position: where the origin of the sprite lands, in continuous image pixels.
    :param ground: the point of the floor below it, where its shadow begins.
    :param size: width and height of the image.
    :ivar box: x1 y1 x2 y2 of the part of the silhouette inside the image, whatever hides it;
        empty outside the image.
    :ivar area: pixels of the whole silhouette.
    :ivar rotated: cx cy w h and angle of the box along the sprite's axes around the whole
        silhouette, in and outside the image; see frame.SceneFrame.
    :ivar marks: float64[K, 2], the keypoints in image pixels.
    """

    def __init__(self, sprite: Sprite, linear: np.ndarray, position: np.ndarray,
                 ground: np.ndarray, size: Size):
        self.sprite = sprite
        self.linear = linear
        self.ground = ground
        points = sprite.outline @ linear.T + position
        self.box = np.concatenate([points.min(0), points.max(0)])
        self.rotated = _around(points, linear if sprite.directed else np.eye(2))
        self.marks = sprite.marks @ linear.T + position
        self.region = _region(self.box, size)
        self.pixels: Optional[np.ndarray] = None
        self.mask: Optional[np.ndarray] = None
        self.area = sprite.area * abs(
            linear[0, 0] * linear[1, 1] - linear[0, 1] * linear[1, 0])
        if self.region is not None:
            x, y, width, height = self.region
            matrix = centred(linear, position - linear @ sprite.origin - (x, y))
            self.pixels = cv2.warpAffine(sprite.pixels, matrix, (width, height),
                                         flags=cv2.INTER_LINEAR)
            self.mask = cv2.compare(cv2.extractChannel(self.pixels, 3), 127, cv2.CMP_GT)
            if _inside(self.box, size):
                self.area = cv2.countNonZero(self.mask)
            else:
                left, top, wide, high = cv2.boundingRect(self.mask)
                self.box = np.array([x + left, y + top, x + left + wide, y + top + high], float)

    def cast_shadow(self, shade: np.ndarray) -> None:
        """
        Darken the floor around the object.

        :param shade: uint8, light on the floor at 1 / SHADE_REDUCTION of the image's size.
        """
        shadow, origin = self.sprite.shadow, self.sprite.shadow_origin
        ground = self.ground / SHADE_REDUCTION
        corners = (_UNIT * shadow.shape[::-1] - origin) @ self.linear.T + ground
        region = _region(np.concatenate([corners.min(0), corners.max(0)]), shade.shape[::-1])
        if region is None:
            return
        x, y, width, height = region
        matrix = centred(self.linear, ground - self.linear @ origin - (x, y))
        factor = cv2.warpAffine(shadow, matrix, (width, height), flags=cv2.INTER_LINEAR,
                                borderValue=255)
        target = shade[y:y + height, x:x + width]
        cv2.multiply(target, factor, target, 1 / 255)

    def light(self, shade: np.ndarray) -> float:
        """Return the light where the object stands, 0..1; see cast_shadow for `shade`."""
        x, y = np.clip((self.ground / SHADE_REDUCTION).astype(int), 0,
                       (shade.shape[1] - 1, shade.shape[0] - 1)).tolist()
        return float(shade[y, x]) / 255

    def paint(self, image: np.ndarray, light: float) -> None:
        """Paint the object over the image, its colours times `light`."""
        if self.region is None:
            return
        x, y, width, height = self.region
        target = image[y:y + height, x:x + width]
        through = cv2.bitwise_not(cv2.extractChannel(self.pixels, 3))
        cv2.multiply(target, cv2.cvtColor(through, cv2.COLOR_GRAY2BGR), target, 1 / 255)
        cv2.addWeighted(target, 1.0, cv2.cvtColor(self.pixels, cv2.COLOR_BGRA2BGR), light, 0.0,
                        target)

    def visibility(self, hidden: np.ndarray) -> float:
        """
        Return the part of the silhouette that is in the image and that nothing covers, 0..1.

        :param hidden: uint8[H, W], 255 where things in front of this one have painted.
        """
        if self.region is None:
            return 0.0
        x, y, width, height = self.region
        free = cv2.subtract(self.mask, hidden[y:y + height, x:x + width])
        return min(1.0, cv2.countNonZero(free) / max(self.area, 1.0))

    def covers(self, column: int, row: int) -> bool:
        """Tell whether the object is painted in a pixel of the image."""
        if self.region is None:
            return False
        x, y, width, height = self.region
        column, row = column - x, row - y
        return 0 <= column < width and 0 <= row < height and self.mask[row, column] > 0

    def hide(self, hidden: np.ndarray) -> None:
        """Mark the pixels of the object as covered for everything behind it."""
        if self.region is not None:
            x, y, width, height = self.region
            target = hidden[y:y + height, x:x + width]
            cv2.bitwise_or(target, self.mask, target)


def instance_map(front: Sequence[Layer], objects: Sequence[Layer], size: Size) -> np.ndarray:
    """
    Return uint8[H, W], 1 + index among `objects` of what is seen in a pixel, or 0.

    :param front: all layers, nearest first.
    :param objects: those of them that count, at most 255; the others hide them.
    """
    numbers = {id(layer): index + 1 for index, layer in enumerate(objects)}
    instances = np.zeros(size[::-1], np.uint8)
    for layer in reversed(front):
        if layer.region is not None:
            x, y, width, height = layer.region
            cv2.copyTo(np.full_like(layer.mask, numbers.get(id(layer), 0)), layer.mask,
                       instances[y:y + height, x:x + width])
    return instances


def marks_seen(layer: Layer, front: Sequence[Layer], size: Size) -> np.ndarray:
    """
    Return float64[K, 3], the keypoints of a layer and how they show; see frame.SceneFrame.

    :param front: all layers, nearest first.
    """
    nearer = front[:next(i for i, other in enumerate(front) if other is layer)]
    marks = np.empty((len(layer.marks), 3))
    marks[:, :2] = layer.marks
    for mark in marks:
        x, y = (math.floor(value) for value in mark[:2])
        inside = 0 <= x < size[0] and 0 <= y < size[1]
        mark[2] = 0 if not inside else 1 if any(n.covers(x, y) for n in nearer) else 2
    return marks


def measure_visibility(front: Sequence[Layer], hidden: np.ndarray) -> np.ndarray:
    """
    Return float32[n], the visible part of each silhouette.

    :param front: the layers, nearest first.
    :param hidden: uint8[H, W], working space.
    """
    hidden[:] = 0
    visible = np.empty(len(front), np.float32)
    for index, layer in enumerate(front):
        visible[index] = layer.visibility(hidden)
        layer.hide(hidden)
    return visible


def compose(image: np.ndarray, front: Sequence[Layer], shade: np.ndarray) -> None:
    """
    Paint layers with their shadows over an empty place, in place.

    :param image: uint8[H, W, 3].
    :param front: the layers, nearest first.
    :param shade: uint8, light on the floor at 1 / SHADE_REDUCTION of the size; used up.
    """
    lights = [layer.light(shade) for layer in front]
    for layer in front:
        layer.cast_shadow(shade)
    mask = cv2.resize(shade, image.shape[1::-1])
    cv2.multiply(image, cv2.cvtColor(mask, cv2.COLOR_GRAY2BGR), image, 1 / 255)
    for layer, light in zip(reversed(front), reversed(lights)):
        layer.paint(image, light)


def centred(linear: np.ndarray, shift: Sequence[float]) -> np.ndarray:
    """Return the 2 x 3 matrix for OpenCV, which counts pixels from their centres."""
    matrix = np.empty((2, 3))
    matrix[:, :2] = linear
    matrix[:, 2] = np.asarray(shift) + linear @ _HALF - 0.5
    return matrix


def _around(points: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """Return cx, cy, w, h, angle of the box around points [n, 2] along the first axis."""
    angle = math.atan2(linear[1, 0], linear[0, 0])
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    local = points @ turn
    low, high = local.min(0), local.max(0)
    return np.concatenate([turn @ ((low + high) / 2), high - low, [angle]])


def _outline(mask: np.ndarray) -> np.ndarray:
    """Return float64[n, 2], the corners of the pixels on the convex hull of the mask."""
    contours = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[-2]
    if not contours:
        return np.zeros((1, 2))
    hull = cv2.convexHull(np.concatenate(contours))
    return (hull + _UNIT).reshape(-1, 2).astype(np.float64)


def _inside(box: np.ndarray, size: Size) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= size[0] and box[3] <= size[1]


def _region(box: np.ndarray, size: Size) -> Optional[Tuple[int, int, int, int]]:
    """Return x, y, width, height of the pixels of a box and one around, or None if outside."""
    x1, y1, x2, y2 = box.tolist()
    left, top = max(math.floor(x1) - 1, 0), max(math.floor(y1) - 1, 0)
    right, bottom = min(math.ceil(x2) + 1, size[0]), min(math.ceil(y2) + 1, size[1])
    if right <= left or bottom <= top:
        return None
    return left, top, right - left, bottom - top
