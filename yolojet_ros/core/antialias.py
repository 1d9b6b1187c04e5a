"""
Antialiased bilinear resize: every pixel that shrinks into one counts, in a triangle around it.

What Pillow does with BILINEAR, and so torchvision's Resize of a picture: classifiers and DETRs
are trained on images that were made smaller so. 22-bit fixed-point weights, 8 bits between the
axes: the same bytes, up to one step for tall images of Pillow 13, which begins with their rows.
"""

from __future__ import annotations

from typing import NamedTuple, Tuple

import cv2
import numpy as np

WEIGHT_BITS = 22
_CACHED = 1 << 15


class Taps(NamedTuple):
    """
    Which source pixels along one axis make a target pixel.

    first: int32[n], the first of them
    weights: int32[k, n], of the first and those behind it; 0 where there is none
    """

    first: np.ndarray
    weights: np.ndarray


def taps(source: int, target: int) -> Taps:
    """Return the taps of `target` pixels that `source` pixels become along one axis."""
    scale = source / target
    reach = max(scale, 1.0)
    center = (np.arange(target) + 0.5) * scale
    first = np.maximum((center - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((center + reach + 0.5).astype(np.int64), source)
    pixels = first + np.arange((last - first).max())[:, None]
    weights = np.maximum(1 - np.abs((pixels - center + 0.5) / reach), 0) * (pixels < last)
    weights /= weights.sum(axis=0)
    return Taps(first.astype(np.int32),
                (weights * (1 << WEIGHT_BITS) + 0.5).astype(np.int32))


class Antialias:
    """
    Resize images of one size, reusing its buffers.

    :param source: (width, height) of the images
    :param resized: (width, height) they become
    :param window: (left, top, width, height) of the part of that which is wanted
    """

    def __init__(
        self, source: Tuple[int, int], resized: Tuple[int, int], window: Tuple[int, int, int, int],
    ) -> None:
        left, top, width, height = window
        columns, rows = taps(source[0], resized[0]), taps(source[1], resized[1])
        columns = Taps(*(part[..., left:left + width] for part in columns))
        rows = Taps(*(part[..., top:top + height] for part in rows))
        start = int(rows.first[0])
        stop = min(int(rows.first[-1]) + len(rows.weights), source[1])
        self._used = slice(start, stop)
        self._columns = _Rows(columns, stop - start)
        self._rows = _Rows(Taps(rows.first - start, rows.weights), width)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the window, uint8[height, width, 3], of an image; the next call overwrites it."""
        turned = self._columns(cv2.transpose(image[self._used]))
        return self._rows(cv2.transpose(turned))


class _Rows:
    """Weighted sums of rows, which are copied faster than columns."""

    def __init__(self, taps_: Taps, width: int) -> None:
        count = taps_.weights.shape[1]
        self._found = np.empty((count, width, 3), np.uint8)
        # So many rows at once stay in the processor's cache.
        step = max(_CACHED // (width * 3), 1)
        self._parts = [(slice(start, start + step),
                        taps_.first[start:start + step] + np.arange(len(taps_.weights))[:, None],
                        taps_.weights[:, start:start + step, None, None])
                       for start in range(0, count, step)]
        shape = (min(step, count), width, 3)
        self._sum, self._product = np.empty(shape, np.int32), np.empty(shape, np.int32)
        self._pixels = np.empty(shape, np.uint8)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        for part, indices, weights in self._parts:
            count = indices.shape[1]
            sums, product = self._sum[:count], self._product[:count]
            pixels = self._pixels[:count]
            sums.fill(1 << WEIGHT_BITS - 1)
            for rows, weight in zip(indices, weights):
                np.take(image, rows, axis=0, out=pixels, mode='clip')
                np.multiply(pixels, weight, out=product)
                np.add(sums, product, out=sums)
            np.right_shift(sums, WEIGHT_BITS, out=sums)
            np.copyto(self._found[part], sums, casting='unsafe')
        return self._found
