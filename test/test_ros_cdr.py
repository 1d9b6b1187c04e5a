"""The CDR writer against rclpy's own serialization."""

from builtin_interfaces.msg import Time
from hypothesis import given, strategies as st
import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from yolojet_ros.core.detections import Detections
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
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32),
        np.array(labels, np.int32), draw(st.sampled_from([None, np.array(ids, np.int64)])))


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


@given(_cases())
def test_bytes_are_as_long_as_what_rclpy_sends(case):
    header, names, detections = case
    message = detections_message(header, detections, names)
    written = DetectionsWriter(names)(header, detections)
    # rclpy's middleware pads the end of the stream to a multiple of four.
    assert 0 <= len(serialize_message(message)) - len(written) < 4
