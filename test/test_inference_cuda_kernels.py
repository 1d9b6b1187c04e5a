"""The CUDA kernels compute what their NumPy twins compute."""

from dataclasses import replace
import re
import zlib

import cuda_on_host
import host_device
from hypothesis import given, HealthCheck, settings, strategies as st
import numpy as np
import pytest
from yolojet_ros.core.decode import detect, MAX_SIDE
from yolojet_ros.core.filters import MAX_BOXES, MAX_ROI_POINTS
from yolojet_ros.core.head import HEADS
from yolojet_ros.core.image_formats import FORMATS, ImageView
from yolojet_ros.core.image_input import Fit, ImageInput
from yolojet_ros.core.letterbox import Letterboxer
from yolojet_ros.core.nms import MAX_CANDIDATES
from yolojet_ros.engine import kernel_check
from yolojet_ros.inference.cuda import head_struct, kernels, sampling
from yolojet_ros.inference.cuda.sampling import Sampling

NETWORKS = ((320, 192), (96, 160), (64, 64))


@pytest.mark.parametrize('name,limit', [
    ('MAX_CANDIDATES', MAX_CANDIDATES), ('MAX_BOXES', MAX_BOXES),
    ('MAX_ROI_POINTS', MAX_ROI_POINTS), ('MAX_SIDE', MAX_SIDE)])
def test_limits_are_the_same_on_both_sides(name, limit):
    assert re.findall(rf'#define {name} (\d+)', kernels.source()) == [str(limit)]


@pytest.mark.parametrize('antialias', [False, True])
@pytest.mark.parametrize('encoding', sorted(FORMATS))
def test_letterbox_kernel_equals_its_twin(library, encoding, antialias):
    takes = ImageInput(antialias=antialias)
    rng = np.random.default_rng(zlib.crc32(encoding.encode()))
    equal = []
    for network in NETWORKS:
        letterboxer = Letterboxer(network, takes)
        views = [kernel_check.random_view(rng, encoding, 300) for _ in range(2)]
        ready = [sampling.for_kernel(view) for view in views]
        found = cuda_on_host.letterbox(
            library, [Sampling.plan(view, network, takes) for view in ready], ready)
        for view, tensor in zip(views, found):
            largest, same = kernel_check.compare_tensors(tensor, letterboxer(view)[0][0])
            assert largest <= 1.001, (view.width, view.height, view.step)
            equal.append(same)
    assert np.mean(equal) > 0.99


@pytest.mark.parametrize('step', [1 / 127, 1 / 100, 0.03])
def test_letterbox_kernel_in_int8_equals_its_twin(library, step):
    rng = np.random.default_rng(8)
    takes = ImageInput(dtype='int8', step=step, mean=(0.0, 0.1, 0.5), std=(1.0, 0.5, 0.3))
    card = replace(kernel_check.check_card('yolov8', 1, 1, size=(96, 64)), input=takes)
    equal = []
    for _ in range(4):
        view = sampling.for_kernel(kernel_check.random_view(rng, 'bgr8', 300))
        found = cuda_on_host.letterbox(
            library, [Sampling.plan(view, (96, 64), takes)], [view], head_struct.takes(card),
            np.int8)[0]
        expected = Letterboxer((96, 64), takes)(view)[0][0]
        difference = np.abs(found.astype(int) - expected)
        assert difference.max() <= np.ceil(1 / 255 / 0.3 / step)
        equal.append(np.mean(difference == 0))
    assert np.mean(equal) > 0.99


def test_letterbox_stages_only_the_rows_it_reads():
    view = ImageView.from_bgr(np.zeros((720, 1280, 3), np.uint8))
    assert Sampling.plan(view, (320, 192)).staged_shape == (360, 3840)
    assert Sampling.plan(view, (640, 640)).staged_shape == (720, 3840)


@pytest.mark.parametrize('fit', list(Fit))
@pytest.mark.parametrize('order', ['rgb', 'bgr'])
@pytest.mark.parametrize('antialias', [False, True])
def test_letterbox_kernel_takes_images_as_any_model_wants_them(library, fit, order, antialias):
    rng = np.random.default_rng(3)
    takes = ImageInput(fit, 7, order, 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225),
                       antialias=antialias)
    card = replace(kernel_check.check_card('yolov8', 1, 1, size=(96, 64)), input=takes)
    view = sampling.for_kernel(kernel_check.random_view(rng, 'bgr8', 300))
    found = cuda_on_host.letterbox(
        library, [Sampling.plan(view, (96, 64), takes)], [view], head_struct.takes(card))[0]
    expected = Letterboxer((96, 64), takes)(view)[0][0]
    step = 1 / 255 / 0.224
    assert np.abs(found - expected).max() <= 1.01 * step
    assert np.mean(np.abs(found - expected) < 1e-5) > 0.99


@pytest.fixture
def device(library, monkeypatch):
    monkeypatch.setattr(host_device.HostDevice, 'library', library)
    return host_device.HostDevice()


@settings(max_examples=120, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1),
       head=st.sampled_from([(head.key, task) for head in HEADS for task in head.tasks
                             if task != 'classify' and head.batch is None]),
       classes=st.sampled_from([1, 3, 80]), rows=st.integers(1, 700),
       busy=st.sampled_from([0.02, 0.3, 1.0]), half=st.booleans())
def test_kernels_equal_their_twins_on_every_head_and_task(
        device, seed, head, classes, rows, busy, half):
    rng = np.random.default_rng(seed)
    key, task = head
    card = kernel_check.check_card(key, classes, rows, task, (128, 96))
    outputs = kernel_check.random_outputs(rng, card, busy)
    outputs = [part.astype(np.float16) if half else part for part in outputs]
    letterbox = kernel_check.random_letterbox(rng, card, 300)
    selection = kernel_check.random_selection(rng, classes)
    found = kernel_check.run_decode(device, b'', card, outputs, letterbox, selection)
    expected = detect(outputs, card.head, letterbox, selection)
    # The exponential functions and the angles' sines are those of two libraries.
    exact = not (card.head.head.logits or card.head.head.grid or task == 'obb')
    same, box, score = kernel_check.compare_detections(found, expected)
    assert same and box <= (0 if exact else 0.01) and score <= (0 if exact else 1e-6)
    keypoint, rotated, mask = kernel_check.compare_extras(found, expected)
    assert keypoint == 0 and rotated <= 1e-3 and mask >= 0.999


def test_the_check_of_letterboxes_finds_no_fault(device, monkeypatch):
    monkeypatch.setattr(kernels, 'cubin', lambda capability: b'')
    for encoding, deviation in kernel_check.check_letterbox(
            device, np.random.default_rng(3), 6).items():
        assert deviation.pixels <= 1.001 and deviation.equal > 0.99, encoding


def test_thousands_of_candidates_are_cut_to_the_best(device):
    rng = np.random.default_rng(5)
    card = kernel_check.check_card('yolov8', 2, 6000, size=(640, 640))
    outputs = kernel_check.random_outputs(rng, card, 1.0)
    letterbox = kernel_check.random_letterbox(rng, card)
    selection = kernel_check.random_selection(rng, 2)
    selection.thresholds[:] = 0
    same, box, score = kernel_check.compare_detections(
        kernel_check.run_decode(device, b'', card, outputs, letterbox, selection),
        detect(outputs, card.head, letterbox, selection))
    assert same and box == 0 and score == 0


def test_kernels_compile(tmp_path, monkeypatch):
    if kernels.find_nvcc() is None and not any(kernels.nvrtc_libraries()):
        pytest.skip('neither nvcc nor NVRTC is installed')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    binary = kernels.cubin((7, 5))
    assert b'letterbox_f16' in binary
    assert (tmp_path / 'yolojet' / kernels.cache_name((7, 5))).read_bytes() == binary
