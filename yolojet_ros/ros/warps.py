"""
Camera motion as a topic.

A `geometry_msgs/PolygonStamped` on `camera_motion` says where three points of the
previous image, its corners (0, 0), (width, 0) and (0, height), lie in the image
with the same stamp, in pixels: an affine, in a message that every ROS has.
"""

from __future__ import annotations

from collections import deque
import threading
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


def fault_of_polygon(message: PolygonStamped) -> str:
    """Return what keeps a message from being a warp, in words, or ''."""
    count = len(message.polygon.points)
    if count != 3:
        return f'{count} points instead of three'
    return '' if warp_of_polygon(message, 1, 1) is not None else 'a point that is not finite'


class WarpBuffer:
    """
    Collect camera motion by stamp, and compose it until an image has used it.

    What an image was not told, because it was dropped or the message came too
    late, is told with the next one. `add` is called by another thread than the rest.

    missed: images whose motion did not come in time
    """

    def __init__(self) -> None:
        self._held: Deque[Tuple[int, PolygonStamped]] = deque(maxlen=_HELD)
        self._lock = threading.Lock()
        self._used: Optional[int] = None  # stamp up to which motion was told
        self._asked: Optional[int] = None  # the same once the image asked for is accepted
        self._forgotten = -1  # newest stamp that fell out of the buffer
        self._silent = False  # nothing came in time for the last image that waited, nor since
        self.missed = 0

    def add(self, message: PolygonStamped) -> str:
        """
        Take a message; a stamp that goes back starts anew, one that repeats replaces the last.

        :return: what is wrong with a message that holds no motion, or ''
        """
        fault = fault_of_polygon(message)
        stamp = _nanoseconds(message.header)
        with self._lock:
            self._silent = False
            if fault:
                return fault
            if self._held and stamp < self._held[-1][0]:
                self._held.clear()
                self._forgotten = -1
            if self._held and stamp == self._held[-1][0]:
                self._held.pop()
            if len(self._held) == _HELD:
                self._forgotten = self._held[0][0]
            self._held.append((stamp, message))
        return ''

    def reset(self) -> None:
        """Let the next image be the first."""
        with self._lock:
            self._used = self._asked = None

    def expects(self, header: Header, seconds: float) -> bool:
        """
        Return whether the image with `header` is to wait for its message.

        :param seconds: how long it may wait yet; once that is nothing, no image is to wait until
            something comes
        """
        stamp = _nanoseconds(header)
        with self._lock:
            if self._silent or not self._follows(stamp) or (
                    self._held and self._held[-1][0] >= stamp):
                return False
            self._silent = seconds <= 0
            return not self._silent

    def warp_to(self, header: Header, width: int, height: int) -> Optional[np.ndarray]:
        """
        Return the motion since the image last told to the one with `header`, float64[2, 3].

        None if no message has the stamp of this image, or it is the first. Call
        `accept` once the image is used; if it is not, its motion is kept.
        """
        stamp = _nanoseconds(header)
        with self._lock:
            if not self._follows(stamp):
                self._asked = stamp
                return None
            between = [item for item in self._held if self._used < item[0] <= stamp]
            if not between or between[-1][0] != stamp:
                self._asked = self._used
                self.missed += 1
                return None
            self._asked = stamp
        total = np.eye(3)
        for _, message in between:
            total = np.vstack((warp_of_polygon(message, width, height), (0, 0, 1))) @ total
        return total[:2]

    def accept(self) -> None:
        """Take the motion that was asked for last as used."""
        with self._lock:
            self._used = self._asked

    def _follows(self, stamp: int) -> bool:
        """Return whether the motion from the image last told to this one can be known."""
        return self._used is not None and self._forgotten <= self._used < stamp


def _nanoseconds(header: Header) -> int:
    return header.stamp.sec * 10**9 + header.stamp.nanosec
