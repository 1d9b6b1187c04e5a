"""
A constant-velocity Kalman filter for many boxes at once, in closed form.

With the state (x, y, w, h) and their velocities, and noise that does not couple
the four coordinates, the filter of Kalman (1960) falls apart into four
independent filters of two states each. Their covariances are three numbers
(position, cross, velocity), so predict and correct are a few array operations
for all tracks together and no matrix is ever inverted.

A filter block is float64[20, n]: mean, velocity, and the three covariance
terms, four rows each, one column per track. Time is in seconds, so velocity is in px/s.
"""

from __future__ import annotations

import numpy as np

BLOCK = 20
MEAN, VELOCITY = slice(0, 4), slice(4, 8)
VAR_POSITION, COVARIANCE, VAR_VELOCITY = slice(8, 12), slice(12, 16), slice(16, 20)
_START_VELOCITY = 2.0  # standard deviation of an unknown velocity, box sizes per second


def start(block: np.ndarray, mean: np.ndarray, measurement_noise: float) -> None:
    """Write new filters at `mean` float64[4, n] (x, y, w, h) into `block` float64[20, n]."""
    variance = np.square(mean[2:])
    block[MEAN] = mean
    block[VELOCITY] = 0.0
    block[COVARIANCE] = 0.0
    for half in (0, 2):
        block[8 + half:10 + half] = variance * (2 * measurement_noise) ** 2
        block[16 + half:18 + half] = variance * _START_VELOCITY ** 2


def predict(
        block: np.ndarray, dt: float, position_noise: float, velocity_noise: float) -> None:
    """Move all filters of `block` float64[20, n] ahead by `dt` seconds, in place."""
    mean, velocity_var, covariance = block[MEAN], block[VAR_VELOCITY], block[COVARIANCE]
    position_var, size = block[VAR_POSITION], mean[2:]
    variance = size * size * dt
    mean += block[VELOCITY] * dt
    np.maximum(size, 1.0, out=size)
    growth = velocity_var * dt
    position_var += (covariance + covariance + growth) * dt
    covariance += growth
    _halves(position_var)[...] += variance * position_noise ** 2
    _halves(velocity_var)[...] += variance * velocity_noise ** 2


def correct(block: np.ndarray, measured: np.ndarray, noise: np.ndarray) -> None:
    """
    Correct the filters of `block` float64[20, n] by one measurement each, in place.

    :param measured: float64[4, n], x, y, w, h in px.
    :param noise: float64[n], standard deviation of the measurement in box sizes.
    """
    moments = block[0:8].reshape(2, 4, -1)  # position, velocity
    covariances = block[8:16].reshape(2, 4, -1)  # of the position with itself and the velocity
    velocity_var, size = block[VAR_VELOCITY], block[2:4]
    spread = np.square(size * noise)
    total = (_halves(block[VAR_POSITION]) + spread).reshape(4, -1)
    gain = covariances / total
    moments += gain * (measured - block[MEAN])
    velocity_var -= gain[1] * covariances[1]
    covariances -= gain[0] * covariances
    np.maximum(size, 1.0, out=size)


def warp(block: np.ndarray, matrix: np.ndarray) -> None:
    """Move all filters of `block` float64[20, n] by an affine `matrix` float64[2, 3], in place."""
    linear, scale = matrix[:, :2], affine_scale(matrix)
    block[0:2] = linear @ block[0:2] + matrix[:, 2:]
    block[4:6] = linear @ block[4:6]
    block[2:4] *= scale
    block[6:8] *= scale
    block[8:20] *= scale * scale


def _halves(rows: np.ndarray) -> np.ndarray:
    """Return a view [2, 2, n] of rows [4, n]: what belongs to x, y and to w, h."""
    return rows.reshape(2, 2, -1)


def affine_scale(matrix: np.ndarray) -> float:
    """Return the mean scale of an affine float64[2, 3]."""
    return abs(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]) ** 0.5
