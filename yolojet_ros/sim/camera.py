"""A camera that pans, shakes, zooms and rolls, and a sensor that is not perfect."""

from __future__ import annotations

import math
from typing import Tuple

import cv2
import numpy as np


class CameraMotion:
    """
    The way from the painted world to the image, as a similarity for any time.

    :param size: width and height of the image.
    :param world: width and height of the painted world.
    :param moving: False keeps the camera still.
    """

    def __init__(self, rng: np.random.Generator, size: Tuple[int, int], world: Tuple[int, int],
                 moving: bool = True):
        self._size = np.array(size, np.float64)
        self._centre = np.array(world, np.float64) / 2
        self._moving = moving
        margin = (self._centre * 2 - self._size) / 2
        self._pan = margin * (0.85, 0.55)
        self._slow = rng.uniform(0.05, 0.12, 4) * 2 * math.pi
        self._fast = rng.uniform(2.0, 7.0, (3, 3)) * 2 * math.pi
        self._phases = rng.uniform(0, 2 * math.pi, 13)
        self._shake = rng.uniform(0.0006, 0.0016) * size[1]

    def matrix(self, time: float) -> np.ndarray:
        """Return float64[2, 3], painted world to image, in continuous pixels."""
        if not self._moving:
            return _similarity(self._centre, self._size / 2, 1.0, 0.0)
        slow = np.sin(self._slow * time + self._phases[:4])
        # The shake comes and goes, as when somebody walks past.
        fast = np.sin(self._fast * time + self._phases[4:].reshape(3, 3)).mean(1)
        fast *= self._shake * (0.5 + 0.5 * math.sin(0.7 * time + self._phases[0])) ** 2
        zoom = 1.12 + 0.12 * slow[2]
        roll = math.radians(2.2) * slow[3] + fast[2] / self._size[0]
        return _similarity(self._centre + self._pan * slow[:2] + fast[:2], self._size / 2,
                           zoom, roll)


def _similarity(source: np.ndarray, target: np.ndarray, zoom: float, roll: float) -> np.ndarray:
    matrix = np.empty((2, 3))
    cosine, sine = zoom * math.cos(roll), zoom * math.sin(roll)
    matrix[:, :2] = [[cosine, -sine], [sine, cosine]]
    matrix[:, 2] = target - matrix[:, :2] @ source
    return matrix


def relative(previous: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Return the affine matrix from the image of `previous` to the image of `current`."""
    linear = current[:, :2] @ np.linalg.inv(previous[:, :2])
    return np.concatenate([linear, (current[:, 2] - linear @ previous[:, 2])[:, None]], 1)


class Sensor:
    """
    Exposure, blur and noise; the noise is a field made once and moved at random.

    :param size: width and height of the image.
    """

    _NOISE_SIGMA = 36.0

    def __init__(self, rng: np.random.Generator, size: Tuple[int, int]):
        self._rng = rng
        width, height = size
        noise = rng.standard_normal((height + 61, width + 61, 3), np.float32)
        cv2.GaussianBlur(noise, (3, 3), 0.4, noise)
        noise *= self._NOISE_SIGMA / noise.std()
        self._noise = np.clip(noise + 128, 0, 255).astype(np.uint8)

    def expose(self, image: np.ndarray, gain: float, noise: float, blur: float) -> None:
        """
        Turn a perfect picture into what the sensor reads, in place.

        :param gain: exposure, 1 leaves the brightness.
        :param noise: standard deviation in grey levels.
        :param blur: standard deviation in pixels, 0 is sharp.
        """
        if blur > 0.2:
            cv2.GaussianBlur(image, (0, 0), blur, image)
        height, width = image.shape[:2]
        y, x = self._rng.integers(0, 61, 2).tolist()
        amount = noise / self._NOISE_SIGMA
        cv2.addWeighted(image, gain, self._noise[y:y + height, x:x + width], amount,
                        -128 * amount, image)
