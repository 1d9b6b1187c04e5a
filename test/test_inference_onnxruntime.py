"""The CPU backend on real ONNX files, and the choice of a backend."""

import os
from pathlib import Path
import re
import resource
import subprocess
import sys

import conv_model
import numpy as np
import onnx
from onnx import helper, numpy_helper
import pytest

from models import NAMES, raw_output, write_model, write_task_model
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.filters import FilterParams
from yolojet_ros.core.image_formats import ImageError, ImageView
from yolojet_ros.core.stage_times import StageTimes
from yolojet_ros.inference.backend import BackendError
from yolojet_ros.inference.load import load_backend
from yolojet_ros.model import onnx_file

_ROOT = Path(__file__).resolve().parent.parent
_SIZE = (320, 192)


@pytest.fixture
def model(tmp_path):
    output = raw_output([[160, 96, 80, 60], [20, 20, 20, 20]], [[0.9, 0, 0], [0, 0, 0.6]], _SIZE)
    return write_model(tmp_path / 'model.onnx', output)


def _detect(backend, image):
    times = StageTimes()
    found = backend.detect(
        ImageView.from_bgr(image), FilterParams().resolve(backend.card.names), times)
    return found, times


def test_boxes_come_back_in_the_pixels_of_each_image(model):
    backend = load_backend(model)
    assert backend.name == 'onnxruntime' and backend.card.names == NAMES
    for width, height, scale, left in ((640, 384, 0.5, 0), (192, 192, 1.0, 64)):
        found, times = _detect(backend, np.zeros((height, width, 3), np.uint8))
        x1, x2 = ((x - left) / scale for x in (120, 200))
        np.testing.assert_allclose(found.boxes[0], [x1, 66 / scale, x2, 126 / scale], atol=1e-3)
        assert set(times.laps) == {'letterbox', 'network', 'decode_nms'}
        assert 0 < times.total < 1000
    backend.close()
    backend.close()


@pytest.mark.parametrize('task,extra,field', [
    ('segment', [[1, 0]], 'masks'), ('pose', [[10, 20, 0.9]], 'keypoints')])
def test_masks_and_keypoints_are_left_out_where_they_are_not_wanted(
        tmp_path, task, extra, field):
    backend = load_backend(write_task_model(
        tmp_path / 'model.onnx', task, [[160, 96, 80, 60]], [[0.9, 0, 0]], extra))
    image = np.zeros((384, 640, 3), np.uint8)
    for wanted in (True, False, True):
        backend.extras = wanted
        found, _ = _detect(backend, image)
        assert len(found) == 1 and (getattr(found, field) is not None) == wanted
    backend.close()


def test_a_bad_image_leaves_the_backend_usable(model):
    backend = load_backend(model)
    bad = ImageView(np.zeros(5, np.uint8), 10, 10, 30, 'bgr8')
    with pytest.raises(ImageError, match='5 bytes'):
        backend.detect(bad, FilterParams().resolve(NAMES), StageTimes())
    found, _ = _detect(backend, np.zeros((384, 640, 3), np.uint8))
    assert len(found) == 2


def test_a_final_output_is_read_from_the_file(tmp_path):
    rows = np.zeros((1, 20, 6), np.float32)
    rows[0, 0] = (120, 66, 200, 126, 0.8, 2)
    backend = load_backend(write_model(tmp_path / 'nms.onnx', rows))
    found, _ = _detect(backend, np.zeros((192, 320, 3), np.uint8))
    np.testing.assert_allclose(found.boxes, [[120, 66, 200, 126]])
    assert backend.card.names[found.classes[0]] == 'cone'


def test_a_dynamic_batch_is_accepted(tmp_path):
    output = raw_output([[160, 96, 80, 60]], [[0.9, 0, 0]], _SIZE)
    backend = load_backend(write_model(tmp_path / 'dynamic.onnx', output, batch='batch'))
    assert backend.card.batch == 0
    assert len(_detect(backend, np.zeros((192, 320, 3), np.uint8))[0]) == 1


def _answer():
    return raw_output([[160, 96, 80, 60]], [[0.9, 0, 0]], _SIZE)


@pytest.mark.parametrize('batch', [2, 4])
def test_a_fixed_batch_runs_whole_with_a_warning(tmp_path, batch):
    path = tmp_path / 'batch.onnx'
    onnx.save(conv_model.build(batch), str(path))
    one = tmp_path / 'one.onnx'
    onnx.save(conv_model.build(1), str(one))
    backend, expected = load_backend(path), load_backend(one)
    assert backend.card.batch == batch and not expected.warnings
    assert re.search(f'fixed batch of {batch}.*time of {batch}; export it', backend.warnings[0])
    for seed in range(3):
        image = np.random.default_rng(seed).integers(0, 256, (70, 110, 3), np.uint8)
        found, wanted = _detect(backend, image)[0], _detect(expected, image)[0]
        assert len(found) > 3
        np.testing.assert_allclose(found.boxes, wanted.boxes, atol=1e-4)
        np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)


def test_a_fixed_batch_takes_several_images_in_one_run(tmp_path):
    path = tmp_path / 'batch.onnx'
    onnx.save(conv_model.build(4), str(path))
    backend = load_backend(path)
    assert (backend.max_batch, backend.places) == (4, 4)
    names, runs, run = backend.card.names, [], backend.run
    backend.run = lambda tensor: (runs.append(len(tensor)), run(tensor))[1]
    chosen = [FilterParams(score_threshold=least).resolve(names) for least in (0.1, 0.3, 0.5, 0.2)]
    views = [ImageView.from_bgr(np.random.default_rng(seed).integers(
        0, 256, (70 + 9 * seed, 110, 3), np.uint8)) for seed in range(4)]
    alone = [backend.detect(*image, StageTimes()) for image in zip(views, chosen)]
    for order in ((0, 1, 2, 3), (3, 1), (2, 0, 3), (1,)):
        times = [StageTimes() for _ in order]
        runs.clear()
        backend.submit([views[i] for i in order], [chosen[i] for i in order], times)
        found = backend.collect()
        assert len(runs) == 1 and len(found) == len(order)
        for index, one, time in zip(order, found, times):
            assert len(one) and np.array_equal(one.boxes, alone[index].boxes)
            assert np.array_equal(one.scores, alone[index].scores)
            assert set(time.laps) == {'letterbox', 'network', 'decode_nms'}
    with pytest.raises(BackendError, match='5 images for batch.onnx, which takes 1 to 4'):
        backend.submit(views + views[:1], chosen + chosen[:1], [StageTimes()] * 5)


@pytest.mark.parametrize('declared', [
    ('batch', 'values', 'anchors'), (1, 7, 'anchors'), (1, None, 1260)])
@pytest.mark.parametrize('names', [None, '["crate", "barrel", "cone"]'])
def test_sizes_that_the_file_leaves_open_are_measured(tmp_path, declared, names):
    path = write_model(tmp_path / 'open.onnx', _answer(), declared=declared,
                       metadata={'names': names})
    backend = load_backend(path)
    assert backend.card.head.head.key == 'yolov8' and backend.card.head.rows == 1260
    assert len(_detect(backend, np.zeros((192, 320, 3), np.uint8))[0]) == 1
    # The commands that read the file without running it infer the sizes.
    card = onnx_file.card(onnx_file.load(path), 'open.onnx')
    assert (card.head.rows, len(card.names)) == (1260, 3)


def test_a_dynamic_size_is_that_of_the_metadata(tmp_path):
    backend = load_backend(write_model(tmp_path / 'm.onnx', _answer(), dynamic=True))
    assert backend.card.input_size == _SIZE
    assert len(_detect(backend, np.zeros((192, 320, 3), np.uint8))[0]) == 1


@pytest.mark.parametrize('size', ['[31, 33]', '[100000, 100000]', '[-32, 32]'])
def test_a_size_that_cannot_run_is_refused_before_memory_is_asked_for(tmp_path, size):
    path = write_model(tmp_path / 'm.onnx', _answer(), dynamic=True, metadata={'imgsz': size})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match='takes images of'):
        load_backend(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_a_network_that_does_not_run_at_its_size_is_one_sentence(tmp_path):
    model = onnx.load(str(write_model(tmp_path / 'm.onnx', _answer(), dynamic=True)))
    fixed = numpy_helper.from_array(np.zeros((1, 3, 64, 64), np.float32), 'fixed')
    model.graph.initializer.append(fixed)
    model.graph.node.insert(0, helper.make_node('Add', ['images', 'fixed'], ['shifted']))
    model.graph.node[1].input[0] = 'shifted'
    onnx.save(model, str(tmp_path / 'm.onnx'))
    with pytest.raises(UserError, match='m.onnx cannot run on a blank image of 320x192') as error:
        load_backend(tmp_path / 'm.onnx')
    assert '\n' not in str(error.value)


def test_an_auxiliary_head_and_a_feature_map_are_passed_over(tmp_path):
    features = np.zeros((1, 16, 24, 40), np.float32)
    backend = load_backend(write_model(tmp_path / 'm.onnx', _answer(), more=[features]))
    assert len(_detect(backend, np.zeros((192, 320, 3), np.uint8))[0]) == 1
    write_model(tmp_path / 'm.onnx', features, more=[_answer()])
    assert load_backend(tmp_path / 'm.onnx').card.head.head.key == 'yolov8'
    # YOLOv9 gives its auxiliary head first; of three nobody knows which it is.
    write_model(tmp_path / 'm.onnx', np.zeros_like(_answer()), more=[_answer()])
    backend = load_backend(tmp_path / 'm.onnx')
    assert backend.card.head.head.key == 'yolov9_dual'
    assert len(_detect(backend, np.zeros((192, 320, 3), np.uint8))[0]) == 1
    write_model(tmp_path / 'm.onnx', _answer(), more=[_answer(), _answer()])
    with pytest.raises(UserError, match='a head .* is needed'):
        load_backend(tmp_path / 'm.onnx')


def _with(row, value):
    output = _answer()
    output[0, row, 0] = value
    return output


def _final(*row):
    output = np.zeros((1, 20, 6), np.float32)
    output[0, 0] = row
    return output


@pytest.mark.parametrize('output,words', [
    (_with(5, 3.5), 'class scores from 0 to 3.5.*sigmoid'),
    (_answer() - 9, 'class scores from -9 to 0 .*sigmoid'),
    (_with(5, np.inf), 'infinite or NaN.*FP32'), (_with(2, np.nan), 'infinite or NaN'),
    (_answer() / [[[320]] * 4 + [[1]] * 3], 'boxes in 0..1'),
    (_final(10, 10, 50, 50, 1.5, 1), 'class scores from 0 to 1.5'),
    (_final(10, 10, 50, 50, 0.5, np.nan), 'infinite or NaN'),
    (_final(10, 10, 50, 50, 0.5, 0.4), 'no class from 0 to 2'),
    (_final(10, 10, 50, 50, 0.5, 3), 'no class from 0 to 2'),
    (_final(0.1, 0.1, 0.5, 0.5, 0.5, 1), 'boxes in 0..1')])
def test_what_no_detection_head_gives_is_refused(tmp_path, output, words):
    with pytest.raises(UserError, match=words) as error:
        load_backend(write_model(tmp_path / 'm.onnx', np.asarray(output, np.float32)))
    assert '\n' not in str(error.value)


def test_unused_rows_of_a_final_output_may_hold_anything_finite(tmp_path):
    output = _final(10, 10, 50, 50, 0.5, 2)
    output[0, 1:] = (0, 0, 0, 0, -1, -1)
    backend = load_backend(write_model(tmp_path / 'm.onnx', output))
    assert len(_detect(backend, np.zeros((192, 320, 3), np.uint8))[0]) == 1


@pytest.mark.parametrize('content,words', [
    (None, 'no model file'), (b'', '0 bytes'), (b'not a model', '11 bytes')])
def test_a_missing_or_foreign_file_is_one_sentence(tmp_path, content, words):
    path = tmp_path / 'bad.onnx'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        load_backend(path)
    assert '\n' not in str(error.value)


def test_a_truncated_file_is_one_sentence(model):
    model.write_bytes(model.read_bytes()[:-1000])
    with pytest.raises(UserError, match='export or copy it again'):
        load_backend(model)


@pytest.mark.parametrize('name,backend,words', [
    ('m.pt', 'auto', r'ends in ".pt"'), ('m.onnx', 'cuda', 'one of auto'),
    ('m.engine', 'onnxruntime', 'TensorRT engine'), ('m.onnx', 'tensorrt', 'engine build')])
def test_a_backend_that_cannot_serve_the_file_says_what_to_do(tmp_path, name, backend, words):
    path = tmp_path / name
    path.write_bytes(b'x')
    with pytest.raises(UserError, match=words):
        load_backend(path, backend)


_COUNT_THREADS = '''
import sys, time
from pathlib import Path
from yolojet_ros.inference.load import load_backend
import numpy as np, onnxruntime
import yolojet_ros.inference.onnxruntime_backend
before = len(list(Path('/proc/self/task').iterdir()))
backend = load_backend(sys.argv[1], threads=int(sys.argv[2]), spinning=sys.argv[3] == 'on')
threads = len(list(Path('/proc/self/task').iterdir())) - before + 1
tensor = np.zeros((1, 3, *backend.card.input_size[::-1]), np.float32)
for _ in range(20):
    backend.run(tensor)
start = time.process_time()
for _ in range(50):
    backend.run(tensor)
    time.sleep(0.02)
print(threads, (time.process_time() - start) * 20)
'''


def _threads_and_cpu_ms(threads, spinning):
    from yolojet_ros.inference.demo_model import demo_model
    path = os.pathsep.join([str(_ROOT), os.environ.get('PYTHONPATH', '')])
    done = subprocess.run(
        [sys.executable, '-c', _COUNT_THREADS, str(demo_model()), str(threads), spinning],
        env={**os.environ, 'PYTHONPATH': path}, stdout=subprocess.PIPE, timeout=120, check=True)
    count, cpu = done.stdout.split()
    return int(count), float(cpu)


def test_threads_are_as_many_as_asked_for():
    assert _threads_and_cpu_ms(1, 'off')[0] == 1
    assert _threads_and_cpu_ms(3, 'off')[0] == 3
    assert _threads_and_cpu_ms(0, 'off')[0] == os.cpu_count()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason='there is one core')
def test_spinning_costs_cpu_between_frames_and_is_off_by_default():
    # Frames of the same work; what differs is what the threads do while they wait.
    asleep = min(_threads_and_cpu_ms(2, 'off')[1] for _ in range(2))
    awake = min(_threads_and_cpu_ms(2, 'on')[1] for _ in range(2))
    assert awake > 1.2 * asleep
