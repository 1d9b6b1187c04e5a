"""The CUDA kernels compute what their NumPy twins compute."""

import re
import zlib

import cuda_on_host
from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
from yolojet_ros.core.filters import MAX_BOXES, MAX_ROI_POINTS
from yolojet_ros.core.head import detect, MAX_SIDE
from yolojet_ros.core.image_formats import FORMATS, ImageView
from yolojet_ros.core.letterbox import Letterboxer
from yolojet_ros.core.model_card import HeadLayout, ModelCard
from yolojet_ros.core.nms import MAX_CANDIDATES
from yolojet_ros.engine import kernel_check
from yolojet_ros.inference.cuda import kernels, sampling
from yolojet_ros.inference.cuda.sampling import Sampling

NETWORKS = ((320, 192), (96, 160), (64, 64))


@pytest.mark.parametrize('name,limit', [
    ('MAX_CANDIDATES', MAX_CANDIDATES), ('MAX_BOXES', MAX_BOXES),
    ('MAX_ROI_POINTS', MAX_ROI_POINTS), ('MAX_SIDE', MAX_SIDE)])
def test_limits_are_the_same_on_both_sides(name, limit):
    assert re.findall(rf'#define {name} (\d+)', kernels.source()) == [str(limit)]


@pytest.mark.parametrize('encoding', sorted(FORMATS))
def test_letterbox_kernel_equals_its_twin(library, encoding):
    rng = np.random.default_rng(zlib.crc32(encoding.encode()))
    equal = []
    for network in NETWORKS:
        letterboxer = Letterboxer(network)
        views = [kernel_check.random_view(rng, encoding, 300) for _ in range(2)]
        ready = [sampling.for_kernel(view) for view in views]
        found = cuda_on_host.letterbox(
            library, [Sampling.plan(view, network) for view in ready], ready)
        for view, tensor in zip(views, found):
            largest, same = kernel_check.compare_tensors(tensor, letterboxer(view)[0][0])
            assert largest <= 1.001, (view.width, view.height, view.step)
            equal.append(same)
    assert np.mean(equal) > 0.99


def test_letterbox_stages_only_the_rows_it_reads():
    view = ImageView.from_bgr(np.zeros((720, 1280, 3), np.uint8))
    assert Sampling.plan(view, (320, 192)).staged_shape == (360, 3840)
    assert Sampling.plan(view, (640, 640)).staged_shape == (720, 3840)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), layout=st.sampled_from(list(HeadLayout)),
       classes=st.sampled_from([1, 3, 80]), rows=st.integers(1, 700),
       busy=st.sampled_from([0.02, 0.3, 1.0]))
def test_decode_and_nms_kernels_equal_their_twins(library, seed, layout, classes, rows, busy):
    rng = np.random.default_rng(seed)
    card = ModelCard('x', tuple('c' * (i + 1) for i in range(classes)), (640, 384), 32, layout,
                     rows)
    detector = cuda_on_host.Detector(library, layout, classes, rows, 2)
    heads = np.stack([kernel_check.random_head(rng, card, busy) for _ in range(2)])
    letterboxes = [kernel_check.random_letterbox(rng, card) for _ in range(2)]
    samplings = [
        Sampling.plan(ImageView(np.zeros(0, np.uint8), *box.source, box.source[0], 'mono8'),
                      card.input_size) for box in letterboxes]
    selection = kernel_check.random_selection(rng, classes)
    found = detector(heads, samplings, selection)
    for head, letterbox, result in zip(heads, letterboxes, found):
        expected = detect(head, layout, letterbox, selection)
        assert np.array_equal(result.boxes, expected.boxes)
        assert np.array_equal(result.scores, expected.scores)
        assert np.array_equal(result.classes, expected.classes)
        assert result.broken == expected.broken
    assert not detector.tallies.view(np.int32).any()  # the next frame starts from zero


def test_thousands_of_candidates_are_cut_to_the_best(library):
    rng = np.random.default_rng(5)
    rows = 6000
    card = ModelCard('x', ('a', 'b'), (640, 640), 32, HeadLayout.RAW, rows)
    head = kernel_check.random_head(rng, card, 1.0)
    letterbox = kernel_check.random_letterbox(rng, card)
    view = ImageView(np.zeros(0, np.uint8), *letterbox.source, letterbox.source[0], 'mono8')
    selection = kernel_check.random_selection(rng, 2)
    selection.thresholds[:] = 0
    found = cuda_on_host.Detector(library, card.layout, 2, rows, 1)(
        head[None], [Sampling.plan(view, card.input_size)], selection)[0]
    same, box, score = kernel_check.compare_detections(
        found, detect(head, card.layout, letterbox, selection))
    assert same and box == 0 and score == 0


def test_kernels_compile(tmp_path, monkeypatch):
    if kernels.find_nvcc() is None and not any(kernels.nvrtc_libraries()):
        pytest.skip('neither nvcc nor NVRTC is installed')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    binary = kernels.cubin((7, 5))
    assert b'letterbox_f16' in binary
    assert (tmp_path / 'yolojet' / kernels.cache_name((7, 5))).read_bytes() == binary
