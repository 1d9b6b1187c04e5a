"""What is not among the ROS dependencies: said in one sentence, with a command that works."""

import os
from pathlib import Path
import pkgutil
import re
import subprocess
import sys

import numpy as np
import pytest

import yolojet_ros
from yolojet_ros.core import installing

ROOT = Path(__file__).resolve().parent.parent
# Packages that no rosdep key installs.
OPTIONAL = ('onnx', 'onnxruntime', 'onnxslim', 'torch', 'tensorrt', 'pycuda', 'pycocotools',
            'rosbags', 'trackeval', 'matplotlib', 'pynvml')
_DETECTOR = """
import sys
import rclpy
from yolojet_ros.nodes.detector_node import DetectorNode
rclpy.init(args=['--ros-args', '-p', 'model:=' + sys.argv[1]])
node = DetectorNode()
print(node.trigger_configure())
"""


@pytest.fixture
def without(tmp_path):
    """Return a function that runs Python code where the optional packages are missing."""
    for name in OPTIONAL:
        (tmp_path / f'{name}.py').write_text(f'raise ImportError("no {name}")')
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get('PYTHONPATH', '')])

    def run(*arguments):
        return subprocess.run(
            [sys.executable, *map(str, arguments)], env=dict(os.environ, PYTHONPATH=path),
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            universal_newlines=True, timeout=120)
    return run


def test_what_a_robot_runs_imports_without_the_optional_packages(without):
    names = [item.name for item in pkgutil.walk_packages(yolojet_ros.__path__, 'yolojet_ros.')
             if not re.match(r'yolojet_ros\.(model|__main__)', item.name)]
    assert len(names) > 60
    result = without('-c', '\n'.join(f'import {name}' for name in names))
    assert result.returncode == 0, result.stdout


def test_a_build_is_planned_without_onnx(without):
    result = without('-m', 'yolojet_ros', 'engine', 'build', '--dry-run', '--profile', 'desktop',
                     '--onnx', ROOT / 'engines/demo/yolojet_demo.onnx')
    lines = result.stdout.splitlines()
    assert result.returncode == 0 and 'precision            fp16' in lines, lines
    assert sum('the plan for a model without Q/DQ' in line for line in lines) == 1


def test_a_missing_onnx_runtime_is_one_sentence(without):
    result = without('-m', 'yolojet_ros', 'bench')
    lines = [line for line in result.stdout.splitlines() if line.strip()]
    assert result.returncode == 2, result.stdout
    assert 'ONNX Runtime, which runs .onnx files, is not installed; run "' in lines[-1]
    assert f'numpy=={np.__version__}" or use a TensorRT engine' in lines[-1]
    assert 'Traceback' not in result.stdout


def test_the_detector_says_so_and_stays_unconfigured(without):
    pytest.importorskip('rclpy')
    result = without('-c', _DETECTOR, ROOT / 'engines/demo/yolojet_demo.onnx')
    assert result.returncode == 0, result.stdout
    assert result.stdout.split()[-1].endswith('.FAILURE')
    assert result.stdout.count('ONNX Runtime, which runs .onnx files, is not installed') == 1
    assert 'Traceback' not in result.stdout


def test_the_command_keeps_the_numpy_that_is_there(monkeypatch):
    monkeypatch.setattr(sys, 'prefix', sys.base_prefix)
    assert installing.install_command('onnxruntime') == (
        'python3 -m venv --system-site-packages ~/yolojet_venv && '
        f'. ~/yolojet_venv/bin/activate && pip install onnxruntime numpy=={np.__version__}')
    monkeypatch.setattr(sys, 'prefix', '/my/venv')
    monkeypatch.setattr(sys, 'executable', '/my/venv/bin/python')
    assert installing.install_command('torch', 'x<2') == (
        f"/my/venv/bin/python -m pip install torch 'x<2' numpy=={np.__version__}")
