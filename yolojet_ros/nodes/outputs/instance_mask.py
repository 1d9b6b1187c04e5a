"""`instance_mask`: which detection a pixel belongs to."""

from __future__ import annotations

from typing import Optional

from sensor_msgs.msg import Image
from std_msgs.msg import Header

from yolojet_ros.nodes.outputs.output import Output, Result
from yolojet_ros.ros.images import image_message


class InstanceMask(Output):
    """
    An image of the camera image's size, mono16: 1 + index of the pixel's detection, 0 for none.

    The index is that of the detection in the message of the same stamp. Where masks overlap,
    the better score is on top.
    """

    topic = 'instance_mask'
    tasks = ('segment',)
    extras = True

    @staticmethod
    def kind() -> type:
        return Image

    def message(self, header: Header, result: Result) -> Optional[Image]:
        labels = result.labels
        return None if labels is None else image_message(header, labels, 'mono16')
