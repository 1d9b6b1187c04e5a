"""
How the camera moved between two images, from sparse optical flow.

Corners of the background (Shi and Tomasi, CVPR 1994) are followed into the next
image (Lucas and Kanade with pyramids, Bouguet 2000) and a rotation, scale and
shift is fitted to them with RANSAC (Fischler and Bolles, 1981). Detected objects
are masked out, as they move on their own.

An image is looked at before its objects are known, while the network runs: the
corners were chosen in the image before it, whose objects are.
"""

from __future__ import annotations

from typing import Optional, Tuple

import cv2
import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.tracking.stillness import Stillness

MODES = ('off', 'auto', 'flow')

_LONG_SIDE = 320  # px of the working image, about
_CELL = 32  # px; one corner is sought per cell, so that the whole image has its say
_SHARE = 5  # of the rows of cells; one in so many gets new corners at a time
_FAITHFUL = 0.9  # share of the corners followed with which every other image needs no new ones
_LEAST_STRENGTH = 3e-5  # smallest eigenvalue of the gradients; flat walls and noise are below
_LEAST_CORNERS = 12
_LEAST_AGREEMENT = 0.4  # inliers among the corners followed
_RANSAC_REACH = 1.0  # px of the working image
_STILL = 0.3  # px of the working image at its corners
_STILL_FRAMES = 15  # still frames in a row after which a camera is taken for static
_LOOK_EVERY = 60  # frames between two whole looks at a static camera
_PAUSE = 4  # frames after a glance at a static camera that are taken for still
_WINDOW, _LEVELS = (11, 11), 3
_STOP = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.1)
_NOTHING = np.zeros((0, 4), np.float32)


class CameraMotion:
    """
    Estimate the affine that carries the previous image onto this one.

    :param mode: 'off' never estimates; 'flow' does so on every frame; 'auto' rests while
        the camera stands still, and only makes sure that it still does.
    :raises UserError: if the mode is another one.

    >>> motion = CameraMotion('auto')
    >>> warp = motion.look(view)    # then tracker.update(..., warp=warp)
    >>> motion.mask(boxes)          # what was detected in it
    """

    def __init__(self, mode: str = 'auto') -> None:
        if mode not in MODES:
            raise UserError(f'camera motion mode is {mode!r}; set one of {", ".join(MODES)}')
        self._mode: str = mode
        self.reset()

    @property
    def static(self) -> bool:
        """Return whether the camera has stood still for a while."""
        return self._still_count >= _STILL_FRAMES

    @property
    def resting(self) -> bool:
        """Return whether the next `look` is short, unless it finds that the camera moves."""
        return self._mode == 'off' or (
            self._mode == 'auto' and self.static and self._rested < _LOOK_EVERY)

    def reset(self) -> None:
        """Forget the previous image."""
        self._size: Tuple[int, int] = (0, 0)
        self._previous: Optional[np.ndarray] = None
        self._corners: np.ndarray = np.zeros((0, 2), np.float32)
        self._new: bool = False  # whether `mask` was not told of the objects around the corners
        self._objects: np.ndarray = _NOTHING
        self._row: int = 0  # of cells, the next to get new corners
        self._spared: bool = False  # whether the latest image got none
        self._still_count: int = 0
        self._stillness: Optional[Stillness] = None  # of the latest image that was looked at
        self._rested: int = 0  # images since then
        self._trusted: int = 0  # of the images to come, those that are taken for still

    def look(self, view: ImageView) -> Optional[np.ndarray]:
        """
        Return the motion since the last image whose motion was told, or since the first.

        None stands for no motion to be told: the first image, one of another size, too
        few corners, no agreement among them, or (mode 'auto') a camera that stands still.

        :return: float64[2, 3], affine in px of the image, or None.
        :raises ImageError: if the image cannot be used.
        """
        if (view.width, view.height) != self._size:
            self.reset()
            self._size = (view.width, view.height)
        if self.resting and self._rests(view):
            self._rested += 1
            return None
        reduction = _reduction(*self._size)
        if min(self._size) < reduction:
            return None
        gray = view.gray(reduction)
        background = self._background(reduction)
        warp, followed = self._fit(gray, background)
        still = warp is not None and _largest_shift(warp, gray.shape) < _STILL
        self._still_count = self._still_count + 1 if still else 0
        if still and self._mode == 'auto':
            if self.static:
                self._trusted, self._rested = _PAUSE, 0
                self._stillness = Stillness(
                    view, (background + 0.5) * reduction, _STILL * reduction,
                    max(2 * round(reduction / 4), 2))
            return None  # the old image stays the reference, so that a slow drift adds up
        self._previous, self._new, self._stillness = gray, True, None
        self._corners = self._renewed(gray, followed)
        return None if warp is None else _in_image_pixels(warp, reduction)

    def _rests(self, view: ImageView) -> bool:
        """Return whether the camera stands as far as a glance can tell."""
        if self._mode == 'off' or self._trusted:
            self._trusted = max(self._trusted - 1, 0)
            return True
        self._trusted = _PAUSE
        return self._stillness is not None and self._stillness.holds(view)

    def _background(self, reduction: int) -> np.ndarray:
        """Return the corners that no object covers."""
        return self._corners[~_inside(self._corners, self._objects / np.float32(reduction))]

    def mask(self, boxes: np.ndarray) -> None:
        """
        Take the objects of the latest image that they are known of out of the next looks.

        :param boxes: float[n, 4], x1, y1, x2, y2 in px.
        """
        self._objects = np.asarray(boxes, np.float32).reshape(-1, 4)

    def _fit(
        self, gray: np.ndarray, corners: np.ndarray,
    ) -> Tuple[Optional[np.ndarray], Optional[np.ndarray]]:
        """Return the affine that most corners agree on, and where these are now; or None."""
        if self._new:  # of the reference; where an object stands later its corners hide only
            self._corners, self._new = corners, False
        if self._previous is None or len(corners) < _LEAST_CORNERS:
            return None, None
        moved, status, _ = cv2.calcOpticalFlowPyrLK(
            self._previous, gray, corners, None, winSize=_WINDOW, maxLevel=_LEVELS,
            criteria=_STOP)
        found = status[:, 0] == 1
        before, after = corners[found], moved[found]
        if len(before) < _LEAST_CORNERS:
            return None, None
        warp, inliers = cv2.estimateAffinePartial2D(
            before, after, method=cv2.RANSAC, ransacReprojThreshold=_RANSAC_REACH,
            maxIters=200, confidence=0.99, refineIters=0)
        if warp is None or np.count_nonzero(inliers) < _LEAST_AGREEMENT * len(before):
            return None, None
        agree = inliers[:, 0] == 1
        before, after = before[agree], after[agree]
        return _similarity(before, after), after

    def _renewed(self, gray: np.ndarray, followed: Optional[np.ndarray]) -> np.ndarray:
        """Return the corners to follow from `gray` on: new ones in some rows of cells."""
        rows = gray.shape[0] // _CELL
        if followed is None or len(followed) < len(self._corners) // 2:
            return _spread_corners(gray, 0, rows)
        x, y = followed.T
        kept = (x >= 0) & (y >= 0) & (x < gray.shape[1]) & (y < gray.shape[0])
        self._spared = not self._spared and len(followed) > _FAITHFUL * len(self._corners)
        if self._spared:
            return followed[kept]
        first = self._row if self._row < rows else 0
        self._row = last = min(first - (-rows // _SHARE), rows)
        kept &= (y < first * _CELL) | (y >= last * _CELL)
        return np.concatenate((followed[kept], _spread_corners(gray, first, last)))


def _reduction(width: int, height: int) -> int:
    """Return by how much an image is reduced to work on it, 1 or an even number."""
    side = max(width, height)
    return 1 if side < 1.5 * _LONG_SIDE else max(2 * round(side / (2 * _LONG_SIDE)), 2)


def _spread_corners(gray: np.ndarray, first: int, last: int) -> np.ndarray:
    """Return the best corner of each cell of rows first..last - 1, float32[n, 2] (x, y)."""
    rows, columns = last - first, gray.shape[1] // _CELL
    if rows * columns == 0:
        return np.zeros((0, 2), np.float32)
    above = min(first * _CELL, 3)  # px that the filters see beyond
    area = gray[first * _CELL - above:last * _CELL + 3]
    strength = cv2.cornerMinEigenVal(area, 3)[above:above + rows * _CELL, :columns * _CELL]
    cells = strength.reshape(rows, _CELL, columns, _CELL).swapaxes(1, 2).reshape(-1, _CELL ** 2)
    best = cells.argmax(1)
    place = np.arange(len(cells))
    x = place % columns * _CELL + best % _CELL
    y = (place // columns + first) * _CELL + best // _CELL
    points = np.stack((x, y), 1).astype(np.float32)
    return points[cells[place, best] > _LEAST_STRENGTH]


def _similarity(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the rotation, scale and shift with the least squares, float64[2, 3]."""
    x, y = (points.astype(np.float64).view(np.complex128)[:, 0] for points in (before, after))
    centre, target = x.mean(), y.mean()
    x -= centre
    y -= target
    turn = np.vdot(x, y) / max(np.vdot(x, x).real, 1e-9)
    shift = target - turn * centre
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def _inside(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return bool[n], whether each point float32[n, 2] lies in any of the boxes."""
    hit = ((points[:, None] >= boxes[None, :, :2]) & (points[:, None] <= boxes[None, :, 2:]))
    return hit.all(2).any(1)


def _largest_shift(warp: np.ndarray, shape: Tuple[int, ...]) -> float:
    """Return how far the affine moves the image corner that it moves most, px."""
    height, width = shape[:2]
    (a, b, x), (c, d, y) = warp.tolist()  # plain numbers are quicker than small arrays
    return max(max(abs((a - 1) * u + b * v + x), abs(c * u + (d - 1) * v + y))
               for u in (0, width) for v in (0, height))


def _in_image_pixels(warp: np.ndarray, reduction: int) -> np.ndarray:
    """Return an affine between pixel indices of the working image in px of the full image."""
    # Boxes count from the edge of the first pixel, optical flow from its centre.
    (a, b, x), (c, d, y) = warp.tolist()
    return np.array([[a, b, (x + 0.5 * (1 - a - b)) * reduction],
                     [c, d, (y + 0.5 * (1 - c - d)) * reduction]])
