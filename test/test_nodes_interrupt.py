"""Ctrl-C at any moment of a start: no traceback, and the exit code of a node that has started."""

import os
from pathlib import Path
import random
import re
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from models import raw_output, write_model  # noqa: E402
from ros_peers import DOMAIN, ROOT, wait_until  # noqa: E402
import shared_memory  # noqa: E402


@pytest.fixture
def start(tmp_path):
    """Return a function that starts an executable; it must leave no traceback."""
    running = []
    log = tmp_path / 'log'

    def begin(executable, *arguments):
        with log.open('w') as stream:
            running.append(subprocess.Popen(
                [sys.executable, *_executable(executable), '--ros-args', *arguments],
                env=dict(os.environ, ROS_DOMAIN_ID=str(DOMAIN), PYTHONPATH=str(ROOT)),
                stdout=stream, stderr=subprocess.STDOUT,
                # Jobs in the background are started with it ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)))
        return running[-1]

    yield begin
    for process in running:
        shared_memory.kill(process.pid)
        process.wait()
    assert 'Traceback' not in log.read_text()


def _executable(name):
    script = ROOT / 'scripts' / name
    # The monitor is one of the demo's, which starts it so.
    return [script] if script.exists() else ['-m', 'yolojet_ros.nodes.start', name]


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


# Where in its life a node is told to end: a library or a line that marks it, seconds after it.
_MOMENTS = [
    ('detector_node', 'cv2', 0.2), ('detector_node', 'librmw_', 0.4),
    ('detector_node', 'onnxruntime_pybind11_state', 0.3), ('detector_node', 'active: waiting', 0.5),
    ('camera_node', 'librmw_', 0.3), ('camera_node', '] [camera]: publishing', 0.3),
    ('monitor_node', 'librmw_', 0.3), ('monitor_node', 'images over DDS', 0.3)]
_TRIES = int(os.environ.get('YOLOJET_TEST_INTERRUPTS', 2))  # at each moment


@pytest.mark.parametrize('executable, mark, latest', _MOMENTS)
def test_further_interrupts_do_not_cut_the_end_short(start, tmp_path, executable, mark, latest):
    """A terminal, `ros2 launch` and a person may all send one, at nearly the same time."""
    generator = random.Random(f'{executable} {mark}')
    for _ in range(_TRIES):
        process = start(executable, '-p', f'out:={tmp_path}', '-p', 'autostart:=true')
        if ' ' in mark:
            wait_until(lambda: mark in (tmp_path / 'log').read_text(), 30)
        else:
            _wait_for_library(process, mark)
        time.sleep(generator.uniform(0, latest))
        segments = shared_memory.segments(process.pid)
        for _ in range(generator.choice((2, 3, 6))):
            process.send_signal(generator.choice((signal.SIGINT, signal.SIGINT, signal.SIGTERM))
                                if ' ' in mark else signal.SIGINT)
            time.sleep(generator.uniform(0.005, 0.04))
        log = tmp_path / 'log'
        assert process.wait(10) == 0, log.read_text()
        wrong = [line for line in log.read_text().splitlines() if re.search(
            r'\[ERROR\]|\[FATAL\]|terminate|Exception|Error|Traceback', line)]
        assert not wrong, wrong
        assert not [file for file in segments if file.exists()]


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_abandoned_load_leaves_no_shared_memory(start, tmp_path, number):
    model = write_model(tmp_path / 'model.onnx', raw_output([], [], (320, 192)), endless=True)
    process = start('detector_node', '-p', 'autostart:=true', '-p', f'model:={model}')
    _wait_for_library(process, 'onnxruntime_pybind11_state')
    time.sleep(1)
    segments = shared_memory.segments(process.pid)
    process.send_signal(number)
    assert process.wait(10) == 0 and segments
    assert not [file for file in segments if file.exists()]


def test_a_node_that_a_test_kills_leaves_no_shared_memory(start, tmp_path):
    process = start('camera_node')
    wait_until(lambda: '] [camera]: publishing' in (tmp_path / 'log').read_text(), 30)
    segments = shared_memory.segments(process.pid)
    shared_memory.kill(process.pid)
    assert process.wait(10) == -9 and segments
    assert not [file for file in segments if file.exists()]
