"""
Write vision_msgs/Detection2DArray straight into its wire form.

rclpy builds a message of 50 detections attribute by attribute and then walks it
again to serialize it, which takes longer than a small network. This writer packs
the same bytes in one pass, and rclpy publishes bytes as they are.

Source: OMG DDS-XTypes 1.3, 7.4.1 (plain CDR, version 1): little-endian, each
primitive aligned to its size from the start of the body, a string as uint32
length with its terminating zero, a sequence as uint32 length.
"""

from __future__ import annotations

import struct
from typing import Optional, Sequence

import numpy as np
from std_msgs.msg import Header

from yolojet_ros.core.detections import Detections

_ENCAPSULATION = b'\x00\x01\x00\x00'  # CDR_LE
_EIGHT_BYTE_PADDING = b'\x00' * 8
# Pose of the hypothesis: unused, identity rotation (position, quaternion, 6x6 covariance).
_POSE = struct.pack('<43d', *([0.0] * 6), 1.0, *([0.0] * 36))
_SCORE_AND_POSE = struct.Struct(f'<d{len(_POSE)}s')
_BOX = struct.Struct('<5d')
_LENGTH = struct.Struct('<I')
_STAMP = struct.Struct('<iI')


class DetectionsWriter:
    """
    Serialize detections of one model.

    :param names: class names, by index
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = [_string(name) for name in names]

    def __call__(self, header: Header, detections: Detections) -> bytes:
        """Return the bytes of a Detection2DArray, equal to what rclpy would send."""
        stamp = _STAMP.pack(header.stamp.sec, header.stamp.nanosec)
        head = stamp + _string(header.frame_id)
        out = bytearray(head)
        _align(out, 4)
        out += _LENGTH.pack(len(detections))
        ids: Optional[list] = None if detections.ids is None else detections.ids.tolist()
        for index, (box, score, class_id) in enumerate(zip(
                box_values(detections).tolist(), detections.scores.tolist(),
                detections.classes.tolist())):
            _align(out, 4)
            out += head
            _align(out, 4)
            out += _LENGTH.pack(1)
            out += self._names[class_id]
            _align(out, 8)
            out += _SCORE_AND_POSE.pack(score, _POSE)
            out += _BOX.pack(*box)
            out += _string('' if ids is None or ids[index] < 0 else str(ids[index]))
        return _ENCAPSULATION + bytes(out)


def box_values(detections: Detections) -> np.ndarray:
    """
    Return float64[n, 5], the values of a BoundingBox2D: centre x, y, theta, size_x, size_y.

    vision_msgs calls rotations positive counterclockwise; as the image shows it, whose x points
    right and y down. Our angles (core.rotated) turn x towards y, which is clockwise there, so
    theta is their negative. theta lies in [-pi / 2, pi / 2]: a box turned by pi is the same.
    """
    values = np.zeros((len(detections), 5))
    if detections.rotated is None:
        boxes = detections.boxes.astype(np.float64)
        values[:, :2] = (boxes[:, :2] + boxes[:, 2:]) / 2
        values[:, 3:] = boxes[:, 2:] - boxes[:, :2]
    else:
        values[:, [0, 1, 3, 4, 2]] = detections.rotated
        values[:, 2] = np.pi * np.rint(values[:, 2] / np.pi) - values[:, 2]
    return values


def _string(text: str) -> bytes:
    data = text.encode() + b'\x00'
    return _LENGTH.pack(len(data)) + data


def _align(out: bytearray, size: int) -> None:
    out += _EIGHT_BYTE_PADDING[:-len(out) % size]
