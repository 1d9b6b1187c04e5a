"""When a lost source is opened again, and that a stream which falls silent is lost."""

from pathlib import Path
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from yolojet_ros import sources
from yolojet_ros.core.errors import UserError
from yolojet_ros.operate.reopening import ReopenedSource
from yolojet_ros.sources import is_live, open_source, Source

_PICTURE = np.zeros((2, 3, 3), np.uint8)


class _Device(Source):
    """A device that gives so many pictures before it is unplugged."""

    def __init__(self, count):
        super().__init__('camera x', 0.0, live=True)
        self._count = count
        self.closed = False

    def read(self):
        if self._count == 0:
            raise UserError('x delivers no more pictures')
        self._count -= 1
        return _PICTURE

    def close(self):
        self.closed = True


def test_attempts_are_rarer_and_rarer_and_one_line_tells_of_the_loss():
    missing = [True] * 7 + [False] + [True] * 2
    devices, pauses, lines = [_Device(1)], [], []

    def open_():
        assert all(device.closed for device in devices)  # it would get another number
        if not missing or missing.pop(0):
            raise UserError('x cannot be opened')
        devices.append(_Device(2))
        return devices[-1]

    def wait(seconds):
        pauses.append(seconds)
        return len(pauses) == 12
    source = ReopenedSource('camera x', 0.0, open_, wait, lines.append, devices[0])
    assert source.read() is _PICTURE and source.lost == '' and lines == []
    assert source.read() is _PICTURE
    assert pauses == [0.5, 1, 2, 4, 8, 10, 10, 10] and len(lines) == 2 and source.reopened == 1
    assert source.read() is _PICTURE
    # It did not hold: what is plugged in loosely is not to be opened twice a second.
    assert source.read() is None and pauses[8:] == [10] * 4
    assert 'no picture for 0 s: x cannot be opened; it is tried again every 10 s' in source.lost
    assert [line.partition(';')[0] for line in lines] == [
        'x delivers no more pictures', 'camera x is there again after 0.0 s',
        'x delivers no more pictures']


def test_the_end_interrupts_the_waiting():
    ended, found = threading.Event(), []

    def open_():
        raise UserError('x cannot be opened')
    source = ReopenedSource('camera x', 0.0, open_, ended.wait, lambda line: None)
    thread = threading.Thread(target=lambda: found.append(source.read()))
    thread.start()
    ended.set()
    thread.join(5)
    assert found == [None]


@pytest.mark.parametrize('scheme', ['http', 'rtsp'])
def test_a_stream_that_takes_the_call_and_says_nothing_is_given_up(monkeypatch, scheme):
    monkeypatch.setattr(sources, '_DEVICE_SECONDS', 1)
    with socket.socket() as silent:
        silent.bind(('127.0.0.1', 0))
        silent.listen()
        begin = time.monotonic()
        with pytest.raises(UserError, match='cannot be opened; check the URL'):
            open_source(f'{scheme}://127.0.0.1:{silent.getsockname()[1]}/x')
        assert time.monotonic() - begin < 20  # OpenCV's own is 30 s


def test_a_stream_that_falls_silent_is_lost(monkeypatch):
    monkeypatch.setattr(sources, '_DEVICE_SECONDS', 1)
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([
        sys.executable, str(Path(__file__).with_name('mjpeg_server.py')), str(port), '64', '48',
        '40'])
    try:
        end = time.monotonic() + 60
        while True:
            try:
                source = open_source(f'http://127.0.0.1:{port}/x.mjpg')
                break
            except UserError:
                assert time.monotonic() < end
                time.sleep(0.05)
        count, last = 0, time.monotonic()
        with pytest.raises(UserError, match='delivers no more pictures'):
            while True:
                assert source.read().shape == (48, 64, 3)
                count, last = count + 1, time.monotonic()
        assert count > 10 and time.monotonic() - last < 20
        source.close()
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize('name, live', [
    (0, True), ('7', True), ('/dev/video3', True), ('/dev/v4l/by-id/usb-Cam-index0', True),
    ('/dev/front_camera', True), ('rtsp://x/y', True), ('synthetic', False),
    ('/dev/shm/film.mp4', False), ('film.mp4', False), ('/data/dev/video0', False)])
def test_what_may_be_there_or_not(name, live):
    assert is_live(name) == live


def test_a_device_that_is_no_camera_is_an_error():
    with pytest.raises(UserError, match='camera /dev/v4l/by-id/none cannot be opened; there is'):
        open_source('/dev/v4l/by-id/none')
    with pytest.raises(UserError, match='camera /dev/null cannot be opened'):
        open_source('/dev/null')
