"""The CPU backend on real ONNX files, and the choice of a backend."""

import numpy as np
import pytest

from models import NAMES, raw_output, write_model
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.filters import FilterParams
from yolojet_ros.core.image_formats import ImageError, ImageView
from yolojet_ros.core.stage_times import StageTimes
from yolojet_ros.inference.load import load_backend

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
