"""
Tell from a few hundred bytes of an image that the camera has not moved.

Around corners of the background one step of Lucas and Kanade (IJCAI 1981) is taken, whose
matrices are made beforehand from the image that is compared with (the inverse composition of
Baker and Matthews, IJCV 2004). It finds small shifts; after a larger one nothing is alike.
"""

from __future__ import annotations

from typing import Optional

import numpy as np

from yolojet_ros.core.image_formats import ImageView

_TAPS = 6  # along a side of a patch
_PATCHES = 8  # in each quarter of the image
_LEAST_PATCHES = 3
_LEAST_LIKENESS = 0.4  # 1 is the same, 0 has nothing to do with it
_LEAST_CONTRAST = 1.0  # gray levels of a patch, root mean square


class Stillness:
    """
    Compare images of a camera with one of them.

    :param view: the image to compare with; checked
    :param corners: float32[n, 2], x, y in px: places of the background with structure
    :param shift: px, of a quarter of the image, that are a motion
    :param step: px between two samples of a patch, an even number, so that those of a mosaic
        have one colour; shifts up to about this are measured, larger ones noticed
    """

    def __init__(self, view: ImageView, corners: np.ndarray, shift: float, step: int) -> None:
        self._layout = _layout(view)
        self._places: Optional[np.ndarray] = None  # of the samples in the bytes, [q, k, t]
        chosen = _in_quarters(corners, view, step)
        if not len(chosen):
            return
        reach = (np.arange(_TAPS + 2) - (_TAPS + 1) // 2) * step
        x = chosen[..., 0, None, None] + reach
        y = chosen[..., 1, None, None] + reach[:, None]
        places = view.places(x, y)
        samples = view.data[places].astype(np.float32)
        along = (samples[..., 1:-1, 2:] - samples[..., 1:-1, :-2]) / (2 * step)
        down = (samples[..., 2:, 1:-1] - samples[..., :-2, 1:-1]) / (2 * step)
        slopes = _centred(np.stack((along, down), 2).reshape(*chosen.shape, -1))
        patch = _centred(_flat(samples[..., 1:-1, 1:-1]))
        energy = (patch ** 2).sum(-1)
        if np.median(energy) < (_LEAST_CONTRAST * _TAPS) ** 2:
            return
        # A patch of one edge only says nothing along it; the small addend keeps that at nothing.
        square = slopes @ slopes.swapaxes(-1, -2) + np.eye(2, dtype=np.float32) * 1e-2
        shifts = np.linalg.solve(square, slopes) / shift
        likeness = patch / np.maximum(energy, 1e-6)[..., None] / (1 - _LEAST_LIKENESS)
        # What a patch is multiplied by to tell its shift, and how much it is alike, in such units
        # that beyond 1 it is no more the same. One product, as this runs between larger things,
        # which leave each further step nothing of itself in the cache.
        self._factors = np.concatenate((shifts, likeness[:, :, None]), 2).astype(np.float32)
        self._same = (self._factors @ patch[..., None])[..., 0]
        self._places = np.ascontiguousarray(_flat(places[..., 1:-1, 1:-1]))

    def holds(self, view: ImageView) -> bool:
        """Return whether the camera stands as it did; False where that cannot be said."""
        if self._places is None or _layout(view) != self._layout:
            return False
        patch = view.data.take(self._places).astype(np.float32)
        found = (self._factors * patch[:, :, None]).sum(-1)
        found -= self._same
        # Objects may pass in front of less than half of a quarter: the median of its patches.
        found.sort(1)
        return bool(np.abs(found[:, _PATCHES // 2]).max() < 1)


def _layout(view: ImageView) -> tuple:
    return (view.width, view.height, view.step, view.encoding, view.big_endian, view.data.size)


def _in_quarters(corners: np.ndarray, view: ImageView, step: int) -> np.ndarray:
    """Return int64[q, k, 2], k corners in each quarter of the image that has enough of them."""
    margin = step * (_TAPS // 2 + 1)
    x, y = corners.T.astype(np.int64)
    inside = ((x >= margin) & (x < view.width - margin)
              & (y >= margin) & (y < view.height - margin))
    quarter = 2 * (2 * y >= view.height) + (2 * x >= view.width)
    found = [(inside & (quarter == index)).nonzero()[0] for index in range(4)]
    # Every so many, for they go row by row; where there are fewer, some count twice.
    chosen = [each[np.arange(_PATCHES) * len(each) // _PATCHES] for each in found
              if len(each) >= _LEAST_PATCHES]
    return np.stack((x, y), -1)[np.array(chosen, np.int64).reshape(-1, _PATCHES)]


def _flat(patches: np.ndarray) -> np.ndarray:
    return patches.reshape(*patches.shape[:-2], -1)


def _centred(samples: np.ndarray) -> np.ndarray:
    """Take the mean of each patch off it, so that the light may change."""
    return samples - samples.mean(-1, keepdims=True)

