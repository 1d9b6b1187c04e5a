"""A stream that dies and comes back, taken by the real camera node from a real server."""

import os
from pathlib import Path
import signal
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from ros_peers import NodeProcess, Peer, wait_until  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

_SECONDS = 60  # that what must come may take on a busy machine


class Stream:
    """A network camera at one address, there or not."""

    def __init__(self):
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            self._port = probe.getsockname()[1]
        self.url = f'http://127.0.0.1:{self._port}/stream.mjpg'
        self._process = None

    def start(self, width, height):
        """Let it be there."""
        self._process = subprocess.Popen([
            sys.executable, str(Path(__file__).with_name('mjpeg_server.py')),
            *map(str, (self._port, width, height))])

        def answers():
            with socket.socket() as probe:
                return probe.connect_ex(('127.0.0.1', self._port)) == 0
        wait_until(answers, _SECONDS)

    def kill(self):
        """Let it be gone."""
        if self._process:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def stream():
    """Return a stream that is not there yet."""
    made = Stream()
    yield made
    made.kill()


@pytest.fixture
def start(tmp_path):
    """Return a function that starts the camera and returns it, its peer and its images."""
    made = []

    def function(**parameters):
        process = NodeProcess('yolojet_ros.nodes.camera_node', tmp_path / 'log', parameters)
        peer, images = Peer(node='camera'), []
        peer.node.create_subscription(Image, 'image_raw', images.append, 5)
        made.append((process, peer))
        return process, peer, images
    yield function
    for process, peer in made:
        peer.close()
        process.stop(signal.SIGKILL)


def _shown(images):
    return {(image.width, image.height, len(image.data)) for image in images}


def _cpu(process):
    fields = Path(f'/proc/{process.process.pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def test_a_stream_that_dies_is_taken_up_again_in_its_new_size(stream, start):
    stream.start(320, 192)
    process, peer, images = start(source=stream.url)
    peer.spin_until(lambda: _shown(images) == {(320, 192, 320 * 192 * 3)}, _SECONDS)
    stream.kill()
    status, values = peer.status(lambda _: 'no picture' in peer.statuses[-1].message, _SECONDS)
    assert status.level == status.ERROR and 'it is tried again every' in status.message
    begin, spent = time.monotonic(), _cpu(process)
    peer.spin_until(lambda: time.monotonic() > begin + 3, 5)
    assert _cpu(process) - spent < 1.5  # of 3 s: it waits between its attempts
    images.clear()
    stream.start(640, 384)
    peer.spin_until(lambda: images, _SECONDS, process.log)
    assert _shown(images) == {(640, 384, 640 * 384 * 3)}
    status, values = peer.status(lambda values: values['reopened'] == '1', _SECONDS)
    assert process.output.count('it is tried again') == 1
    assert process.output.count('is there again after') == 1
    for word in ('refused', 'Stream timeout', 'Traceback', 'VIDEOIO'):
        assert word not in process.output
    # Lost once more, it ends as promptly while it waits.
    stream.kill()
    process.wait_for_output('it is tried again', _SECONDS)
    begin = time.monotonic()
    assert process.stop() == 0, process.output
    assert time.monotonic() - begin < 5


def test_one_that_is_not_there_at_the_start_is_waited_for_if_wanted(stream, start):
    process, peer, images = start(source=stream.url, reopen='always', width=160, height=96)
    status, _ = peer.status(lambda _: 'no picture' in peer.statuses[-1].message, _SECONDS)
    assert status.level == status.ERROR and 'cannot be opened' in status.message
    stream.start(320, 192)
    peer.spin_until(lambda: images, _SECONDS, process.log)
    assert _shown(images) == {(160, 96, 160 * 96 * 3)}
    assert process.output.count('it is tried again') == 1


@pytest.mark.parametrize('reopen', ['lost', 'never'])
def test_otherwise_it_is_an_error_at_once(stream, start, reopen):
    process, _, _ = start(source=stream.url, reopen=reopen)
    wait_until(lambda: not process.alive(), _SECONDS)
    assert process.stop() == 2 and 'cannot be opened' in process.output


def test_never_ends_the_node_with_the_stream(stream, start):
    stream.start(320, 192)
    process, peer, images = start(source=stream.url, reopen='never')
    peer.spin_until(lambda: images, _SECONDS, process.log)
    stream.kill()
    wait_until(lambda: not process.alive(), _SECONDS)
    assert process.stop() == 1 and 'delivers no more pictures' in process.output
