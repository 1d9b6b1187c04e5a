"""`class_mask`: which class a pixel belongs to."""

from __future__ import annotations

from typing import Optional

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.nodes.outputs.output import Output, Result
from yolojet_ros.ros.images import image_message

_MAX_CLASSES = 255  # that a byte can tell from none


class ClassMask(Output):
    """An image of the camera image's size, mono8: 1 + class of the pixel's detection, or 0."""

    topic = 'class_mask'
    tasks = ('segment',)
    extras = True

    @classmethod
    def obstacle(cls, card: ModelCard) -> str:
        return '' if len(card.names) <= _MAX_CLASSES else (
            f'{card.source} has {len(card.names)} classes, and a pixel of class_mask can tell '
            f'{_MAX_CLASSES}, so there is no class_mask; take the class of a pixel from '
            'instance_mask and detections')

    @staticmethod
    def kind() -> type:
        return Image

    def message(self, header: Header, result: Result) -> Optional[Image]:
        if result.labels is None:
            return None
        values = np.zeros(1 + len(result.detections), np.uint8)
        values[1:] = result.detections.classes + 1
        return image_message(header, np.take(values, result.labels), 'mono8')
