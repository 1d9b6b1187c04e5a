"""Commands that are told to end, by whatever signal: the nodes go too, and nothing stays."""

import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from ros_peers import DOMAIN, ROOT, wait_until  # noqa: E402


@pytest.fixture
def begin(tmp_path):
    """Return a function that starts a command; at the end all that it began is looked for."""
    begun = []
    mark = f'YOLOJET_TEST_MARK={tmp_path}'

    def start(*arguments, ignore=None):
        def prepare():
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # jobs in the background ignore it
            if ignore:
                signal.signal(ignore, signal.SIG_IGN)

        name, value = mark.split('=', 1)
        environment = dict(os.environ, ROS_DOMAIN_ID=str(DOMAIN), PYTHONPATH=str(ROOT))
        with (tmp_path / f'log_{len(begun)}').open('w') as log:
            begun.append(subprocess.Popen(
                [sys.executable, '-m', 'yolojet_ros', *map(str, arguments)], cwd=ROOT,
                env={**environment, name: value}, stdout=log, stderr=subprocess.STDOUT,
                preexec_fn=prepare))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.wait()
    try:
        wait_until(lambda: not _marked(mark), 20)
    finally:
        for pid in _marked(mark):
            os.kill(pid, signal.SIGKILL)
    assert all('Traceback' not in log.read_text() for log in tmp_path.glob('log_*'))
    assert not list(tmp_path.rglob('.*')), 'no temporary files stay'


def _marked(mark):
    """Return the processes with this in their environment."""
    found = []
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            if mark.encode() in (folder / 'environ').read_bytes():
                found.append(int(folder.name))
        except OSError:
            pass
    return found


def _node(mark, name):
    """Return the process of a node."""
    for pid in _marked(mark):
        try:
            if f'{name}_node'.encode() in Path(f'/proc/{pid}/cmdline').read_bytes():
                return pid
        except OSError:
            pass
    return None


def _draws(out):
    return list(out.glob('.annotated-*')) if out.is_dir() else []


# The last ends the command itself at once: its nodes are on their own.
@pytest.mark.parametrize('number, code', [
    (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_demo_that_is_told_to_end_takes_its_nodes_along(tmp_path, begin, number, code):
    process = begin('demo', '--seconds', 60, '--out', tmp_path / 'out')
    wait_until(lambda: _draws(tmp_path / 'out'), 40)
    process.send_signal(number)
    assert process.wait(20) == code


@pytest.mark.parametrize('seconds', [0.005, 0.02, 0.1])
def test_two_interrupts_end_a_demo_as_one(tmp_path, begin, seconds):
    process = begin('demo', '--seconds', 60, '--out', tmp_path / 'out')
    wait_until(lambda: (tmp_path / 'out/detector.log').exists(), 40)
    process.send_signal(signal.SIGINT)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130


def test_a_demo_whose_monitor_is_ended_says_so(tmp_path, begin):
    process = begin('demo', '--seconds', 60, '--out', tmp_path / 'out')
    wait_until(lambda: _draws(tmp_path / 'out'), 40)
    os.kill(_node(f'YOLOJET_TEST_MARK={tmp_path}', 'monitor'), signal.SIGTERM)
    assert process.wait(30) == 1
    said = (tmp_path / 'log_0').read_text().strip().splitlines()[-1]
    assert said.startswith('yolojet: the monitor node was ended')


def test_two_demos_at_once_do_not_mix(tmp_path, begin):
    cameras = ('synthetic', ROOT / 'docs')
    demos = [begin('demo', '--seconds', 4, '--out', tmp_path / str(index), '--source', source)
             for index, source in enumerate(cameras)]
    for process in demos:
        process.wait(90)
    for index in range(2):
        frames = json.loads((tmp_path / str(index) / 'summary.json').read_text())['frames']
        assert frames['lost_in_transport'] == 0
        assert 0 < frames['results_received'] == frames['processed'] <= frames['received']


# Modules in the order in which they are imported.
@pytest.mark.parametrize('module, number, code', [
    ('argparse', signal.SIGINT, 130), ('json', signal.SIGINT, 130), ('numpy', signal.SIGINT, 130),
    ('scipy', signal.SIGTERM, 143), ('scipy', signal.SIGHUP, 129)])
def test_a_signal_while_a_command_is_imported(module, number, code):
    process = subprocess.Popen(
        [sys.executable, '-X', 'importtime', '-m', 'yolojet_ros', 'track', 'evaluate'], cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    try:
        assert any(line.split()[-1] == module for line in process.stderr), 'never imported'
        process.send_signal(number)
        said = process.communicate(timeout=20)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == code and 'Traceback' not in said


def test_nohup_is_heeded(begin):
    """A signal that a command was started to ignore does not end it."""
    process = begin('track', 'evaluate', '--scenes', '1', '--seconds', '2', ignore=signal.SIGHUP)
    while process.poll() is None:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
    assert process.returncode == 0
