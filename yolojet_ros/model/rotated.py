"""
Rotated boxes in PyTorch: overlap that has a gradient, and geometry for the assignment.

A box is cx, cy, w, h and an angle in radians, positive clockwise on the screen (y points
down). Needs PyTorch.
"""

from __future__ import annotations

from typing import Tuple

import torch

_EPSILON = 1e-7


def probabilistic_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """
    Compare rotated boxes as Gaussians: 1 minus their Hellinger distance.

    After Llerena et al., Gaussian Bounding Boxes and Probabilistic Intersection-over-Union
    (2021). Smooth in every parameter; the angle of a square makes no difference.

    :param a, b: [..., 5] of broadcastable shapes.
    :returns: [...], 1 for equal boxes, 0 for distant ones.
    """
    axx, ayy, axy = _covariance(a)
    bxx, byy, bxy = _covariance(b)
    dx, dy = a[..., 0] - b[..., 0], a[..., 1] - b[..., 1]
    xx, yy, xy = axx + bxx, ayy + byy, axy + bxy
    determinant = xx * yy - xy ** 2 + _EPSILON
    apart = (xx * dy ** 2 + yy * dx ** 2 - 2 * xy * dx * dy) / determinant / 4
    own = ((axx * ayy - axy ** 2).clamp(0) * (bxx * byy - bxy ** 2).clamp(0) + _EPSILON).sqrt()
    shape = torch.log(determinant / (4 * own + _EPSILON) + _EPSILON) / 2
    distance = (apart + shape).clamp(_EPSILON, 100.0)
    return 1 - (1 - torch.exp(-distance) + _EPSILON).sqrt()


def _covariance(boxes: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the variances in x and y, and the covariance, of an even spread over boxes."""
    across, down = boxes[..., 2] ** 2 / 12, boxes[..., 3] ** 2 / 12
    cosine, sine = boxes[..., 4].cos(), boxes[..., 4].sin()
    return (across * cosine ** 2 + down * sine ** 2, across * sine ** 2 + down * cosine ** 2,
            (across - down) * cosine * sine)


def along_axes(points: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """
    Measure points from the middles of boxes along the boxes' own axes.

    :param points: [..., 2], boxes: [..., 5] of broadcastable shapes.
    :returns: [..., 2].
    """
    x, y = points[..., 0] - boxes[..., 0], points[..., 1] - boxes[..., 1]
    cosine, sine = boxes[..., 4].cos(), boxes[..., 4].sin()
    return torch.stack((x * cosine + y * sine, y * cosine - x * sine), -1)


def inside_rotated(points: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Tell which points [A, 2] lie inside which boxes [b, n, 5]: bool[b, n, A]."""
    local = along_axes(points, boxes[:, :, None])
    return (boxes[:, :, None, 2:4] / 2 - local.abs()).amin(-1) > 1e-9


def sides_of_rotated(points: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """
    Measure from points to the sides of boxes, along the boxes' own axes.

    :param points: [A, 2], boxes: [b, A, 5].
    :returns: [b, A, 4], left, top, right, bottom; negative outside.
    """
    local, half = along_axes(points, boxes), boxes[..., 2:4] / 2
    return torch.cat((half + local, half - local), -1)
