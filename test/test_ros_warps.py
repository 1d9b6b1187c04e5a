"""Camera motion as messages, composed over skipped images."""

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PolygonStamped
from hypothesis import given, strategies as st
import numpy as np
from std_msgs.msg import Header

from yolojet_ros.ros.warps import polygon_of_warp, warp_of_polygon, WarpBuffer

_SIZE = (640, 384)
_WARPS = st.tuples(st.floats(-0.2, 0.2), st.floats(0.8, 1.2), st.floats(-50, 50),
                   st.floats(-50, 50)).map(lambda t: np.array([
                       [t[1] * np.cos(t[0]), -t[1] * np.sin(t[0]), t[2]],
                       [t[1] * np.sin(t[0]), t[1] * np.cos(t[0]), t[3]]]))


def _header(second):
    return Header(stamp=Time(sec=second))


@given(_WARPS)
def test_a_warp_survives_its_message(warp):
    message = polygon_of_warp(_header(1), warp, *_SIZE)
    np.testing.assert_allclose(warp_of_polygon(message, *_SIZE), warp, atol=1e-4)


@given(st.lists(_WARPS, min_size=2, max_size=6))
def test_skipped_images_are_composed(warps):
    buffer = WarpBuffer()
    assert buffer.warp_to(_header(0), *_SIZE) is None
    expected = np.eye(3)
    for second, warp in enumerate(warps, 1):
        buffer.add(polygon_of_warp(_header(second), warp, *_SIZE))
        expected = np.vstack((warp, (0, 0, 1))) @ expected
    found = buffer.warp_to(_header(len(warps)), *_SIZE)
    np.testing.assert_allclose(found, expected[:2], atol=0.02)


def test_an_image_without_its_own_motion_gets_none():
    buffer = WarpBuffer()
    still = np.eye(2, 3)
    buffer.warp_to(_header(1), *_SIZE)
    buffer.add(polygon_of_warp(_header(2), still, *_SIZE))
    assert buffer.warp_to(_header(3), *_SIZE) is None
    buffer.add(polygon_of_warp(_header(4), still, *_SIZE))
    np.testing.assert_allclose(buffer.warp_to(_header(4), *_SIZE), still)


def test_damaged_messages_are_no_motion():
    buffer = WarpBuffer()
    buffer.warp_to(_header(1), *_SIZE)
    buffer.add(PolygonStamped(header=_header(2)))
    assert buffer.warp_to(_header(2), *_SIZE) is None
    buffer.add(polygon_of_warp(_header(3), np.full((2, 3), np.nan), *_SIZE))
    assert buffer.warp_to(_header(3), *_SIZE) is None
