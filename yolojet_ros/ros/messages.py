"""Our detections and model card as vision_msgs."""

from __future__ import annotations

from typing import Sequence

from rclpy.serialization import deserialize_message
from std_msgs.msg import Header
from vision_msgs.msg import (
    Detection2D, Detection2DArray, LabelInfo, ObjectHypothesisWithPose, VisionClass, VisionInfo)

from yolojet_ros.core.detections import Detections
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.ros.cdr import DetectionsWriter


def detections_message(
    header: Header, detections: Detections, names: Sequence[str],
) -> Detection2DArray:
    """Return the message, field by field: the plain twin of `DetectionsWriter`."""
    message = Detection2DArray(header=header)
    ids = [-1] * len(detections) if detections.ids is None else detections.ids.tolist()
    for (x1, y1, x2, y2), score, class_id, track in zip(
            detections.boxes.tolist(), detections.scores.tolist(),
            detections.classes.tolist(), ids):
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id = names[class_id]
        result.hypothesis.score = score
        detection = Detection2D(header=header, results=[result])
        detection.bbox.center.position.x = (x1 + x2) / 2
        detection.bbox.center.position.y = (y1 + y2) / 2
        detection.bbox.size_x = x2 - x1
        detection.bbox.size_y = y2 - y1
        detection.id = '' if track < 0 else str(track)
        message.detections.append(detection)
    return message


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


def vision_info_message(header: Header, card: ModelCard, backend: str) -> VisionInfo:
    """Return who detects, and where the class names are published."""
    return VisionInfo(
        header=header, method=f'YOLOv8, {card.source}, {backend}',
        database_location='label_info', database_version=0)


def label_info_message(header: Header, card: ModelCard, threshold: float) -> LabelInfo:
    """Return the class names of the model; `class_id` of a detection is the name."""
    return LabelInfo(
        header=header, threshold=threshold,
        class_map=[VisionClass(class_id=index, class_name=name)
                   for index, name in enumerate(card.names)])
