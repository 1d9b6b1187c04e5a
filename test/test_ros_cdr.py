"""The CDR writer against rclpy's own serialization."""

import math

from builtin_interfaces.msg import Time
from hypothesis import given, strategies as st
import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from yolojet_ros.core.detections import Detections
from yolojet_ros.core.rotated import upright
from yolojet_ros.ros.cdr import DetectionsWriter
from yolojet_ros.ros.messages import detections_message

_TEXT = st.text(st.characters(blacklist_characters='\0', blacklist_categories=['Cs']), max_size=9)
_COORDINATE = st.floats(-1e4, 1e4, width=32)


@st.composite
def _detections(draw, classes):
    rows = draw(st.lists(st.tuples(
        st.tuples(*[_COORDINATE] * 4), st.floats(0, 1, width=32),
        st.integers(0, classes - 1), st.integers(-1, 2**62)), max_size=5))
    boxes, scores, labels, ids = zip(*rows) if rows else ((), (), (), ())
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    angles = draw(st.lists(st.floats(-10, 10, width=32), min_size=len(rows), max_size=len(rows)))
    rotated = np.column_stack((np.abs(boxes), np.array(angles, np.float32)))
    return Detections(
        boxes, np.array(scores, np.float32), np.array(labels, np.int32),
        draw(st.sampled_from([None, np.array(ids, np.int64)])),
        rotated=draw(st.sampled_from([None, rotated])))


@st.composite
def _cases(draw):
    names = draw(st.lists(_TEXT, min_size=1, max_size=4))
    header = Header(
        stamp=Time(sec=draw(st.integers(-2**31, 2**31 - 1)),
                   nanosec=draw(st.integers(0, 2**32 - 1))), frame_id=draw(_TEXT))
    return header, names, draw(_detections(len(names)))


@given(_cases())
def test_bytes_read_back_as_the_message_built_field_by_field(case):
    header, names, detections = case
    written = DetectionsWriter(names)(header, detections)
    assert deserialize_message(written, Detection2DArray) == detections_message(
        header, detections, names)


@pytest.mark.parametrize('angle,theta', [
    (0, 0), (math.pi / 6, -math.pi / 6), (-math.pi / 6, math.pi / 6),
    (math.pi - 0.1, 0.1), (0.7 * math.pi, 0.3 * math.pi), (-2.9 * math.pi, -0.1 * math.pi)])
def test_a_rotated_box_keeps_its_own_sides_and_turns_counterclockwise(angle, theta):
    """Our angles turn x towards y, clockwise where y points down; half a turn changes nothing."""
    box = np.array([[30, 40, 20, 10, angle]], np.float32)
    found = Detections(upright(box), np.ones(1, np.float32), np.zeros(1, np.int32), rotated=box)
    message = deserialize_message(DetectionsWriter(['a'])(Header(), found), Detection2DArray)
    bbox = message.detections[0].bbox
    assert bbox.center.theta == pytest.approx(theta, abs=1e-6)
    assert (bbox.center.position.x, bbox.center.position.y) == (30, 40)
    assert (bbox.size_x, bbox.size_y) == (20, 10)


@given(_cases())
def test_bytes_are_as_long_as_what_rclpy_sends(case):
    header, names, detections = case
    message = detections_message(header, detections, names)
    written = DetectionsWriter(names)(header, detections)
    # rclpy's middleware pads the end of the stream to a multiple of four.
    assert 0 <= len(serialize_message(message)) - len(written) < 4
