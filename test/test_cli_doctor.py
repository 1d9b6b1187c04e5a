"""The command `doctor` as a person and a program use it."""

import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

from yolojet_ros.cli.main import main

ROOT = Path(__file__).resolve().parents[1]


def _doctor(capfd, *words, code):
    assert main(['doctor', *words]) == code
    return capfd.readouterr()


def test_table_and_exit_code(capfd, monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', '7')
    out, said = _doctor(capfd, '--only', 'interpreter', 'discovery', code=0)
    assert said == '' and out.splitlines()[0] == 'python'
    assert out.splitlines()[-1] == '2 checks: 2 ok' and '\033' not in out
    monkeypatch.setenv('ROS_DOMAIN_ID', '150')
    out, _ = _doctor(capfd, '--only', 'interpreter', 'discovery', code=1)
    assert 'WARN discovery' in out and '$  export ROS_DOMAIN_ID=42' in out
    monkeypatch.setenv('ROS_DOMAIN_ID', 'x')
    assert 'FAIL discovery' in _doctor(capfd, '--only', 'discovery', 'swap', code=2)[0]


def test_json(capfd, monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', 'x')
    out, _ = _doctor(capfd, '--json', '--only', 'ros', '--skip', 'rclpy', code=2)
    record = json.loads(out)
    assert record['exit_code'] == 2 and [item['name'] for item in record['checks']] == [
        'rmw', 'discovery', 'vision_msgs', 'security']
    assert set(record['checks'][0]) == {
        'name', 'area', 'status', 'found', 'meaning', 'command', 'seconds'}


@pytest.mark.parametrize('words, said', [
    (('--only', 'gpus'), 'no check or area "gpus"; did you mean gpu?'),
    (('--only', 'swap', '--skip', 'swap'), 'leave no check')])
def test_wrong_names_are_one_sentence(capfd, words, said):
    out, error = _doctor(capfd, *words, code=2)
    assert out == '' and len(error.splitlines()) == 1 and said in error


@pytest.mark.parametrize('value', ['0', '-1', 'nan', 'long'])
def test_wrong_time_limits_are_refused(capfd, value):
    with pytest.raises(SystemExit) as ended:
        main(['doctor', '--timeout', value])
    assert ended.value.code == 2 and '--timeout' in capfd.readouterr().err


def test_list_makes_no_check(capfd):
    out, _ = _doctor(capfd, '--list', '--only', 'gpu', code=0)
    assert len(out.splitlines()) == 7 and 'TensorRT, and a builder (60 s at most)' in out


def test_an_interrupt_ends_what_a_check_has_started(tmp_path):
    (tmp_path / 'onnxruntime.py').write_text(
        f'import time\nopen({str(tmp_path / "begun")!r}, "w")\ntime.sleep(60)\n')
    process = subprocess.Popen(
        [sys.executable, '-m', 'yolojet_ros', 'doctor', '--only', 'interpreter', 'onnxruntime'],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)])),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    end = time.monotonic() + 20
    while not (tmp_path / 'begun').exists() and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out = process.communicate(timeout=10)[0].decode()
    assert process.returncode == 130 and 'ok   interpreter' in out and 'Traceback' not in out
    assert not [folder for folder in Path('/proc').glob('[0-9]*')
                if str(tmp_path).encode() in _environment(folder)], 'the probe ended, too'


def _environment(folder):
    try:
        return (folder / 'environ').read_bytes()
    except OSError:
        return b''
