"""Ctrl-C at any moment of a start: no traceback, and the exit code of a node that has started."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from models import raw_output, write_model  # noqa: E402
from ros_peers import DOMAIN, ROOT, wait_until  # noqa: E402


@pytest.fixture
def start(tmp_path):
    """Return a function that starts an executable; it must leave no traceback."""
    running = []
    log = tmp_path / 'log'

    def begin(executable, *arguments):
        with log.open('w') as stream:
            running.append(subprocess.Popen(
                [sys.executable, str(ROOT / 'scripts' / executable), '--ros-args', *arguments],
                env=dict(os.environ, ROS_DOMAIN_ID=str(DOMAIN), PYTHONPATH=str(ROOT)),
                stdout=stream, stderr=subprocess.STDOUT,
                # Jobs in the background are started with it ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.wait()
    assert 'Traceback' not in log.read_text()


def _wait_for_library(process, name):
    """Wait until a process has loaded a library; it may have ended before."""
    def loaded():
        try:
            return name in Path(f'/proc/{process.pid}/maps').read_text()
        except OSError:
            return True
    wait_until(loaded, 30)


# Each library marks a moment of the start; rmw is loaded by rclpy.init, after all imports.
@pytest.mark.parametrize('library', ['multiarray', 'cv2', '_rclpy_pybind11', 'librmw_'])
@pytest.mark.parametrize('executable, code', [
    ('detector_node', 0), ('camera_node', 0), ('build_engine', 130)])
def test_interrupt_while_starting(start, executable, code, library):
    process = start(executable)
    _wait_for_library(process, library)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == code


@pytest.mark.parametrize('delay', [0.1, 0.3, 0.9])
def test_interrupt_while_the_node_comes_up(start, delay):
    process = start('detector_node', '-p', 'autostart:=true')
    _wait_for_library(process, 'librmw_')
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_model_that_never_finishes_loading_can_be_left(start, tmp_path, number):
    model = write_model(tmp_path / 'model.onnx', raw_output([], [], (320, 192)), endless=True)
    process = start('detector_node', '-p', 'autostart:=true', '-p', f'model:={model}')
    _wait_for_library(process, 'onnxruntime_pybind11_state')
    time.sleep(2)
    process.send_signal(number)
    assert process.wait(4) == 0
    log = (tmp_path / 'log').read_text()
    assert 'autostart' not in log and 'active' not in log and 'terminate' not in log
