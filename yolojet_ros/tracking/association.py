"""Which detection belongs to which track: overlapping pairs and the best assignment."""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np
from scipy.optimize import linear_sum_assignment

_LEAST_OFFSETS = 4
_LEAST_SPREAD = 0.02  # of a box size
_STANDARD_ERRORS = 3.0
_DEVIATION = 1.4826  # standard deviation of a normal distribution / its median deviation


def overlapping_pairs(a: np.ndarray, b: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Return the indices (of a, of b) of all pairs of boxes float64[4, n], [4, m] that touch."""
    touch = a[:2, :, None] < b[2:, None, :]
    touch &= a[2:, :, None] > b[:2, None, :]
    return (touch[0] & touch[1]).nonzero()


def pair_overlap(a: np.ndarray, b: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """
    Return the IoU and the height overlap of boxes float64[4, k] with boxes float64[4, k].

    The height overlap is the IoU of the vertical extents. As people stand on one
    ground plane, it tells near from far where boxes overlap (Yang et al., Hybrid-SORT, 2024).
    """
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    common = np.maximum(high - low, 0.0)
    size_a, size_b = a[2:] - a[:2], b[2:] - b[:2]
    for size in (common, size_a, size_b):
        size[0] *= size[1]  # now the area and the height
    iou, height = common / (size_a + size_b - common)
    return iou, height


def common_shift(offsets: np.ndarray, sizes: np.ndarray) -> Optional[np.ndarray]:
    """
    Return the median of offsets float64[2, n] as [2, 1] if it is significant, else None.

    It is when it exceeds three standard errors, with the spread taken from the
    median absolute deviation and never below 2 % of the median of `sizes`
    float64[2, n]. Fewer than four offsets tell nothing.
    """
    count = offsets.shape[1]
    if count < _LEAST_OFFSETS:
        return None
    shift = _median(offsets)
    spread = _LEAST_SPREAD * _median(sizes)
    excess = np.abs(shift) * (count ** 0.5 / _STANDARD_ERRORS) - spread
    if not np.count_nonzero(excess > 0):
        return None
    excess -= _DEVIATION * _median(np.abs(offsets - shift))
    return shift if np.count_nonzero(excess > 0) else None


def _median(rows: np.ndarray) -> np.ndarray:
    """Return the (upper) median of each row, [k, 1]; much faster than np.median when short."""
    middle = rows.shape[1] // 2
    return np.sort(rows, axis=1)[:, middle:middle + 1]


def assign(rows: np.ndarray, columns: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """
    Choose pairs so that each row and column is used once and the sum of gains is greatest.

    Pairs that have no rival are taken directly; only the rest goes to the
    assignment solver (Crouse, 2016, in SciPy).

    :param rows: int64[k], row of each candidate pair.
    :param columns: int64[k], column of each candidate pair.
    :param gain: float64[k], > 0.
    :return: int64[m], indices of the chosen pairs.
    """
    row_count, column_count = np.bincount(rows), np.bincount(columns)
    if np.count_nonzero(row_count) == np.count_nonzero(column_count) == len(rows):
        return np.arange(len(rows))
    alone = (row_count[rows] == 1) & (column_count[columns] == 1)
    rest = (~alone).nonzero()[0]
    r, height = _compress(rows[rest], row_count)
    c, width = _compress(columns[rest], column_count)
    table = np.zeros((height, width))
    index = np.full((height, width), -1)
    table[r, c] = gain[rest]
    index[r, c] = rest
    solved = index[linear_sum_assignment(table, maximize=True)]
    return np.concatenate((alone.nonzero()[0], solved[solved >= 0]))


def _compress(values: np.ndarray, scratch: np.ndarray) -> Tuple[np.ndarray, int]:
    """Number the distinct `values` 0..m-1; `scratch` int64[> max(values)] is overwritten."""
    scratch[:] = 0
    scratch[values] = 1
    distinct = scratch.nonzero()[0]
    scratch[distinct] = np.arange(len(distinct))
    return scratch[values], len(distinct)
