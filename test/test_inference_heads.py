"""Files of every family through load_backend and ONNX Runtime: an image in, known objects out."""

import head_samples
from head_samples import (
    ANCHORS, ANGLE, BOXES, BYTES, IMAGE, keypoints, KNOWN, LABELS, MASK_END, ORIGINAL,
    outputs_of, read_card, SCORES, spec, write, write_sample)
import numpy as np
import pytest

from yolojet_ros.core import rotated
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.filters import FilterParams
from yolojet_ros.core.head import BY_KEY, HEADS
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.image_input import Fit
from yolojet_ros.core.letterbox import Letterbox
from yolojet_ros.core.stage_times import StageTimes
from yolojet_ros.inference.load import load_backend

pytest.importorskip('onnxruntime')
_BGR = (40, 120, 200)
_IMAGE_SIZE = (1280, 960)
_FILES = [row for row in KNOWN if row[2] != 2 and row[4].get('names') != 2]
_MANY = spec('images', 'batch', 3, 640, 640)


def _ids(row):
    return '-'.join((row[0], row[1], *(str(item.shape[-1]) for item in row[3])))


@pytest.fixture
def load(tmp_path):
    """Return load_backend; what it loads is closed at the end."""
    loaded = []

    def function(path):
        loaded.append(load_backend(path, backend='onnxruntime', threads=1))
        return loaded[-1]
    yield function
    for backend in loaded:
        backend.close()


def _view(size=_IMAGE_SIZE):
    image = np.empty((size[1], size[0], 3), np.uint8)
    image[:] = _BGR
    return ImageView.from_bgr(image)


def _detect(backend, view=None, **wishes):
    wanted = FilterParams(score_threshold=0.3, **wishes).resolve(backend.card.names)
    return backend.detect(view or _view(), wanted, StageTimes())


def _in_image(boxes, fit, size=_IMAGE_SIZE):
    return Letterbox.fit(size, head_samples.SIZE, fit).inverse_clipped(boxes)


@pytest.mark.parametrize('row', _FILES, ids=_ids)
def test_a_file_of_every_family_gives_its_objects(row, load, tmp_path):
    card = write_sample(tmp_path / 'model.onnx', row)
    backend = load(tmp_path / 'model.onnx')
    assert backend.card.head == card.head and backend.card.input == card.input
    found = _detect(backend)
    assert found.broken == 0
    if card.task == 'classify':
        assert found.probabilities.argmax() == 2 and len(found) == 0
        assert found.probabilities[2] == pytest.approx(0.7)
        return
    assert found.classes.tolist() == (LABELS[:2] % len(card.names)).tolist()
    np.testing.assert_allclose(found.scores, SCORES[:2], atol=1e-5)
    if card.task == 'obb':
        _check_rotated(found, card)
    else:
        np.testing.assert_allclose(
            found.boxes, _in_image(BOXES, card.input.fit)[:2], atol=1e-2)
    if card.task == 'pose':
        expected = Letterbox.fit(_IMAGE_SIZE, card.input_size).inverse_points(keypoints(17))
        np.testing.assert_allclose(found.keypoints[..., :2], expected[:2], atol=1e-2)
        np.testing.assert_allclose(found.keypoints[..., 2], 0.8, atol=1e-6)
    if card.task == 'segment':
        _check_masks(found)


def _check_rotated(found, card):
    center, sides = (BOXES[:2, :2] + BOXES[:2, 2:]) / 2, BOXES[:2, 2:] - BOXES[:2, :2]
    expected = np.column_stack(((center - (0, 80)) * 2, sides * 2, [ANGLE] * 2))
    np.testing.assert_allclose(found.rotated, expected, atol=1e-2)
    around = np.maximum(rotated.upright(expected.astype(np.float32)), 0)
    np.testing.assert_allclose(found.boxes, around, atol=1e-2)


def _check_masks(found):
    first, second = found.masks.each()
    for mask, box, bottom in ((first, found.boxes[0], None), (second, found.boxes[1], MASK_END)):
        x1, y1, x2, y2 = np.rint(box).astype(int)
        expected = np.zeros(mask.shape, bool)
        expected[y1:y2 if bottom is None else (bottom - 80) * 2, x1:x2] = True
        assert (mask & expected).sum() / (mask | expected).sum() > 0.97
    labels = found.masks.labels()
    assert (labels == 1).sum() == first.sum() and (labels == 2).sum() == second.sum()


def test_every_row_of_the_table_has_a_file():
    assert {(row[0], row[1]) for row in _FILES} >= {
        (head.key, task) for head in HEADS for task in head.tasks
        if head.key != 'yolov8_transposed'}


def test_boxes_beside_few_classes_have_an_output_of_their_own(load, tmp_path):
    row = ('rtdetr_huggingface', 'detect', 3, [
        spec('logits', 1, 300, 3), spec('pred_boxes', 1, 300, 4)],
        {'card': 'head: rtdetr_huggingface\nnames: [a, b, c]'})
    write_sample(tmp_path / 'model.onnx', row)
    assert _detect(load(tmp_path / 'model.onnx')).classes.tolist() == [2, 0]


_DYNAMIC = [
    ('yolov8', 'detect', 80, [spec('output0', 'batch', 84, 'anchors')],
     {'names': 80, 'inputs': (_MANY,)}),
    ('yolov8', 'segment', 80, [spec('output0', 'batch', 116, 'anchors'),
                               spec('output1', 'batch', 32, 'h', 'w')],
     {'names': 80, 'metadata': {'task': 'segment'}, 'inputs': (_MANY,)}),
    ('end2end', 'detect', 0, [spec('output0', 'batch', 'n', 6)],
     {'names': 80, 'inputs': (_MANY,)}),
    ('yolov5', 'detect', 80, [spec('output0', 'batch', 3 * ANCHORS, 85)], {'inputs': (_MANY,)}),
    ('rfdetr', 'detect', 90, [spec('dets', 'batch', 300, 4), spec('labels', 'batch', 300, 91)],
     {'inputs': (_MANY,)}),
]


@pytest.mark.parametrize('row', _DYNAMIC, ids=_ids)
def test_a_dynamic_batch_runs_with_one_image(row, load, tmp_path):
    sizes = [tuple({'n': 300, 'anchors': ANCHORS, 'h': 160, 'w': 160}.get(side, side)
                   for side in item.shape) for item in row[3]]
    fixed = [spec(item.name, *size) for item, size in zip(row[3], sizes)]
    card = read_card(fixed, **row[4])
    arrays = outputs_of(card)
    write(tmp_path / 'model.onnx', [_MANY], row[3], arrays, head_samples.metadata_of(row[4]))
    backend = load(tmp_path / 'model.onnx')
    assert backend.card.head.head.key == row[0] and backend.card.batch == 0
    found = _detect(backend)
    np.testing.assert_allclose(found.boxes, _in_image(BOXES, card.input.fit)[:2], atol=1e-2)


def _row(key, task='detect', **asked):
    return next(row for row in KNOWN if row[:2] == (key, task)
                and all(row[4].get(name) == value for name, value in asked.items()))


# What a network of each family gets of a constant image: (key, task, input dtype, image, top pad,
# bottom pad) as values of its first three channels; None where the image is.
_RGB = tuple(value / 255 for value in _BGR[::-1])
_GRAY = (114 / 255,) * 3
_SEEN = [
    ('yolov8', 'detect', 'float32', _RGB, _GRAY, _GRAY),
    ('yolov8', 'detect', 'float16', _RGB, _GRAY, _GRAY),
    ('yolov5', 'detect', 'float32', _RGB, _GRAY, _GRAY),
    ('yolox', 'detect', 'float32', _BGR, None, (114,) * 3),
    ('yolox_grid', 'detect', 'float32', _BGR, None, (114,) * 3),
    ('rtdetr', 'detect', 'float32', _RGB, None, None),
    ('rtdetr_ultralytics', 'detect', 'float32', _RGB, None, None),
    ('rtdetr_huggingface', 'detect', 'float32', _RGB, None, None),
    ('rfdetr', 'detect', 'float32', tuple(
        (value - mean) / std for value, mean, std in zip(
            _RGB, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))), None, None),
    ('yolo_nas', 'detect', 'uint8', _BGR[::-1], (114,) * 3, (114,) * 3),
    ('yolo_nas_batch', 'detect', 'uint8', _BGR[::-1], (114,) * 3, (114,) * 3),
    ('classify', 'classify', 'float32', _RGB, None, None),
]


@pytest.mark.parametrize('key,task,dtype,image,top,bottom', _SEEN)
def test_the_network_gets_the_pixels_that_it_was_trained_with(
        key, task, dtype, image, top, bottom, load, tmp_path):
    row = _row(key, task)
    inputs = list(row[4].get('inputs', (IMAGE,)))
    inputs[0] = spec(inputs[0].name, 1, 3, 640, 640, dtype=dtype)
    row = (*row[:4], {**row[4], 'inputs': tuple(inputs)})
    # 1280x720 in 640x640 is 360 rows high: 140 above and below, or 280 below.
    pixels = [(channel, y, 320) for y in (320, 4, 635) for channel in range(3)]
    place, columns = _free_values(row, len(pixels))
    factor = 1e-3 if max(image) > 3 else 0.1
    write_sample(tmp_path / 'model.onnx', row,
                 probe=(place, list(zip(columns, pixels)), factor))
    backend = load(tmp_path / 'model.onnx')
    outputs = backend.look(_view((1280, 720)))
    number = backend.card.head.outputs.index(place)
    seen = np.array([outputs[number][index] for index in columns]).reshape(3, 3) / factor
    expected = np.array([image, top or image, bottom or image])
    np.testing.assert_allclose(seen, expected, rtol=2e-3 if dtype == 'float16' else 1e-4)


def _free_values(row, count):
    """Return (output, indices) of values that mean nothing: sides and places of unused rows."""
    card = read_card(row[3], **row[4])
    head = card.head.head
    if row[1] == 'classify':
        return 0, [(index,) for index in range(10, 10 + count)]
    number = card.head.outputs[head.box.output]
    cells = [(index // 4, head.box.column + index % 4) for index in range(count)]
    return number, [cell[::-1] if head.columns_first else cell for cell in cells]


def test_what_a_card_file_says_of_the_input_reaches_the_network(load, tmp_path):
    row = (*_row('yolov8')[:4], {'names': 80, 'card': (
        'input: {fit: top_left, pad: 0, order: bgr, scale: 1, mean: [10, 20, 30],'
        ' std: [1, 2, 4]}')})
    pixels = [(channel, y, 320) for y in (4, 635) for channel in range(3)]
    place, columns = _free_values(row, len(pixels))
    write_sample(tmp_path / 'model.onnx', row, probe=(place, list(zip(columns, pixels)), 1e-3))
    outputs = load(tmp_path / 'model.onnx').look(_view((1280, 720)))
    seen = np.array([outputs[0][index] for index in columns]).reshape(2, 3) * 1e3
    np.testing.assert_allclose(seen, [[30, 50, 42.5], [-10, -10, -7.5]], rtol=1e-4)


def test_a_transformer_is_told_width_and_height_of_its_input(load, tmp_path):
    onnx = pytest.importorskip('onnx')
    from onnx import helper, numpy_helper, TensorProto
    unit = np.zeros((1, 300, 4), np.float32)
    unit[0, :2] = (0.25, 0.5, 0.5, 1), (0, 0, 0.125, 0.125)
    constants = {'unit': unit, 'answer': np.where(np.arange(300) < 2, 0.9, 0).astype(
        np.float32)[None], 'classes': (np.arange(300) % 3)[None], 'middle': np.array([1])}
    nodes = [
        helper.make_node('Cast', ['orig_target_sizes'], ['sizes'], to=TensorProto.FLOAT),
        helper.make_node('Concat', ['sizes', 'sizes'], ['twice'], axis=1),
        helper.make_node('Unsqueeze', ['twice', 'middle'], ['scale']),
        helper.make_node('Mul', ['unit', 'scale'], ['boxes']),
        helper.make_node('Identity', ['answer'], ['scores']),
        helper.make_node('Identity', ['classes'], ['labels'])]
    graph = helper.make_graph(nodes, 'rtdetr', [
        helper.make_tensor_value_info('images', TensorProto.FLOAT, ['N', 3, 480, 640]),
        helper.make_tensor_value_info('orig_target_sizes', TensorProto.INT64, ['N', 2])], [
        helper.make_tensor_value_info('labels', TensorProto.INT64, ['N', 300]),
        helper.make_tensor_value_info('boxes', TensorProto.FLOAT, ['N', 300, 4]),
        helper.make_tensor_value_info('scores', TensorProto.FLOAT, ['N', 300])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()])
    onnx.save(helper.make_model(
        graph, opset_imports=[helper.make_opsetid('', 15)], ir_version=8),
        str(tmp_path / 'model.onnx'))
    backend = load(tmp_path / 'model.onnx')
    assert backend.card.head.head.key == 'rtdetr'
    found = _detect(backend, _view((1000, 600)))
    np.testing.assert_allclose(found.boxes, [[250, 300, 500, 600], [0, 0, 125, 75]], atol=1e-3)


def test_a_crop_is_of_the_middle(load, tmp_path):
    row = _row('classify', 'classify')
    pixels = [(0, 320, 2), (0, 320, 320), (0, 320, 637)]
    columns = [(10,), (11,), (12,)]
    write_sample(tmp_path / 'model.onnx', row, probe=(0, list(zip(columns, pixels)), 1.0))
    image = np.zeros((640, 1280, 3), np.uint8)
    image[..., 2] = np.arange(1280) // 8  # red grows from left to right
    outputs = load(tmp_path / 'model.onnx').look(ImageView.from_bgr(image))
    seen = np.rint(np.array([outputs[0][index] for index in columns]) * 255)
    assert seen.tolist() == [322 // 8, 640 // 8, 957 // 8]


# Files with the wrong head in their card file that values cannot show: objectness that is taken
# for a class, and the other way round; scores that are taken for a classifier's; and where classes
# are counted from.
_UNSEEN = {
    ('yolox', 'yolov8_transposed'), ('yolox_grid', 'yolov8_transposed'),
    ('yolov8_transposed', 'yolox'), ('efficient_nms', 'classify'),
    ('rfdetr', 'rfdetr_trained'), ('rfdetr_trained', 'rfdetr'),
}
_DETECTORS = [row for row in _FILES if row[1] == 'detect' and not (
    row[0] == 'yolov8' and row[4] != {})]


@pytest.mark.parametrize('row', _DETECTORS, ids=_ids)
def test_a_wrong_head_in_the_card_file_is_refused_where_values_show_it(row, load, tmp_path):
    path = tmp_path / 'model.onnx'
    write_sample(path, row)
    passed = set()
    for key in BY_KEY:
        (tmp_path / 'model.card.yaml').write_text(f'head: {key}')
        try:
            load(path)
        except UserError as error:
            text = str(error)
            assert '\n' not in text and 'model.card.yaml' in text, text
        else:
            passed.add((row[0], key))
    assert passed - {(row[0], row[0])} <= _UNSEEN


def _scaled(arrays, card):
    """Return boxes in 0..1 of the input."""
    arrays[0][:4] /= 640
    return arrays


def _logits(arrays, card):
    """Return scores without the sigmoid."""
    arrays[0][4:] = np.log(np.maximum(arrays[0][4:], 1e-6) / (1 - arrays[0][4:]))
    return arrays


def _sigmoids(arrays, card):
    """Return scores with the sigmoid done."""
    arrays[1][:] = 1 / (1 + np.exp(-arrays[1]))
    return arrays


def _broken(arrays, card):
    arrays[0][5, 7] = np.nan
    return arrays


def _same(arrays, card):
    return arrays


_FLAT_85, _FLAT_6 = spec('output', 1, ANCHORS, 85), spec('output', 1, ANCHORS, 6)
_RTDETR = {'description': 'Ultralytics rtdetr-l model'}


# (key of what the file gives, its arguments, outputs, what becomes of the values, head that the
# card file says, '' for none, words of the refusal)
@pytest.mark.parametrize('key,arguments,outputs,change,said,words', [
    ('yolov8', {'names': 80}, [spec('output0', 1, 84, ANCHORS)], _scaled, '',
     'boxes in 0..1 of the image where pixels'),
    ('yolov8', {'names': 80}, [spec('output0', 1, 84, ANCHORS)], _logits, '',
     'class scores from -.* export it with the sigmoid'),
    ('yolov8', {'names': 80}, [spec('output0', 1, 84, ANCHORS)], _broken, '', 'infinite or NaN'),
    ('rfdetr', {}, [spec('dets', 1, 300, 4), spec('labels', 1, 300, 91)], _sigmoids, '',
     '0.5 at least, all of them'),
    ('deepstream', {}, [_FLAT_6], _same, '', 'say which.*"head: yolov8_transposed"'),
    ('deepstream', {}, [_FLAT_6], _same, 'yolov8_transposed',
     'classes themselves.*write "head: deepstream"'),
    ('yolov6', {}, [_FLAT_85], _same, '', 'say which.*"head: yolov6".*"head: yolox"'),
    ('yolov6', {}, [_FLAT_85], _same, 'yolox', 'as YOLOv6 does; write "head: yolov6"'),
    ('yolov6', {}, [_FLAT_85], _same, 'yolov8_transposed', 'write "head: yolov6"'),
    ('yolox', {}, [_FLAT_85], _same, 'yolov6', 'other values than 1 in a column'),
    ('yolox', {}, [_FLAT_85], _same, 'yolox_grid', 'they are decoded already'),
    ('yolox_grid', {}, [_FLAT_85], _same, 'yolox', 'export it with its boxes decoded'),
    ('rtdetr_ultralytics_best', {'names': 2}, [spec('output0', 1, 300, 6)], _same,
     'rtdetr_ultralytics', 'write "head: rtdetr_ultralytics_best"'),
    ('rtdetr_ultralytics_best', {'names': 2, 'metadata': _RTDETR}, [spec('output0', 1, 300, 6)],
     _same, '', '"head: rtdetr_ultralytics" for .* or "head: rtdetr_ultralytics_best"'),
    ('rtdetr_ultralytics_best', {'names': 80}, [spec('output0', 1, 300, 6)], _same, '',
     'boxes in 0..1 of the image'),
    ('end2end', {'names': 80}, [spec('output0', 1, 300, 6)], _same, 'rtdetr_ultralytics_best',
     'where 0..1 of the image is expected'),
    ('rtdetr_ultralytics', {}, [spec('output0', 1, 300, 84)], _same, '', 'proves too little'),
])
def test_a_wrong_reading_is_refused_with_what_to_write(
        key, arguments, outputs, change, said, words, load, tmp_path):
    card = read_card(outputs, **{**arguments, 'card': f'head: {key}'})
    arrays = change(outputs_of(card), card)
    write(tmp_path / 'model.onnx', [IMAGE], outputs, arrays, head_samples.metadata_of(arguments),
          f'head: {said}' if said else '')
    with pytest.raises(UserError, match=words) as error:
        load(tmp_path / 'model.onnx')
    assert '\n' not in str(error.value)
