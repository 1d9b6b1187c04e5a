"""
Instance masks from prototypes: which pixels of an image belong to which detection.

A mask is where the detection's coefficients times the prototypes exceed 0 (a sigmoid of 0.5),
cropped to its box (Bolya et al., YOLACT, ICCV 2019). The products are interpolated bilinearly
to the pixels of the image, so an edge is as smooth as the prototypes allow. Prototypes that lie in
the padding say nothing of the image: at its border the last ones inside count alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Iterator, Tuple

import numpy as np

from yolojet_ros.core.letterbox import Letterbox


class Masks(ABC):
    """The masks of one image's detections, in their order."""

    @abstractmethod
    def __getitem__(self, index: np.ndarray) -> Masks:
        """Return the masks of the detections that an index array chooses."""

    @abstractmethod
    def labels(self) -> np.ndarray:
        """
        Return uint16[height, width] of the image: 1 + index of a pixel's detection, 0 for none.

        Where masks overlap, the better detection (the earlier one) is on top.
        """

    @abstractmethod
    def each(self) -> Iterator[np.ndarray]:
        """Yield bool[height, width] of the image for every detection, whole where known."""


class PrototypeMasks(Masks):
    """
    Masks that are computed when they are asked for.

    :param coefficients: float32[n, m]
    :param prototypes: float32[m, h, w], over the whole network input
    :param boxes: float32[n, 4], x1, y1, x2, y2 in network pixels
    :param letterbox: how the image lies in the network input
    """

    def __init__(
        self, coefficients: np.ndarray, prototypes: np.ndarray, boxes: np.ndarray,
        letterbox: Letterbox,
    ) -> None:
        self._coefficients = coefficients
        self._prototypes = prototypes
        self._boxes = boxes
        self._letterbox = letterbox

    def __getitem__(self, index: np.ndarray) -> PrototypeMasks:
        return PrototypeMasks(
            self._coefficients[index], self._prototypes, self._boxes[index], self._letterbox)

    def labels(self) -> np.ndarray:
        width, height = self._letterbox.source
        image = np.zeros((height, width), np.uint16)
        for index in reversed(range(len(self._boxes))):
            (left, top), mask = self._cropped(index)
            part = image[top:top + mask.shape[0], left:left + mask.shape[1]]
            part[mask] = index + 1
        return image

    def each(self) -> Iterator[np.ndarray]:
        width, height = self._letterbox.source
        for index in range(len(self._boxes)):
            image = np.zeros((height, width), bool)
            (left, top), mask = self._cropped(index)
            image[top:top + mask.shape[0], left:left + mask.shape[1]] = mask
            yield image

    def _cropped(self, index: int) -> Tuple[Tuple[int, int], np.ndarray]:
        """Return ((left, top), bool[h, w]): a mask within its box, in image pixels."""
        x1, y1, x2, y2 = self._letterbox.inverse_clipped(self._boxes[index:index + 1])[0]
        # A pixel belongs to the box if its index does, as in the published implementations.
        left, right = int(np.ceil(x1)), int(np.ceil(x2))
        top, bottom = int(np.ceil(y1)), int(np.ceil(y2))
        if right <= left or bottom <= top:
            return (left, top), np.zeros((0, 0), bool)
        _, height, width = self._prototypes.shape
        columns = self._taps(left, right, 0, width)
        rows = self._taps(top, bottom, 1, height)
        used = (slice(rows[0].min(), rows[1].max() + 1),
                slice(columns[0].min(), columns[1].max() + 1))
        products = np.tensordot(
            self._coefficients[index], self._prototypes[:, used[0], used[1]], axes=1)
        return (left, top), _interpolate(
            products, [tap - used[0].start for tap in rows[:2]], rows[2],
            [tap - used[1].start for tap in columns[:2]], columns[2]) > 0

    def _taps(self, first: int, last: int, axis: int, size: int):
        """Return the two prototype indices, and the second's weight, of image pixels."""
        letterbox = self._letterbox
        centres = np.arange(first, last, dtype=np.float32) + np.float32(0.5)
        network = centres * np.float32(letterbox.scale[axis]) + np.float32(letterbox.offset[axis])
        cells = np.float32(size / letterbox.network[axis])
        begin = np.float32(letterbox.offset[axis])
        end = begin + np.float32(letterbox.source[axis]) * np.float32(letterbox.scale[axis])
        first_cell = np.clip(begin * cells, np.float32(0), np.float32(size - 1))
        last_cell = np.clip(end * cells - np.float32(1), first_cell, np.float32(size - 1))
        position = np.clip(network * cells - np.float32(0.5), first_cell, last_cell)
        low = np.floor(position).astype(np.int64)
        return low, np.minimum(low + 1, size - 1), position - low.astype(np.float32)


class LabelImage(Masks):
    """
    Masks that lie side by side in one image already, as a GPU gives them.

    :param image: uint16[height, width]: 1 + index of the detection, 0 for none
    :param count: how many detections there are
    """

    def __init__(self, image: np.ndarray, count: int) -> None:
        self._image = image
        self._indices = np.arange(count)

    def __getitem__(self, index: np.ndarray) -> LabelImage:
        chosen = LabelImage(self._image, 0)
        chosen._indices = self._indices[index]
        return chosen

    def labels(self) -> np.ndarray:
        renumbered = np.zeros(max(int(self._image.max(initial=0)), 0) + 1, np.uint16)
        inside = self._indices < len(renumbered) - 1
        renumbered[1 + self._indices[inside]] = 1 + np.flatnonzero(inside)
        return np.take(renumbered, self._image)

    def each(self) -> Iterator[np.ndarray]:
        for index in self._indices:
            yield self._image == index + 1


def _interpolate(values: np.ndarray, rows, row_weight, columns, column_weight) -> np.ndarray:
    """Return values [h, w] at rows and columns between their entries, bilinearly."""
    upper, lower = values[rows[0]], values[rows[1]]
    lines = upper + (lower - upper) * row_weight[:, None]
    left, right = lines[:, columns[0]], lines[:, columns[1]]
    return left + (right - left) * column_weight
