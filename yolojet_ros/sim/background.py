"""The painted world behind the objects: a floor in perspective and what stands behind it."""

from __future__ import annotations

from typing import Tuple

import cv2
import numpy as np


def panorama(rng: np.random.Generator, size: Tuple[int, int], horizon: float) -> np.ndarray:
    """
    Return a painted world.

    :param size: width and height in pixels.
    :param horizon: row of the horizon in pixels.
    :returns: uint8[height, width, 3], BGR.
    """
    width, height = size
    base = rng.uniform(70, 170, 3).astype(np.float32)
    image = np.empty((height, width, 3), np.float32)
    image[:] = base
    image[:int(horizon)] = rng.uniform(70, 190, 3)
    for cells in (6, 24, 96):
        noise = rng.standard_normal((cells, cells, 1), np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)[..., None] * 8
    return np.clip(image, 0, 255).astype(np.uint8)
