"""The engine builder as a node: it builds, tells, and ends with the right code."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import conv_model
import cuda_on_host
import host_device
import pytest
import trt_standin

rclpy = pytest.importorskip('rclpy')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402, I100
from yolojet_ros.core.engine_card import EngineCard  # noqa: E402
from yolojet_ros.nodes.engine_builder_node import EngineBuilderNode  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return a function that runs the node with parameters; (exit code, diagnostics)."""
    if cuda_on_host.COMPILER is None:
        pytest.skip('g++ is not installed')
    host_device.install(monkeypatch, cuda_on_host.build(tmp_path))
    monkeypatch.setitem(sys.modules, 'tensorrt', trt_standin.make('8.5'))
    rclpy.init(domain_id=89)

    def build(**values):
        node = EngineBuilderNode(parameter_overrides=[
            rclpy.parameter.Parameter(name, value=value) for name, value in values.items()])
        found = []
        node.create_subscription(DiagnosticArray, '/diagnostics', found.append, 100)
        node.start()
        limit = time.monotonic() + 60
        while node.exit_code is None and time.monotonic() < limit:
            rclpy.spin_once(node, timeout_sec=0.05)
        code = node.exit_code
        node.destroy_node()
        return code, [array.status[0] for array in found
                      if array.status[0].name == '/engine_builder: build']
    yield build
    rclpy.shutdown()


def test_it_builds_and_tells(run, tmp_path):
    out = tmp_path / 'e.engine'
    code, statuses = run(onnx=conv_model.write(tmp_path), profile='desktop', out=str(out),
                         workspace=64)
    assert code == 0
    assert EngineCard.load(out).workspace_bytes == 64 << 20
    assert any('timing kernels' in status.message for status in statuses)
    assert statuses[-1].level == DiagnosticStatus.OK and statuses[-1].message == 'built'
    values = {pair.key: pair.value for pair in statuses[-1].values}
    assert values['engine'] == str(out) and values['verified'] == 'True'


def test_wrong_parameters_end_with_2(run, tmp_path):
    code, statuses = run(onnx=str(tmp_path / 'no.onnx'), profile='desktop')
    assert code == 2
    assert statuses[-1].level == DiagnosticStatus.ERROR
    assert 'no model at' in statuses[-1].message
    assert run(profile='desktop')[0] == 2


# TensorRT tells what it does and does not come back, however the process is asked to end.
_ENDLESS = """
import sys, time
from yolojet_ros.nodes import engine_builder_node as node
def build(plan, report, warn):
    while True:
        report('1 s  timing kernels')
        time.sleep(0.02)
node.resolve = lambda options: Plan
node.build_engine = build
class Plan:
    out, precision, workspace_bytes = 'no.engine', 'fp16', 0
    options, profile = type('', (), {'onnx': 'no.onnx'}), type('', (), {'name': 'desktop'})
sys.exit(node.main())
"""


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('seconds', [0.2, 0.35])
def test_a_signal_ends_a_build_without_a_trace(tmp_path, number, seconds):
    log = tmp_path / 'log'
    with log.open('w') as stream:
        process = subprocess.Popen(
            [sys.executable, '-c', _ENDLESS, '--ros-args', '-p', 'onnx:=no.onnx'],
            env=dict(os.environ, ROS_DOMAIN_ID='88', PYTHONPATH=str(ROOT)), stdout=stream,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    try:
        limit = time.monotonic() + 30
        while 'timing kernels' not in log.read_text() and time.monotonic() < limit:
            time.sleep(0.05)
        time.sleep(seconds)
        for _ in range(3):
            process.send_signal(number)
            time.sleep(0.01)
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.wait()
    assert 'Traceback' not in log.read_text() and '[ERROR]' not in log.read_text()


def test_the_executable_ends_with_the_code_of_the_node(tmp_path):
    if not os.access('/proc/driver/nvidia', os.R_OK):
        done = subprocess.run(
            [sys.executable, str(ROOT / 'scripts' / 'build_engine'), '--ros-args', '-p',
             f'onnx:={conv_model.write(tmp_path)}', '-p', 'profile:=desktop'],
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(
                [str(ROOT), os.environ.get('PYTHONPATH', '')])},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        text = done.stdout.decode()
        assert done.returncode == 2, text
        assert 'PyCUDA' in text or 'GPU' in text
        assert not list(tmp_path.glob('*.engine*'))
