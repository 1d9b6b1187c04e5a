"""
How the camera moved between two images, from sparse optical flow.

Corners of the background (Shi and Tomasi, CVPR 1994) are followed into the next
image (Lucas and Kanade with pyramids, Bouguet 2000) and a rotation, scale and
shift is fitted to them with RANSAC (Fischler and Bolles, 1981). Detected objects
are masked out, as they move on their own.
"""

from __future__ import annotations

from typing import Optional, Tuple

import cv2
import numpy as np

from yolojet_ros.core.errors import UserError

MODES = ('off', 'auto', 'flow')

_LONG_SIDE = 320  # px of the working image
_CELL = 32  # px; one corner is kept per cell, so that the whole image has its say
_LEAST_STRENGTH = 3e-5  # smallest eigenvalue of the gradients; flat walls and noise are below
_LEAST_CORNERS = 12
_LEAST_AGREEMENT = 0.4  # inliers among the corners followed
_RANSAC_REACH = 1.0  # px of the working image
_STILL = 0.3  # px of the working image at its corners
_STILL_FRAMES = 15  # still frames in a row after which a camera is taken for static
_GLANCE_EVERY = 5  # frames between two looks at a static camera
_WINDOW, _LEVELS = (15, 15), 3


class CameraMotion:
    """
    Estimate the affine that carries the previous image onto this one.

    :param mode: 'off' never estimates; 'flow' does so on every frame; 'auto' rests while
        the camera stands still, and looks every few frames whether it still does.
    :raises UserError: if the mode is another one.

    >>> motion = CameraMotion('auto')
    >>> warp = motion.estimate(image, boxes)    # then tracker.update(..., warp=warp)
    """

    def __init__(self, mode: str = 'auto') -> None:
        if mode not in MODES:
            raise UserError(f'camera motion mode is {mode!r}; set one of {", ".join(MODES)}')
        self._mode: str = mode
        self._shape: Optional[Tuple[int, ...]] = None
        self._previous: Optional[np.ndarray] = None
        self._corners: np.ndarray = np.zeros((0, 2), np.float32)
        self._still_count: int = 0
        self._rested: int = 0

    @property
    def static(self) -> bool:
        """Return whether the camera has stood still for a while."""
        return self._still_count >= _STILL_FRAMES

    def reset(self) -> None:
        """Forget the previous image."""
        self._shape = self._previous = None
        self._still_count = self._rested = 0

    def estimate(self, image: np.ndarray, boxes: np.ndarray) -> Optional[np.ndarray]:
        """
        Return the motion since the last image whose motion was told, or since the first.

        None stands for no motion to be told: the first image, one of another size, too
        few corners, no agreement among them, or (mode 'auto') a camera that stands still.

        :param image: uint8[H, W] gray or uint8[H, W, 3] BGR.
        :param boxes: float[n, 4], x1, y1, x2, y2 in px, the objects detected in `image`.
        :return: float64[2, 3], affine in px of `image`, or None.
        """
        if self._mode == 'off':
            return None
        if image.shape != self._shape:
            self.reset()
            self._shape = image.shape
        if self._mode == 'auto' and self.static:
            self._rested += 1
            if self._rested < _GLANCE_EVERY:
                return None
            self._rested = 0
        small = _small_gray(image)
        scale = np.array(
            [small.shape[1] / image.shape[1], small.shape[0] / image.shape[0]], np.float32)
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4) * np.tile(scale, 2)
        warp = None
        if self._previous is not None and len(self._corners) >= _LEAST_CORNERS:
            warp = self._fit(small, boxes)
        still = warp is not None and _largest_shift(warp, small.shape) < _STILL
        self._still_count = self._still_count + 1 if still else 0
        if still and self._mode == 'auto':
            return None  # the old image stays the reference, so that a slow drift adds up
        self._previous = small
        self._corners = _outside(_spread_corners(small), boxes)
        return None if warp is None else _in_image_pixels(warp, scale)

    def _fit(self, gray: np.ndarray, boxes: np.ndarray) -> Optional[np.ndarray]:
        """Return the affine, in px of the working image, that most corners agree on."""
        moved, status, _ = cv2.calcOpticalFlowPyrLK(
            self._previous, gray, self._corners, None, winSize=_WINDOW, maxLevel=_LEVELS,
            criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03))
        followed = (status[:, 0] == 1) & ~_inside(moved, boxes)
        before, after = self._corners[followed], moved[followed]
        if len(before) < _LEAST_CORNERS:
            return None
        warp, inliers = cv2.estimateAffinePartial2D(
            before, after, method=cv2.RANSAC, ransacReprojThreshold=_RANSAC_REACH,
            maxIters=200, confidence=0.99, refineIters=5)
        if warp is None or inliers.sum() < _LEAST_AGREEMENT * len(before):
            return None
        return warp


def _spread_corners(gray: np.ndarray) -> np.ndarray:
    """Return the best corner of each cell that has one, float32[n, 2] (x, y)."""
    rows, columns = gray.shape[0] // _CELL, gray.shape[1] // _CELL
    if rows * columns < _LEAST_CORNERS:
        return np.zeros((0, 2), np.float32)
    area = np.ascontiguousarray(gray[:rows * _CELL, :columns * _CELL])
    strength = cv2.cornerMinEigenVal(area, 3)
    cells = strength.reshape(rows, _CELL, columns, _CELL).swapaxes(1, 2).reshape(-1, _CELL ** 2)
    best = cells.argmax(1)
    place = np.arange(len(cells))
    x = place % columns * _CELL + best % _CELL
    y = place // columns * _CELL + best // _CELL
    points = np.stack((x, y), 1).astype(np.float32)
    return points[cells[place, best] > _LEAST_STRENGTH]


def _small_gray(image: np.ndarray) -> np.ndarray:
    """Return a gray image of at most 320 px on its long side."""
    factor = min(1.0, _LONG_SIDE / max(image.shape[:2]))
    width, height = (max(1, round(side * factor)) for side in image.shape[1::-1])
    if factor < 0.5:  # averaging four pixels is smooth enough and does not read all the others
        image = cv2.resize(image, (2 * width, 2 * height), interpolation=cv2.INTER_NEAREST)
    if factor < 1.0:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def _inside(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return bool[n], whether each point float32[n, 2] lies in any of the boxes."""
    hit = ((points[:, None] >= boxes[None, :, :2]) & (points[:, None] <= boxes[None, :, 2:]))
    return hit.all(2).any(1)


def _outside(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    return points[~_inside(points, boxes)]


def _largest_shift(warp: np.ndarray, shape: Tuple[int, ...]) -> float:
    """Return how far the affine moves the image corner that it moves most, px."""
    height, width = shape[:2]
    corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]], np.float64)
    return float(np.abs(warp @ corners - corners[:2]).max())


def _in_image_pixels(warp: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return an affine between pixel indices of the working image in px of the full image."""
    # Boxes count from the edge of the first pixel, optical flow from its centre.
    result = warp.copy()
    result[:, 2] += 0.5 - warp[:, :2] @ (0.5, 0.5)
    result[:, :2] *= scale[None, :].astype(np.float64) / scale[:, None]
    result[:, 2] /= scale
    return result
