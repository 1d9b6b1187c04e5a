"""The TensorRT backend around its network: slots, recordings, batches and failures."""

from pathlib import Path
import sys
import types

import conv_model
import host_device
from host_device import HostDevice, HostGraph
import numpy as np
import onnx
from onnx import numpy_helper
import pytest
import trt_standin
from yolojet_ros.core.engine_card import EngineCard
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.filters import FilterParams
from yolojet_ros.core.image_formats import ImageError, ImageView
from yolojet_ros.core.stage_times import StageTimes
from yolojet_ros.engine import plan, workflow
from yolojet_ros.inference.backend import BackendError
from yolojet_ros.inference.check import checked
from yolojet_ros.inference.load import load_backend
from yolojet_ros.inference.onnxruntime_backend import OnnxRuntimeBackend
from yolojet_ros.inference.tensorrt_backend import (
    _MAX_GEOMETRIES, read_card, TensorRTBackend)
from yolojet_ros.inference.tensorrt_network import Tensor


@pytest.fixture
def trt(monkeypatch, library):
    host_device.install(monkeypatch, library)
    module = trt_standin.make('8.6')
    monkeypatch.setitem(sys.modules, 'tensorrt', module)
    return module


@pytest.fixture
def make(trt, tmp_path):
    """Return a function that builds an engine and loads it."""
    loaded = []

    def load(batch=1, **options):
        onnx = conv_model.write(tmp_path, batch='batch' if batch > 1 else 1)
        engine = tmp_path / f'b{batch}.engine'
        if not engine.is_file():
            # What is verified is tested elsewhere.
            workflow.build_engine(
                plan.resolve(plan.Options(
                    onnx, 'desktop', str(engine), batch=batch,
                    verify_images=str(images(tmp_path)))), lambda line: None, lambda text: None)
        loaded.append(TensorRTBackend(engine, **options))
        return loaded[-1]
    yield load
    for backend in loaded:
        backend.close()


def images(folder):
    """Return a folder of a few pictures."""
    import cv2
    target = folder / 'pictures'
    target.mkdir(exist_ok=True)
    for index in range(8):
        picture = np.random.default_rng(index).integers(0, 256, (64, 96, 3), dtype=np.uint8)
        cv2.imwrite(str(target / f'{index}.png'), picture)
    return target


def view(seed=0, size=(110, 70), encoding='bgr8'):
    rng = np.random.default_rng(seed)
    channels = {'bgr8': 3, 'mono8': 1, 'bayer_rggb8': 1}[encoding]
    data = rng.integers(0, 256, size[0] * size[1] * channels, dtype=np.uint8)
    return ImageView(data, *size, size[0] * channels, encoding)


def choose(backend, **wishes):
    return FilterParams(**wishes).resolve(backend.card.names)


def together(backend, views, *selections):
    """Return what one run finds on several images; one selection serves them all."""
    backend.submit(views, selections * (len(views) // len(selections)),
                   [StageTimes() for _ in views])
    return backend.collect()


def same(found, wanted):
    return (len(found) == len(wanted) and np.allclose(found.boxes, wanted.boxes, atol=1e-3)
            and np.allclose(found.scores, wanted.scores, atol=1e-5))


def test_thresholds_change_without_recording_again(make):
    backend = make()
    counts = [len(backend.detect(view(), choose(backend, score_threshold=score), StageTimes()))
              for score in (0.1, 0.4, 0.9)]
    assert counts[0] > counts[1] > counts[2] == 0
    assert HostGraph.made == 2  # one of the builder's measurement, one of the geometry


def test_one_recording_serves_all_geometries_and_old_tables_go(make):
    backend = make()
    selection = choose(backend)
    for _ in range(2):
        for width in (60, 80, 100):
            backend.detect(view(size=(width, 50)), selection, StageTimes())
    assert HostGraph.made == 2
    for width in range(40, 60 + _MAX_GEOMETRIES):
        backend.detect(view(size=(width, 50)), selection, StageTimes())
    assert HostGraph.made == 2
    assert len(alive(backend)) < 2 * _MAX_GEOMETRIES + 30


def test_nothing_is_allocated_after_the_first_frame(make):
    backend = make(depth=2)
    selection = choose(backend)
    for seed in range(2):
        backend.detect(view(seed), selection, StageTimes())
    before = len(backend.device.buffers)
    for seed in range(20):
        backend.detect(view(seed), selection, StageTimes())
    assert len(backend.device.buffers) == before


def test_two_frames_are_in_flight_in_order(make):
    backend = make(depth=2)
    selection = choose(backend, score_threshold=0.1)
    expected = [backend.detect(view(seed), selection, StageTimes()) for seed in (1, 2)]
    backend.submit([view(1)], [selection], [StageTimes()])
    backend.submit([view(2)], [selection], [StageTimes()])
    with pytest.raises(BackendError, match='2 frames are in flight'):
        backend.submit([view(3)], [selection], [StageTimes()])
    assert same(backend.collect()[0], expected[0]) and same(backend.collect()[0], expected[1])
    with pytest.raises(BackendError, match='no frame'):
        backend.collect()


def test_the_bytes_of_a_view_may_be_reused_after_submit(make):
    for zero_copy in (False, True):
        backend = make(depth=2, zero_copy=zero_copy)
        selection = choose(backend, score_threshold=0.1)
        first = view(1)
        expected = backend.detect(view(1), selection, StageTimes())
        if not zero_copy:
            backend.submit([first], [selection], [StageTimes()])
            first.data[:] = 0
            assert same(backend.collect()[0], expected)


@pytest.mark.parametrize('encoding', ['bgr8', 'mono8', 'bayer_rggb8'])
def test_encodings_give_what_the_cpu_gives(make, tmp_path, encoding):
    backend = make()
    selection = choose(backend)
    expected = OnnxRuntimeBackend(tmp_path / 'float.onnx')
    picture = view(3, encoding=encoding)
    assert same(backend.detect(picture, selection, StageTimes()),
                expected.detect(picture, selection, StageTimes()))


def test_a_bad_image_costs_no_slot(make):
    backend = make()
    selection = choose(backend)
    good = view()
    backend.detect(good, selection, StageTimes())
    short = ImageView(good.data[:-5], good.width, good.height, good.step, 'bgr8')
    for bad in (short, ImageView(good.data, 0, 0, 0, 'bgr8'),
                ImageView(good.data, 110, 70, 330, 'foo')):
        with pytest.raises(ImageError):
            backend.submit([bad], [selection], [StageTimes()])
    assert len(backend.detect(good, selection, StageTimes()))


def test_batch_of_different_images_equals_one_by_one(make, tmp_path):
    single, backend = make(), make(batch=3)
    selection = choose(single, score_threshold=0.2)
    pictures = [view(1), view(2, (64, 90)), view(3, (200, 40), 'mono8')]
    expected = [single.detect(picture, selection, StageTimes()) for picture in pictures]
    for count in (3, 2, 1):
        found = together(backend, pictures[:count], selection)
        assert len(found) == count
        assert all(same(a, b) for a, b in zip(found, expected))
    for count in (0, 4):
        with pytest.raises(BackendError, match=f'{count} images .* takes 1 to 3 in one run'):
            backend.submit([view()] * count, [selection] * count, [StageTimes()] * count)
    assert len(together(backend, pictures, selection)) == 3


def wishes(backend):
    """Return selections that differ in everything that a camera may want."""
    return [choose(backend, score_threshold=0.3), choose(backend, classes=('cone',)),
            choose(backend, roi=((0, 0), (0.5, 0), (0.5, 1), (0, 1)), agnostic_nms=True),
            choose(backend, iou_threshold=0.1, min_box_size=8.0, max_detections=5)]


def exact(found, wanted):
    return (np.array_equal(found.boxes, wanted.boxes) and found.broken == wanted.broken
            and np.array_equal(found.scores, wanted.scores)
            and np.array_equal(found.classes, wanted.classes))


@pytest.mark.parametrize('zero_copy', [False, True])
def test_each_image_has_its_own_selection_whatever_else_is_in_the_run(make, zero_copy):
    backend = make(batch=4, depth=2, zero_copy=zero_copy)
    chosen = wishes(backend)
    # Sizes that are staged (rows left out) and that are not, in different encodings.
    pictures = [view(1), view(2, (384, 256)), view(3, (200, 40), 'mono8'),
                view(4, (64, 90), 'bayer_rggb8')]
    alone = [backend.detect(*image, StageTimes()) for image in zip(pictures, chosen)]
    assert len({len(found) for found in alone}) > 1
    rng = np.random.default_rng(5)
    waiting = []
    for _ in range(60):
        picked = rng.permutation(4)[:rng.integers(1, 5)]
        if len(waiting) == backend.depth:
            for index, found in zip(waiting.pop(0), backend.collect()):
                assert exact(found, alone[index])
        backend.submit([pictures[i] for i in picked], [chosen[i] for i in picked],
                       [StageTimes() for _ in picked])
        waiting.append(picked)
    # One recording for each number of images in each slot, whatever their order and geometry.
    assert HostGraph.made <= 1 + 2 * 4


def test_selections_and_tables_are_uploaded_only_where_they_change(make, monkeypatch):
    backend = make(batch=4)
    chosen, pictures = wishes(backend), [view(seed, (40 + seed, 50)) for seed in range(4)]
    copied = []
    copy_in = HostDevice.copy_in
    monkeypatch.setattr(HostDevice, 'copy_in', lambda self, target, array, *rest: (
        copied.append(array.nbytes), copy_in(self, target, array, *rest)))

    def copies(*order):
        copied.clear()
        together(backend, [pictures[i] for i in order], *(chosen[i] for i in order))
        return len(copied)
    copies(0, 1, 2, 3)
    assert copies(0, 1, 2, 3) == 4  # the images alone
    assert copies(3, 1, 0, 2) == 4 + 1  # and one table
    assert copies(3, 1) == 2 + 1
    chosen[1] = choose(backend, score_threshold=0.9)
    assert copies(3, 1) == 2 + 1 + 1  # the new selection
    for index in range(40):  # more than are remembered
        chosen[1] = choose(backend, score_threshold=index / 40)
        alone = backend.detect(pictures[1], chosen[1], StageTimes())
        found = together(backend, [pictures[0], pictures[1]], chosen[0], chosen[1])
        assert exact(found[1], alone)


def test_cameras_in_turns_do_not_record_or_allocate_again(make):
    backend = make(batch=4, depth=2)
    selection = choose(backend)
    pictures = [view(seed, (40 + 30 * seed, 50)) for seed in range(4)]

    def turn():
        for count in (1, 2, 3, 4):
            for start in range(4):
                for _ in range(backend.depth):  # both slots
                    together(backend, (pictures + pictures)[start:start + count], selection)
    turn()
    made, buffers = HostGraph.made, len(backend.device.buffers)
    turn()
    assert (HostGraph.made, len(backend.device.buffers)) == (made, buffers)
    assert made == 1 + 2 * 4


def test_each_image_of_a_run_has_its_own_masks(trt, tmp_path, monkeypatch):
    from yolojet_ros.sim.scene import sample
    # Hundreds of runs, which here are ONNX Runtime's.
    monkeypatch.setattr('yolojet_ros.engine.workflow.Session.latency_ms', lambda self: {})
    segment = Path(__file__).parents[1] / 'engines/demo/yolojet_demo_segment.onnx'
    backend = TensorRTBackend(build(tmp_path, onnx.load(str(segment)), batch=3))
    expected = OnnxRuntimeBackend(segment)
    selection = choose(backend)
    views = [ImageView.from_bgr(np.ascontiguousarray(sample(seed, *size).image))
             for seed, size in ((1, (160, 96)), (2, (96, 64)), (3, (120, 90)))]
    alone = [backend.detect(picture, selection, StageTimes()) for picture in views]
    assert sum(map(len, alone)) > 3
    for order in ((0, 1, 2), (2, 0), (1, 2, 1)):
        found = together(backend, [views[index] for index in order], selection)
        for index, one in zip(order, found):
            assert exact(one, alone[index])
            labels = one.masks.labels()
            assert labels.shape == (views[index].height, views[index].width)
            assert np.array_equal(labels, alone[index].masks.labels())
    for picture, one in zip(views, alone):
        wanted = expected.detect(picture, selection, StageTimes())
        assert len(one) == len(wanted) and np.allclose(one.boxes, wanted.boxes, atol=0.1)
        assert np.mean(one.masks.labels() == wanted.masks.labels()) > 0.99
    backend.close()


def test_a_context_without_a_profile_of_its_own_changes_its_size(make, trt, monkeypatch, tmp_path):
    """An engine of a version, or of a tool, that has one profile for each slot only."""
    make(batch=3)
    path = tmp_path / 'foreign.engine'
    path.write_bytes(trt_standin.engine(
        onnx.load(conv_model.write(tmp_path, batch='batch')), [(1, 3, 3)] * 2))
    backend = TensorRTBackend(path, depth=2)
    selection = choose(backend)
    pictures = [view(seed) for seed in range(3)]
    alone = [backend.detect(picture, selection, StageTimes()) for picture in pictures]
    for count in (1, 2, 3, 2, 1, 3):
        found = together(backend, pictures[:count], selection)
        assert all(map(same, found, alone)) and len(found) == count
    backend.close()
    assert HostDevice.left_open == []


def test_more_geometries_than_are_remembered_are_no_fault(make):
    single, backend = make(), make(batch=3)
    selection = choose(single, score_threshold=0.2)
    sizes = [(40 + index, 50) for index in range(_MAX_GEOMETRIES)]
    for start in range(0, 2 * len(sizes), 2):
        pictures = [view(1, sizes[(start + index) % len(sizes)]) for index in range(3)]
        found = together(backend, pictures, selection)
        fresh = together(backend, [view(2, (300 + start, 50)), *pictures[:2]], selection)
        assert same(found[0], fresh[1]) and same(found[1], fresh[2])
    assert same(found[0], single.detect(pictures[0], selection, StageTimes()))


def test_laps_are_told(make):
    backend, times = make(), StageTimes()
    backend.detect(view(), choose(backend), times)
    assert set(times.laps) == {'copy_in', 'gpu'}


def test_without_memory_loading_fails_and_can_be_tried_again(make, tmp_path):
    make().close()
    for allocations in range(0, 9, 2):
        HostDevice.fail_after = allocations
        with pytest.raises(BackendError, match='out of memory'):
            TensorRTBackend(tmp_path / 'b1.engine')
        HostDevice.fail_after = None
        assert HostDevice.left_open == []
    backend = make()
    HostDevice.fail_after = 2
    with pytest.raises(BackendError, match='out of memory'):
        backend.detect(view(), choose(backend), StageTimes())
    HostDevice.fail_after = None
    assert len(backend.detect(view(), choose(backend), StageTimes()))


def test_a_failed_enqueue_is_told(make, monkeypatch):
    backend = make()
    selection = choose(backend)
    backend.detect(view(), selection, StageTimes())
    monkeypatch.setattr(trt_standin._Context, '_run', lambda self: False)
    with pytest.raises(BackendError, match='could not run b1.engine'):
        backend.detect(view(), selection, StageTimes())


def test_an_engine_that_cannot_be_recorded_runs_without_a_graph_and_says_why(make, monkeypatch):
    class NoGraph:
        def __init__(self, stream, work):
            raise BackendError('could not record a CUDA graph: CUDA_ERROR_STREAM (900)')
    reference = make()
    selection = choose(reference)
    expected = [reference.detect(view(seed), selection, StageTimes()) for seed in (1, 2)]
    monkeypatch.setattr('yolojet_ros.inference.cuda.frame.Graph', NoGraph)
    backend = make()
    for seed in (1, 2):
        assert same(backend.detect(view(seed), selection, StageTimes()), expected[seed - 1])
    assert len(backend.warnings) == 1 and not reference.warnings
    assert 'CUDA_ERROR_STREAM (900)' in backend.warnings[0]


def test_a_closed_backend_says_so(make):
    backend = make()
    selection = choose(backend)
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match='load it again'):
        backend.detect(view(), selection, StageTimes())


@pytest.mark.parametrize('damage, text', [
    ('missing', 'yolojet engine build'), ('cut', 'half copied'), ('no card', 'cannot load'),
    ('bad card', 'not an engine card')])
def test_a_wrong_file_is_told_in_one_sentence(make, tmp_path, damage, text):
    make().close()
    engine = tmp_path / 'b1.engine'
    if damage == 'missing':
        engine.unlink()
    else:
        engine.write_bytes(engine.read_bytes()[:2000])
    if damage == 'no card':
        EngineCard.path(engine).unlink()
    if damage == 'bad card':
        EngineCard.path(engine).write_text('{"tensorrt": 1}')
    with pytest.raises(UserError, match=text) as error:
        TensorRTBackend(engine)
    assert '\n' not in str(error.value)


def test_an_engine_without_card_names_its_classes_by_number(make, tmp_path):
    make().close()
    EngineCard.path(tmp_path / 'b1.engine').unlink()
    assert make().card.names == ('class_0', 'class_1', 'class_2')


def build(folder, model, batch=1):
    """Build an engine of an ONNX model; return its path."""
    path = folder / 'own.onnx'
    onnx.save(model, str(path))
    workflow.build_engine(
        plan.resolve(plan.Options(str(path), 'desktop', batch=batch,
                                  verify_images=str(images(folder)))),
        lambda line: None, lambda text: None)
    return path.with_suffix('.engine')


def test_a_check_finds_nothing_in_a_sound_engine_and_costs_no_memory(make, tmp_path):
    backend = make()
    allocated = len(alive(backend))
    assert checked(backend) is backend and not backend.warnings
    assert len(alive(backend)) == allocated
    expected = OnnxRuntimeBackend(tmp_path / 'float.onnx')
    np.testing.assert_allclose(backend.look(view()), expected.look(view()), atol=1e-4)


def alive(backend):
    return [buffer for buffer in backend.device.buffers if buffer._memory is not None]


def test_an_engine_that_gives_class_logits_is_refused(trt, tmp_path):
    model = conv_model.build()
    answer = next(item for item in model.graph.initializer if item.name == 'answer')
    values = numpy_helper.to_array(answer).copy()
    values[0, 4:] = values[0, 4:] * 9 - 6
    answer.CopyFrom(numpy_helper.from_array(values, 'answer'))
    engine = build(tmp_path, model)
    with pytest.raises(UserError, match='own.engine gives class scores from -.*sigmoid'):
        load_backend(engine)


def test_an_engine_of_another_input_size_than_is_wanted_is_refused(trt, tmp_path):
    engine = build(tmp_path, conv_model.build())
    load_backend(engine, input_size=conv_model.SIZE).close()
    with pytest.raises(UserError, match='own.engine takes images of 96x64 only; input_size asks '
                       'for 640x640: leave it empty'):
        load_backend(engine, input_size=(640, 640))


def test_an_engine_of_a_fixed_batch_runs_whole_with_a_warning(trt, tmp_path):
    single = load_backend(build(tmp_path, conv_model.build()))
    (tmp_path / 'two').mkdir()
    backend = load_backend(build(tmp_path / 'two', conv_model.build(2), batch=2))
    assert 'fixed batch of 2' in backend.warnings[0] and not single.warnings
    selection = choose(single, score_threshold=0.2)
    for seed in range(3):
        assert same(backend.detect(view(seed), selection, StageTimes()),
                    single.detect(view(seed), selection, StageTimes()))
    backend.close()
    single.close()


@pytest.mark.parametrize('rows,words', [
    (-1, 'as large as each image makes it'), (300, None)])
def test_an_output_without_a_fixed_number_of_rows_is_refused(rows, words):
    network = types.SimpleNamespace(
        source='m.engine', batch_range=lambda: (1, 1),
        inputs=[Tensor('images', 0, True, np.dtype(np.float32), (1, 3, 192, 320))],
        outputs=[Tensor('features', 1, False, np.dtype(np.float32), (1, 16, 24, 40)),
                 Tensor('count', 2, False, np.dtype(np.int32), (1, 1)),
                 Tensor('output0', 3, False, np.dtype(np.float32), (1, rows, 6))])
    if words is None:
        heads, card = read_card(network, {})
        assert [head.name for head in heads] == ['output0']
        assert card.head.final and card.head.rows == rows
    else:
        with pytest.raises(UserError, match=words):
            read_card(network, {})


def test_an_engine_with_three_heads_is_refused():
    head = Tensor('a', 1, False, np.dtype(np.float32), (1, 7, 1260))
    network = types.SimpleNamespace(
        source='m.engine', batch_range=lambda: (1, 1),
        inputs=[Tensor('images', 0, True, np.dtype(np.float32), (1, 3, 192, 320))],
        outputs=[head, head, head])
    with pytest.raises(UserError, match='a head .* is needed'):
        read_card(network, {})


def test_depth_is_one_or_two(tmp_path):
    with pytest.raises(UserError, match='depth is 3'):
        TensorRTBackend(tmp_path / 'x.engine', depth=3)
