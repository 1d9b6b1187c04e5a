"""Our detections and model card as vision_msgs."""

from __future__ import annotations

from typing import Sequence

import numpy as np
from rclpy.serialization import deserialize_message
from std_msgs.msg import Header
import vision_msgs.msg
from vision_msgs.msg import (
    BoundingBox2D, Detection2D, Detection2DArray, LabelInfo, ObjectHypothesis,
    ObjectHypothesisWithPose, VisionClass, VisionInfo)

from yolojet_ros.core.detections import best_classes, Detections
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.core.rotated import corners
from yolojet_ros.ros.cdr import box_values, DetectionsWriter


def detections_message(
    header: Header, detections: Detections, names: Sequence[str],
) -> Detection2DArray:
    """Return the message, field by field: the plain twin of `DetectionsWriter`."""
    message = Detection2DArray(header=header)
    ids = [-1] * len(detections) if detections.ids is None else detections.ids.tolist()
    for (x, y, theta, width, height), score, class_id, track in zip(
            box_values(detections).tolist(), detections.scores.tolist(),
            detections.classes.tolist(), ids):
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id = names[class_id]
        result.hypothesis.score = score
        detection = Detection2D(header=header, results=[result])
        detection.bbox.center.position.x = x
        detection.bbox.center.position.y = y
        detection.bbox.center.theta = theta
        detection.bbox.size_x = width
        detection.bbox.size_y = height
        detection.id = '' if track < 0 else str(track)
        message.detections.append(detection)
    return message


def corners_of(box: BoundingBox2D) -> np.ndarray:
    """Return float64[4, 2], the corners of a message's box in pixels, in order around it."""
    center = box.center
    return corners(np.array([[
        center.position.x, center.position.y, box.size_x, box.size_y, -center.theta]]))[0]


def check_writer(writer: DetectionsWriter, detections: Detections, names: Sequence[str]) -> None:
    """
    Check that the installed vision_msgs has the layout that the writer packs.

    :raises UserError: if it is another version of the interface.
    """
    header = Header(frame_id='camera')
    expected = detections_message(header, detections, names)
    try:
        found = deserialize_message(writer(header, detections), Detection2DArray)
    except Exception:  # what a foreign layout raises depends on the middleware
        found = None
    if found != expected:
        raise UserError(
            'the installed vision_msgs lays out Detection2DArray in another way than '
            'vision_msgs 4 does; install vision_msgs 4 (Humble and later)')


def classification_message(
    header: Header, probabilities: np.ndarray, names: Sequence[str], most: int,
) -> vision_msgs.msg.Classification:
    """
    Return the classes with the highest probabilities above 0, the best first.

    :param probabilities: float32[classes]
    :param most: classes at most
    """
    return vision_msgs.msg.Classification(header=header, results=[
        ObjectHypothesis(class_id=names[index], score=float(probabilities[index]))
        for index in best_classes(probabilities, most)])


def vision_info_message(header: Header, card: ModelCard, backend: str) -> VisionInfo:
    """Return who detects, and where the class names are published."""
    return VisionInfo(
        header=header, method=f'{card.head.head.title} ({card.task}), {card.source}, {backend}',
        database_location='label_info', database_version=0)


def label_info_message(header: Header, card: ModelCard, threshold: float) -> LabelInfo:
    """Return the class names of the model; `class_id` of a detection is the name."""
    return LabelInfo(
        header=header, threshold=threshold,
        class_map=[VisionClass(class_id=index, class_name=name)
                   for index, name in enumerate(card.names)])
