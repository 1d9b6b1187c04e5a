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


def _told(buffer, second):
    """Ask for the motion of an image, and use it."""
    warp = buffer.warp_to(_header(second), *_SIZE)
    buffer.accept()
    return warp


def _shift(second, pixels):
    return polygon_of_warp(_header(second), np.array([[1, 0, pixels], [0, 1, 0]], float), *_SIZE)


@given(st.lists(_WARPS, min_size=2, max_size=6))
def test_skipped_images_are_composed(warps):
    buffer = WarpBuffer()
    assert _told(buffer, 0) is None
    expected = np.eye(3)
    for second, warp in enumerate(warps, 1):
        buffer.add(polygon_of_warp(_header(second), warp, *_SIZE))
        expected = np.vstack((warp, (0, 0, 1))) @ expected
    found = _told(buffer, len(warps))
    np.testing.assert_allclose(found, expected[:2], atol=0.02)


def test_motion_that_came_after_its_image_is_told_with_the_next():
    buffer = WarpBuffer()
    _told(buffer, 1)
    assert _told(buffer, 2) is None and buffer.missed == 1
    buffer.add(_shift(2, 10))
    buffer.add(_shift(3, 10))
    assert _told(buffer, 3)[0, 2] == 20
    buffer.add(_shift(4, 10))
    assert _told(buffer, 4)[0, 2] == 10
    assert buffer.missed == 1


def test_motion_of_an_image_that_was_dropped_after_asking_is_kept():
    buffer = WarpBuffer()
    _told(buffer, 1)
    buffer.add(_shift(2, 10))
    assert buffer.warp_to(_header(2), *_SIZE)[0, 2] == 10  # and the image turns out damaged
    buffer.add(_shift(3, 10))
    assert _told(buffer, 3)[0, 2] == 20


def test_an_image_waits_until_its_message_comes():
    buffer = WarpBuffer()
    assert not buffer.expects(_header(1), 0.1), 'the first has no motion'
    _told(buffer, 1)
    assert not buffer.expects(_header(1), 0.1), 'nor has one that is not newer'
    buffer.add(_shift(1, 10))
    for seconds in (0.2, 0.1):
        assert buffer.expects(_header(2), seconds)
    buffer.add(_shift(2, 10))
    assert not buffer.expects(_header(2), 0.1)
    assert _told(buffer, 2)[0, 2] == 10 and buffer.missed == 0


def test_an_image_waits_neither_for_long_nor_in_vain():
    buffer = WarpBuffer()
    _told(buffer, 1)
    assert buffer.expects(_header(2), 0.1) and not buffer.expects(_header(2), 0.0)
    assert _told(buffer, 2) is None and buffer.missed == 1
    assert not buffer.expects(_header(3), 0.1), 'nothing has come since the last wait'
    buffer.add(_shift(5, 10))
    assert not buffer.expects(_header(4), 0.1), 'a later message tells that none will come'
    assert _told(buffer, 4) is None and buffer.missed == 2
    assert buffer.expects(_header(6), 0.1), 'something has come'
    buffer.expects(_header(6), 0.0)
    buffer.add(PolygonStamped(header=_header(6)))
    assert buffer.expects(_header(7), 0.1), 'something has come, though of no use'


def test_a_clock_that_goes_back_and_a_reset_start_anew():
    buffer = WarpBuffer()
    _told(buffer, 100)
    buffer.add(_shift(101, 10))
    assert _told(buffer, 5) is None
    buffer.add(_shift(6, 7))
    assert _told(buffer, 6)[0, 2] == 7
    buffer.reset()
    buffer.add(_shift(7, 7))
    assert _told(buffer, 7) is None and buffer.missed == 0


def test_a_long_recording_that_begins_again_loses_no_motion():
    buffer = WarpBuffer()
    for _ in range(2):
        told = []
        for second in range(1000):
            buffer.add(_shift(second, 10))
            told.append(_told(buffer, second))
        assert [warp[0, 2] for warp in told[1:]] == [10] * 999 and told[0] is None


def test_a_message_that_repeats_moves_the_camera_once():
    buffer = WarpBuffer()
    _told(buffer, 1)
    for second in (2, 2, 3, 3):
        buffer.add(_shift(second, 10))
    assert _told(buffer, 3)[0, 2] == 20


def test_motion_with_a_gap_is_not_told():
    buffer = WarpBuffer()
    _told(buffer, 1)
    for second in range(2, 1000):
        buffer.add(_shift(second, 1))
    assert _told(buffer, 999) is None
    buffer.add(_shift(1000, 1))
    assert _told(buffer, 1000)[0, 2] == 1


def test_damaged_messages_are_no_motion():
    buffer = WarpBuffer()
    _told(buffer, 1)
    buffer.add(PolygonStamped(header=_header(2)))
    assert _told(buffer, 2) is None
    buffer.add(polygon_of_warp(_header(3), np.full((2, 3), np.nan), *_SIZE))
    assert _told(buffer, 3) is None
    buffer.add(_shift(4, 10))
    assert _told(buffer, 4)[0, 2] == 10
