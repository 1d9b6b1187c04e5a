"""Keypoints as point clouds."""

from __future__ import annotations

import array
import sys

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

_NAMES = ('x', 'y', 'z', 'confidence')


def keypoints_message(header: Header, keypoints: np.ndarray) -> PointCloud2:
    """
    Return an organised cloud: a row a detection, a column a keypoint.

    The fields are float32: x and y in pixels of the image, z = 0, confidence 0..1.

    :param keypoints: float32[n, K, 3], x, y, confidence
    """
    rows, columns = keypoints.shape[:2]
    points = np.zeros((rows, columns, len(_NAMES)), np.float32)
    points[..., :2] = keypoints[..., :2]
    points[..., 3] = keypoints[..., 2]
    size = points.itemsize
    data = array.array('B')
    data.frombytes(points.tobytes())
    return PointCloud2(
        header=header, height=rows, width=columns, fields=[
            PointField(name=name, offset=index * size, datatype=PointField.FLOAT32, count=1)
            for index, name in enumerate(_NAMES)],
        is_bigendian=sys.byteorder == 'big', point_step=len(_NAMES) * size,
        row_step=columns * len(_NAMES) * size, data=data,
        is_dense=bool(np.isfinite(points).all()))
