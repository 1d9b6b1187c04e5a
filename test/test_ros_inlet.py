"""A thread takes images by its own wait set: what it gets, what is counted, what it costs."""

from collections import namedtuple
import threading
import time

import numpy as np
import pytest

from models import raw_output, write_model
from ros_peers import NodeProcess, Peer, wait_until
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from yolojet_ros.ros.arrivals import Arrivals
from yolojet_ros.ros.inlet import Inlet
from yolojet_ros.ros.statistics import Statistics
from yolojet_ros.ros.subscription import ImageSubscription

_SIZE = (320, 192)


class _Taker:
    """A node that has an image subscription and leaves it to the test to take images."""

    def __init__(self):
        self.peer = Peer(image_topic='nothing')
        self.statistics, self.inlet = Statistics(), Inlet(self.peer.context)
        self.images = ImageSubscription(self.peer.node, False, self.inlet, self.statistics)
        self.other = Peer()  # the camera, in a context of its own
        self.turns = 0
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()
        wait_until(self.other.image_publisher.get_subscription_count)
        time.sleep(0.3)

    def _spin(self):
        try:
            while True:
                self.peer.executor.spin_once()
                self.turns += 1
        except ExternalShutdownException:
            pass

    def cpu(self):
        """Return the seconds that the executor has run on a core."""
        return time.clock_gettime(time.pthread_getcpuclockid(self._thread.ident))

    def close(self):
        self.images.destroy()
        self.peer.context.try_shutdown()
        self._thread.join()
        self.inlet.close()
        self.peer.node.destroy_node()
        self.other.close()


@pytest.fixture
def taker():
    value = _Taker()
    yield value
    value.close()


def _send(taker, count, pause=0.01):
    sent = []
    for index in range(count):
        sent.append(taker.other.send(np.zeros((48, 64, 3), np.uint8), 100 + index))
        time.sleep(pause)
    time.sleep(0.3)
    return sent


def test_the_newest_is_taken_and_the_others_are_counted(taker):
    sent = _send(taker, 1)
    assert taker.images.take().message.header == sent[-1].header
    assert taker.images.take() is None
    sent = _send(taker, 20)
    taken = taker.images.take()
    assert taken.message.header == sent[-1].header and 0.2 < taken.queued < 2
    assert taker.images.take() is None
    taker.images.update()
    assert taker.statistics.taken == 2
    assert taker.statistics.received == 21
    values = {item.key: item.value for item in taker.statistics.report(True)[2]}
    assert values['dropped_superseded'] == '19' and values['lost_in_middleware'] == '0'


def test_an_image_that_waits_keeps_nobody_busy(taker):
    _send(taker, 5)
    before, turns = taker.cpu(), taker.turns
    time.sleep(2.5)
    assert taker.turns - turns > 1, 'it lives'
    assert taker.cpu() - before < 0.25, 'seconds of the executor'


def test_waiting_ends_by_an_image_a_word_or_the_end_of_the_process(taker):
    def waited(act, images=True):
        timer = threading.Timer(0.3, act)
        timer.start()
        start = time.monotonic()
        taker.inlet.wait(taker.images.readers if images else (), 5.0)
        seconds = time.monotonic() - start
        timer.join()
        return seconds

    assert 0.2 < waited(lambda: taker.other.send()) < 2
    assert waited(lambda: None) < 0.2, 'it waits still'
    taker.images.take()
    assert 0.2 < waited(taker.inlet.wake) < 2
    _send(taker, 1)
    assert 0.2 < waited(taker.inlet.wake, images=False) < 2
    taker.images.take()
    taker.inlet.wake()
    taker.inlet.wait(taker.images.readers)  # the word came before
    assert 0.2 < waited(lambda: (taker.peer.context.try_shutdown(), taker.inlet.wake())) < 2
    assert 0.2 < waited(taker.inlet.wake) < 2, 'after the end of ROS, too'


def test_silence_is_what_somebody_has_listened_to(taker):
    _send(taker, 1)
    assert taker.images.take() is not None
    time.sleep(0.5)
    assert taker.images.silence() < 0.1, 'nobody has looked since'
    assert taker.images.take() is None
    assert taker.images.silence() > 0.4


def test_a_slow_network_is_not_taken_for_a_silent_camera(tmp_path):
    model = write_model(tmp_path / 'slow.onnx', raw_output(
        [[160, 96, 80, 60]], [[0.95, 0, 0]], _SIZE), slow=100)
    process = NodeProcess('yolojet_ros.nodes.detector_node', tmp_path / 'log', {
        'model': str(model), 'autostart': True, 'cpu_threads': 1})
    peer = Peer()
    publisher = peer.node.create_publisher(
        Image, 'image_raw', QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE))
    try:
        peer.spin_until(publisher.get_subscription_count, 60)
        end = time.monotonic() + 12
        sent = 0
        while time.monotonic() < end:
            peer.send(np.zeros((48, 64, 3), np.uint8), publisher=publisher)
            sent += 1
            peer.executor.spin_once(timeout_sec=0.05)
        texts = [s.message for s in peer.statuses if peer.detector in s.name][5:]
        assert len(texts) > 4
        assert not [text for text in texts if 'no image' in text], texts
        values = peer.status(lambda values: int(values['processed']) > 1)[1]
        assert int(values['received']) > sent / 2
        assert 'requesting RELIABLE' not in process.output.split('active: waiting')[1]
    finally:
        peer.close()
        assert process.stop() == 0, process.output


def test_a_queue_of_the_users_own_is_emptied_at_once(tmp_path):
    model = write_model(tmp_path / 'slow.onnx', raw_output(
        [[160, 96, 80, 60]], [[0.95, 0, 0]], _SIZE), slow=30)
    process = NodeProcess('yolojet_ros.nodes.detector_node', tmp_path / 'log', {
        'model': str(model), 'autostart': True,
        'qos_overrides./image_raw.subscription.depth': 10})
    peer = Peer()
    try:
        peer.wait_for_subscriber()
        before = peer.status(lambda values: int(values['received']) == (
            int(values['processed']) + int(values.get('dropped_superseded', 0))))[1]
        peer.results.clear()
        sent = [peer.send() for _ in range(8) if not time.sleep(0.02)]
        peer.spin_until(lambda: any(r.header == sent[-1].header for r in peer.results))
        wanted = int(before['received']) + 8
        after = peer.status(lambda values: int(values['received']) == wanted)[1]
        assert len(peer.results) < 8
        assert int(after['processed']) + int(after['dropped_superseded']) == int(after['received'])
    finally:
        peer.close()
        assert process.stop() == 0, process.output


_Message = namedtuple('_Message', 'header')
_Header = namedtuple('_Header', 'stamp')
_Stamp = namedtuple('_Stamp', 'sec nanosec')


def _passed_over(arrivals, source, number=None, publisher=None, time=0, alone=True, stamp=0):
    info = {'source_timestamp': time}
    if number is not None:
        info['publication_sequence_number'] = number
    if publisher:
        info['publisher_gid'] = {'data': publisher}
    return arrivals.passed_over(
        source, _Message(_Header(_Stamp(stamp, 0))), info, alone)


def test_gaps_in_the_numbers_of_each_publisher_are_counted():
    arrivals = Arrivals()
    found = [_passed_over(arrivals, 'a', number, publisher, number) for number, publisher in (
        (7, b'x'), (8, b'x'), (3, b'y'), (12, b'x'), (4, b'y'), (9, b'y'))]
    assert found == [0, 0, 0, 3, 0, 4]


@pytest.mark.parametrize('publisher', [b'x', None])
@pytest.mark.parametrize('odd', [2**64 - 2**31, 2**63, 2**31 + 5, 10**7, 0])
def test_a_number_that_cannot_be_counts_nothing_and_stops_nothing(publisher, odd):
    arrivals = Arrivals()
    numbers = (10**8, 10**8 + 1, odd, 10**8 + 2, 10**8 + 5)
    assert [_passed_over(arrivals, 'a', number, publisher, number) for number in numbers] == [
        0, 0, 0, 0, 2]
    assert publisher is None or _passed_over(arrivals, 'b', numbers[-1], publisher) is None


def _stamps(*images):
    """Return the stamps that are kept of (stamp, number, publisher); a string means none waits."""
    arrivals = Arrivals()
    for index, image in enumerate(images):
        if isinstance(image, str):
            arrivals.on_none_waits()
            continue
        stamp, number, publisher = image
        _passed_over(arrivals, 'a', number, publisher, index, stamp=stamp)
    return list(arrivals.stamps)


def test_stamps_are_kept_of_one_publisher_without_those_before_a_gap():
    assert _stamps((1, 7, b'x'), (2, 8, b'x'), (3, 9, b'x')) == [1, 2, 3]
    assert _stamps((1, 7, b'x'), (2, 8, b'x'), (3, 10, b'x')) == [3]
    assert _stamps((1, 7, b'x'), (2, 3, b'y'), (3, 4, b'y')) == [2, 3]
    assert _stamps((1, 7, b'x'), (1, 7, b'x'), (3, 8, b'x')) == [1, 3], 'it came twice'
    # Without numbers, only an empty queue tells that none was replaced.
    assert _stamps((1, None, None), 'empty', (2, None, None)) == [1, 2]
    assert _stamps((1, None, None), 'empty', (2, None, None), (3, None, None)) == [3]


_Lost = namedtuple('_Lost', 'total_count_change')


@pytest.mark.parametrize('odd', [2**64 - 2**31, -2**31, 2**31 - 1, 2**31, -1])
def test_losses_that_cannot_be_count_nothing(taker, odd):
    """An int32 of Fast DDS that overflows, handed on as a size_t, and what it overflows from."""
    def report(count):
        for handler in taker.images.readers[0].event_handlers:
            if 'total_count_change' in handler.callback.__code__.co_names:
                handler.callback(_Lost(count))
    time.sleep(2.5)  # those of new publishers are not counted
    _send(taker, 2)
    assert taker.images.take() is not None
    report(odd)
    assert taker.statistics.lost == 0 and taker.images.problem() == ''
    report(3)
    assert taker.statistics.lost == 3, 'those that can be still count'


def test_an_image_by_a_second_subscription_is_no_new_one():
    for publisher, number in ((b'x', 1), (None, 1), (None, None)):
        arrivals, found = Arrivals(), []
        for index in range(3):
            for source in ('old', 'new'):
                found.append(_passed_over(
                    arrivals, source, number and number + index, publisher, time=index))
        assert found == [0, None] * 3


def test_numbers_of_publishers_that_cannot_be_told_apart_count_for_one_only():
    arrivals = Arrivals()
    assert [_passed_over(arrivals, 'a', number, time=number, alone=alone)
            for number, alone in ((5, True), (9, True), (200, False), (30, False))] == [0, 3, 0, 0]
    arrivals.restart()
    assert _passed_over(arrivals, 'a', 700, time=700) == 0
    assert _passed_over(arrivals, 'a', 3, time=3) == 0, 'it started again'
    # Without numbers, as on Humble.
    assert _passed_over(arrivals, 'a', time=1000) == 0
