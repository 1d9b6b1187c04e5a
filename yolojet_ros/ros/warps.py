"""
Camera motion as a topic.

A `geometry_msgs/PolygonStamped` on `camera_motion` says where three points of the
previous image, its corners (0, 0), (width, 0) and (0, height), lie in the image
with the same stamp, in pixels: an affine, in a message that every ROS has.
"""

from __future__ import annotations

from collections import deque
from typing import Deque, Optional, Tuple

from geometry_msgs.msg import Point32, PolygonStamped
import numpy as np
from std_msgs.msg import Header

_HELD = 300  # messages; several seconds of a fast camera


def polygon_of_warp(header: Header, warp: np.ndarray, width: int, height: int) -> PolygonStamped:
    """
    Return the message for a warp.

    :param warp: float64[2, 3], affine from the previous image to this one, pixels
    """
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1]], float)
    message = PolygonStamped(header=header)
    message.polygon.points = [Point32(x=x, y=y) for x, y in (corners @ warp.T).tolist()]
    return message


def warp_of_polygon(message: PolygonStamped, width: int, height: int) -> Optional[np.ndarray]:
    """Return the warp float64[2, 3] of a message, None if it does not hold three points."""
    points = message.polygon.points
    if len(points) != 3:
        return None
    origin, right, down = (np.array((point.x, point.y), float) for point in points)
    warp = np.column_stack(((right - origin) / width, (down - origin) / height, origin))
    return warp if np.isfinite(warp).all() else None


class WarpBuffer:
    """Collect camera motion by stamp, and compose it over the images that were skipped."""

    def __init__(self) -> None:
        self._held: Deque[Tuple[int, PolygonStamped]] = deque(maxlen=_HELD)
        self._last: Optional[int] = None

    def add(self, message: PolygonStamped) -> None:
        """Take a message; a stamp that goes back starts anew."""
        stamp = _nanoseconds(message.header)
        if self._held and stamp < self._held[-1][0]:
            self._held.clear()
        self._held.append((stamp, message))

    def warp_to(self, header: Header, width: int, height: int) -> Optional[np.ndarray]:
        """
        Return the motion from the image asked for last to the one with `header`.

        None if no message has the stamp of this image, or it is the first.
        """
        stamp, last = _nanoseconds(header), self._last
        self._last = stamp
        between = [(at, message) for at, message in tuple(self._held)
                   if last is not None and last < at <= stamp]
        if not between or between[-1][0] != stamp:
            return None
        total = np.eye(3)
        for _, message in between:
            warp = warp_of_polygon(message, width, height)
            if warp is None:
                return None
            total = np.vstack((warp, (0, 0, 1))) @ total
        return total[:2]


def _nanoseconds(header: Header) -> int:
    return header.stamp.sec * 10**9 + header.stamp.nanosec
