"""
Letterbox: fit any image into the network's input, centred, and map boxes back exactly.

The geometry is the one that YOLOv8 models are trained with: one scale for both
axes, bilinear resize, the rest filled with gray 114.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import cv2
import numpy as np

from yolojet_ros.core import boxes as boxes_
from yolojet_ros.core.image_formats import ImageView

PAD_VALUE = 114


@dataclass(frozen=True)
class Letterbox:
    """
    Geometry of one letterbox, all sizes in pixels.

    source: (width, height) of the image
    network: (width, height) of the network's input
    resized: (width, height) of the image within the input, at least 1x1
    offset: (left, top) of the image within the input
    """

    source: Tuple[int, int]
    network: Tuple[int, int]
    resized: Tuple[int, int]
    offset: Tuple[int, int]

    @classmethod
    def fit(cls, source: Tuple[int, int], network: Tuple[int, int]) -> Letterbox:
        """Return the geometry that fits `source` into `network`, centred."""
        scale = min(network[0] / source[0], network[1] / source[1])
        resized = tuple(
            min(max(int(side * scale + 0.5), 1), limit) for side, limit in zip(source, network))
        offset = tuple((limit - side) // 2 for side, limit in zip(resized, network))
        return cls(tuple(source), tuple(network), resized, offset)

    @property
    def scale(self) -> Tuple[float, float]:
        """
        Return network pixels per image pixel along x and y.

        They differ slightly because the resized sides are whole pixels; the
        inverse uses both, so no box is off by the rounding.
        """
        return (self.resized[0] / self.source[0], self.resized[1] / self.source[1])

    def forward(self, boxes: np.ndarray) -> np.ndarray:
        """Map boxes [n, 4] from image pixels to network pixels."""
        return (boxes * self._array(self.scale) + self._array(self.offset)).astype(np.float32)

    def inverse(self, boxes: np.ndarray) -> np.ndarray:
        """Map boxes [n, 4] from network pixels to image pixels."""
        inverse_scale = (self.source[0] / self.resized[0], self.source[1] / self.resized[1])
        return (boxes - self._array(self.offset)) * self._array(inverse_scale)

    def inverse_clipped(self, boxes: np.ndarray) -> np.ndarray:
        """Map boxes [n, 4] to image pixels and clip them to the image."""
        return boxes_.clip(self.inverse(boxes), *self.source)

    @staticmethod
    def _array(pair: Tuple[float, float]) -> np.ndarray:
        return np.array((*pair, *pair), np.float32)


class Letterboxer:
    """
    Turn images into network input tensors, reusing its buffers.

    :param network: (width, height) of the network's input in pixels
    :param dtype: np.float32 or np.float16, the type of the tensor
    """

    def __init__(self, network: Tuple[int, int], dtype: type = np.float32) -> None:
        width, height = network
        self.network = (int(width), int(height))
        self.tensor = np.empty((1, 3, height, width), dtype)
        self._canvas = np.full((height, width, 3), PAD_VALUE, np.uint8)
        self._planes = np.empty((3, height, width), np.uint8)
        self._geometry = Letterbox.fit(self.network, self.network)

    def __call__(self, view: ImageView) -> Tuple[np.ndarray, Letterbox]:
        """
        Return (tensor [1, 3, H, W] RGB 0..1, geometry).

        The tensor is overwritten by the next call.

        :raises ImageError: if the image cannot be used.
        """
        image = view.bgr()
        source = (view.width, view.height)
        if source != self._geometry.source:
            self._geometry = Letterbox.fit(source, self.network)
            self._canvas.fill(PAD_VALUE)
        (width, height), (left, top) = self._geometry.resized, self._geometry.offset
        target = self._canvas[top:top + height, left:left + width]
        if (width, height) == source:
            target[...] = image
        else:
            cv2.resize(image, (width, height), dst=target, interpolation=cv2.INTER_LINEAR)
        self._fill_tensor()
        return self.tensor, self._geometry

    def _fill_tensor(self) -> None:
        blue, green, red = self._planes[2], self._planes[1], self._planes[0]
        cv2.split(self._canvas, [blue, green, red])  # BGR image, RGB network
        np.multiply(self._planes, np.float32(1 / 255), out=self.tensor[0], casting='same_kind')
