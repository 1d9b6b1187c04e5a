"""A camera that pans, shakes, zooms and rolls, light that changes, and an imperfect sensor."""

from __future__ import annotations

from functools import lru_cache
import math
from typing import Tuple

import cv2
import numpy as np

Size = Tuple[int, int]

_NOISE_SIGMA = 36.0
_NOISE_SHIFTS = 61
_LIGHT_REDUCTION = 16
# The shade of the floor is kept at this fraction of the image's size: it is soft anyway.
SHADE_REDUCTION = 4


class CameraMotion:
    """
    The way from the painted world to the image, as a similarity for any time.

    :param size: width and height of the image.
    :param world: width and height of the painted world.
    :param moving: False keeps the camera still.
    """

    def __init__(self, rng: np.random.Generator, size: Size, world: Size, moving: bool):
        self._middle = np.array(size, np.float64) / 2
        self._centre = np.array(world, np.float64) / 2
        self._moving = moving
        self._pan = (self._centre - self._middle) * (0.85, 0.55)
        self._slow = rng.uniform(0.05, 0.12, 4) * 2 * math.pi
        self._fast = rng.uniform(2.0, 7.0, (3, 3)) * 2 * math.pi
        self._phases = rng.uniform(0, 2 * math.pi, 4)
        self._fast_phases = rng.uniform(0, 2 * math.pi, (3, 3))
        self._shake = rng.uniform(0.002, 0.005) * size[1]

    def matrix(self, time: float) -> np.ndarray:
        """Return float64[2, 3], painted world to image, in continuous pixels."""
        if not self._moving:
            return similarity(self._centre, self._middle, 1.0, 0.0)
        slow = np.sin(self._slow * time + self._phases)
        # The shake comes and goes, as when somebody walks past.
        fast = np.sin(self._fast * time + self._fast_phases).mean(1)
        fast *= self._shake * (0.5 + 0.5 * math.sin(0.7 * time + self._phases[0])) ** 2
        zoom = 1.12 + 0.12 * slow[2]
        roll = math.radians(2.2) * slow[3] + fast[2] / self._middle[0]
        return similarity(self._centre + self._pan * slow[:2] + fast[:2], self._middle, zoom, roll)


def similarity(source: np.ndarray, target: np.ndarray, zoom: float, roll: float) -> np.ndarray:
    """Return float64[2, 3] that turns by `roll` radians and scales about source -> target."""
    matrix = np.empty((2, 3))
    cosine, sine = zoom * math.cos(roll), zoom * math.sin(roll)
    matrix[:, :2] = [[cosine, -sine], [sine, cosine]]
    matrix[:, 2] = target - matrix[:, :2] @ source
    return matrix


def relative(previous: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Return the affine matrix from the image of `previous` to the image of `current`."""
    linear = current[:, :2] @ np.linalg.inv(previous[:, :2])
    return np.concatenate([linear, (current[:, 2] - linear @ previous[:, 2])[:, None]], 1)


class Illumination:
    """
    Soft patches of light and shade that drift through the image, and a vignette.

    :param size: width and height of the image.
    :param depth: 0 even light .. 1 deep shade.
    """

    def __init__(self, rng: np.random.Generator, size: Size, depth: float):
        self._shade_size = (-(-size[0] // SHADE_REDUCTION), -(-size[1] // SHADE_REDUCTION))
        self._small = (max(2, size[0] // _LIGHT_REDUCTION), max(2, size[1] // _LIGHT_REDUCTION))
        x = np.linspace(-1, 1, self._small[0], dtype=np.float32)
        y = np.linspace(-1, 1, self._small[1], dtype=np.float32)[:, None]
        self._vignette = 1 - np.float32(0.14) * (x * x + y * y)
        self._x, self._y = x, y
        self._waves = rng.uniform((-1.5, -1.5, -0.35, 0), (1.5, 1.5, 0.35, 2 * math.pi), (4, 4))
        self._depth = depth

    def shade(self, time: float) -> np.ndarray:
        """Return uint8, the light at `time` seconds (255 is full) at a quarter of the size."""
        shade = np.zeros(self._vignette.shape, np.float32)
        for x, y, speed, phase in self._waves.tolist():
            shade += np.sin(self._x * (2.5 * x) + (self._y * (2.5 * y) + (speed * time + phase)))
        level = self._vignette * (1 - self._depth * (0.25 + 0.125 * shade))
        return cv2.resize(cv2.convertScaleAbs(level, alpha=255), self._shade_size)


@lru_cache(maxsize=8)
def _noise_field(width: int, height: int) -> np.ndarray:
    """Return uint8 noise about 128, a little larger than the image; the same in any process."""
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((height + _NOISE_SHIFTS, width + _NOISE_SHIFTS, 3), np.float32)
    cv2.GaussianBlur(noise, (3, 3), 0.4, noise)
    noise *= _NOISE_SIGMA / noise.std()
    field = np.clip(noise + 128, 0, 255).astype(np.uint8)
    field.flags.writeable = False
    return field


class Sensor:
    """
    Exposure, blur and noise; the noise is one field that is shifted at random.

    :param size: width and height of the image.
    """

    def __init__(self, rng: np.random.Generator, size: Size):
        self._rng = rng
        self._noise = _noise_field(*size)

    def expose(self, image: np.ndarray, gain: float, noise: float, blur: float) -> None:
        """
        Turn a perfect picture into what the sensor reads, in place.

        :param gain: exposure; 1 leaves the brightness.
        :param noise: standard deviation in grey levels.
        :param blur: standard deviation in pixels; below 0.3 is sharp.
        """
        if blur >= 0.3:
            width = 3 if blur < 0.7 else 5 if blur < 1.2 else 0
            cv2.GaussianBlur(image, (width, width), blur, image)
        height, width = image.shape[:2]
        y, x = self._rng.integers(0, _NOISE_SHIFTS, 2).tolist()
        amount = noise / _NOISE_SIGMA
        cv2.addWeighted(image, gain, self._noise[y:y + height, x:x + width], amount,
                        -128 * amount, image)
