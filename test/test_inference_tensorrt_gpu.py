"""On a real GPU: kernels beside their twins, and what happens when the GPU fails."""

import os
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest
from yolojet_ros.core.errors import UserError
from yolojet_ros.engine import kernel_check
from yolojet_ros.inference.backend import BackendError
from yolojet_ros.inference.cuda.device import Device

pytestmark = pytest.mark.gpu

_LOST = """
from yolojet_ros.core.errors import UserError
from yolojet_ros.engine import kernel_check
from yolojet_ros.inference.backend import BackendError
from yolojet_ros.inference.cuda import kernels
from yolojet_ros.inference.cuda.device import Device
from yolojet_ros.inference.cuda.frame import Kernels
device = Device()
try:
    with device.current():
        functions = Kernels(
            device, kernels.cubin(device.capability), kernel_check.check_card('yolov8', 1, 1))
        stream = device.stream()
        functions.letterbox.prepared_async_call((1, 1, 1), (32, 8, 1), stream, 16, 16, 16, 32, 8)
        stream.synchronize()
except BackendError as error:
    print('told:', error)
device.close()
try:
    Device()
except UserError as error:
    print('told again:', error)
"""


@pytest.fixture
def device():
    try:
        device = Device()
    except UserError as error:
        pytest.skip(str(error))
    yield device
    device.close()


@pytest.mark.parametrize('mapped', [False, True])
def test_letterbox_equals_its_twin(device, mapped):
    with device.current():
        found = kernel_check.check_letterbox(device, np.random.default_rng(3), 3, mapped)
    for encoding, deviation in found.items():
        assert deviation.pixels <= 1.001, encoding
        assert deviation.equal > 0.99, encoding
    assert device.allocated == 0


def test_decode_and_nms_equal_their_twins(device):
    with device.current():
        found = kernel_check.check_decode(device, np.random.default_rng(4))
    for head, deviation in found.items():
        # Exponential functions and sines are those of two libraries.
        loose = any(word in head for word in ('grid', 'rfdetr', 'obb'))
        assert deviation.same_sets and deviation.mask >= 0.999, head
        assert deviation.box_px <= (0.01 if loose else 0), head
        assert deviation.score <= (1e-6 if loose else 0), head


def test_no_memory_is_told_and_nothing_is_lost(device):
    with pytest.raises(BackendError, match='out of memory'):
        with device.current():
            device.allocate(device.memory()[1] * 2)
    with device.current():
        device.allocate(1 << 20).free()


def test_a_closed_device_is_told(device):
    device.close()
    with pytest.raises(BackendError, match='closed'):
        with device.current():
            pass


def test_a_lost_context_is_told_and_needs_another_process(device):
    # In a process of its own, because the error spoils every context of a process.
    device.close()
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join([str(root), os.environ.get('PYTHONPATH', '')])
    done = subprocess.run(
        [sys.executable, '-c', _LOST], env={**os.environ, 'PYTHONPATH': path},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    text = done.stdout.decode()
    assert done.returncode == 0, text
    assert 'told: CUDA failed' in text and 'told again: GPU 0' in text, text
    assert 'restart the node' in text
