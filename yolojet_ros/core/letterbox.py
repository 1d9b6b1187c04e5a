"""
Letterbox: fit any image into the network's input, and map boxes back exactly.

Where a model says nothing else, the geometry is the one that YOLOv8 models are trained
with: one scale for both axes, centred, bilinear resize, the rest filled with gray 114.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

import cv2
import numpy as np

from yolojet_ros.core import boxes as boxes_
from yolojet_ros.core import rotated as rotated_
from yolojet_ros.core.antialias import Antialias
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.image_input import Fit, ImageInput


@dataclass(frozen=True)
class Letterbox:
    """
    Geometry of one letterbox, all sizes in pixels.

    source: (width, height) of the image
    network: (width, height) of the network's input
    resized: (width, height) of the image within the input, at least 1x1; larger than the
        input if it is cropped
    offset: (left, top) of the image within the input; negative if it is cropped
    """

    source: Tuple[int, int]
    network: Tuple[int, int]
    resized: Tuple[int, int]
    offset: Tuple[int, int]

    @classmethod
    def fit(
        cls, source: Tuple[int, int], network: Tuple[int, int], how: Fit = Fit.LETTERBOX,
    ) -> Letterbox:
        """Return the geometry that fits `source` into `network`."""
        source, network = tuple(source), tuple(network)
        if how is Fit.STRETCH:
            return cls(source, network, network, (0, 0))
        scales = (network[0] / source[0], network[1] / source[1])
        if how is Fit.CROP:
            # In the whole numbers of torchvision's Resize and CenterCrop.
            axis = int(scales[1] > scales[0])
            resized = tuple(side * network[axis] // source[axis] for side in source)
            offset = tuple(-round((side - limit) / 2) for side, limit in zip(resized, network))
            return cls(source, network, resized, offset)
        resized = tuple(
            min(max(int(side * min(scales) + 0.5), 1), limit)
            for side, limit in zip(source, network))
        offset = (0, 0) if how is Fit.TOP_LEFT else tuple(
            (limit - side) // 2 for side, limit in zip(resized, network))
        return cls(source, network, resized, offset)

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

    @property
    def inverse_scale(self) -> Tuple[float, float]:
        """Return image pixels per network pixel along x and y."""
        return (self.source[0] / self.resized[0], self.source[1] / self.resized[1])

    def inverse(self, boxes: np.ndarray) -> np.ndarray:
        """Map boxes [n, 4] from network pixels to image pixels."""
        return (boxes - self._array(self.offset)) * self._array(self.inverse_scale)

    def inverse_clipped(self, boxes: np.ndarray) -> np.ndarray:
        """Map boxes [n, 4] to image pixels and clip them to the image."""
        return boxes_.clip(self.inverse(boxes), *self.source)

    def inverse_points(self, points: np.ndarray) -> np.ndarray:
        """Map points [..., 2] to image pixels and into the image."""
        mapped = (points - np.array(self.offset, np.float32)) * np.array(
            self.inverse_scale, np.float32)
        return np.minimum(np.maximum(mapped, 0), np.array(self.source, np.float32))

    def inverse_rotated(self, boxes: np.ndarray) -> np.ndarray:
        """
        Map rotated boxes [n, 5] (core.rotated) from network pixels to image pixels.

        Scales that differ by the rounding of `resized` turn and lengthen both sides; the slight
        skew is given up.
        """
        scale = np.array(self.inverse_scale, np.float32)
        mapped = boxes.astype(np.float32)
        mapped[:, :2] = (boxes[:, :2] - np.array(self.offset, np.float32)) * scale
        along, across = (vectors * scale for vectors in rotated_.axes(boxes).transpose(1, 0, 2))
        mapped[:, 2] = np.hypot(along[:, 0], along[:, 1]) * 2
        mapped[:, 3] = np.hypot(across[:, 0], across[:, 1]) * 2
        mapped[:, 4] += np.arctan2(along[:, 1], along[:, 0]) - np.arctan2(
            np.sin(boxes[:, 4]), np.cos(boxes[:, 4]))
        return mapped

    @staticmethod
    def _array(pair: Tuple[float, float]) -> np.ndarray:
        return np.array((*pair, *pair), np.float32)


class Letterboxer:
    """
    Turn images into network input tensors, reusing its buffers.

    :param network: (width, height) of the network's input in pixels
    :param takes: where the image lies, and what becomes of its bytes
    """

    def __init__(self, network: Tuple[int, int], takes: ImageInput = ImageInput()) -> None:
        width, height = network
        self.network = (int(width), int(height))
        self.tensor = np.empty((1, 3, height, width), takes.dtype)
        self._takes = takes
        self._factors, self._offsets = takes.affine
        # What becomes of each byte, [3, 256].
        self._tables = takes.typed(
            np.arange(256, dtype=np.float32) * self._factors[:, None] + self._offsets[:, None])
        self._canvas = np.full((height, width, 3), takes.pad, np.uint8)
        self._planes = np.empty((3, height, width), np.uint8)
        self._geometry = Letterbox.fit(self.network, self.network)
        self._antialias: Optional[Antialias] = None

    def __call__(self, view: ImageView) -> Tuple[np.ndarray, Letterbox]:
        """
        Return (tensor [1, 3, H, W] as `takes` describes it, geometry).

        The tensor is overwritten by the next call.

        :raises ImageError: if the image cannot be used.
        """
        image = view.bgr()
        source = (view.width, view.height)
        if source != self._geometry.source:
            self._geometry = Letterbox.fit(source, self.network, self._takes.fit)
            self._canvas.fill(self._takes.pad)
            self._antialias = self._smoother()
        (width, height), (left, top) = self._geometry.resized, self._geometry.offset
        if self._antialias is not None:
            self._visible()[...] = self._antialias(image)
        elif left < 0 or top < 0:
            resized = image if (width, height) == source else cv2.resize(
                image, (width, height), interpolation=cv2.INTER_LINEAR)
            self._canvas[...] = resized[
                -top:self.network[1] - top, -left:self.network[0] - left]
        else:
            target = self._canvas[top:top + height, left:left + width]
            if (width, height) == source:
                target[...] = image
            else:
                cv2.resize(image, (width, height), dst=target, interpolation=cv2.INTER_LINEAR)
        self._fill_tensor()
        return self.tensor, self._geometry

    def _visible(self) -> np.ndarray:
        """Return the part of the canvas that shows the image."""
        (width, height), (left, top) = self._geometry.resized, self._geometry.offset
        return self._canvas[max(top, 0):top + height, max(left, 0):left + width]

    def _smoother(self) -> Optional[Antialias]:
        """Return what resizes images of this geometry, where that is not the task of OpenCV."""
        geometry = self._geometry
        if not self._takes.antialias or geometry.resized == geometry.source:
            return None
        height, width = self._visible().shape[:2]
        left, top = (max(-offset, 0) for offset in geometry.offset)
        return Antialias(geometry.source, geometry.resized, (left, top, width, height))

    def _fill_tensor(self) -> None:
        order = (2, 1, 0) if self._takes.order == 'rgb' else (0, 1, 2)
        cv2.split(self._canvas, [self._planes[channel] for channel in order])  # from BGR
        if self._takes.dtype == 'uint8':
            np.copyto(self.tensor[0], self._planes)
            return
        if self._takes.dtype == 'int8':
            for channel, table in enumerate(self._tables):
                np.take(table, self._planes[channel], out=self.tensor[0, channel])
            return
        for planes, factor, offset in self._groups():
            np.multiply(self._planes[planes], factor, out=self.tensor[0, planes],
                        casting='same_kind')
            if offset:
                self.tensor[0, planes] += offset

    def _groups(self):
        """Yield (channels, factor, offset), all three at once where they are alike."""
        factors, offsets = self._factors, self._offsets
        if (factors == factors[0]).all() and (offsets == offsets[0]).all():
            yield slice(0, 3), factors[0], offsets[0]
        else:
            for channel in range(3):
                yield slice(channel, channel + 1), factors[channel], offsets[channel]
