"""`keypoints`: where the joints of the detections are."""

from __future__ import annotations

from typing import Optional

from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from yolojet_ros.nodes.outputs.output import Output, Result
from yolojet_ros.ros.clouds import keypoints_message


class Keypoints(Output):
    """An organised cloud: a row a detection, in their order, and a column a keypoint."""

    topic = 'keypoints'
    tasks = ('pose',)
    extras = True

    @staticmethod
    def kind() -> type:
        return PointCloud2

    def message(self, header: Header, result: Result) -> Optional[PointCloud2]:
        points = result.detections.keypoints
        return None if points is None else keypoints_message(header, points)
