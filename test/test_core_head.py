"""The table of heads: what is recognised, what is refused, and how each is decoded."""

import numpy as np
import pytest

from yolojet_ros.core.decode import detect, grid
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.filters import FilterParams
from yolojet_ros.core.head import anchor_count, BY_KEY, HEADS
from yolojet_ros.core.image_input import Fit
from yolojet_ros.core.letterbox import Letterbox
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.core.tensors import TensorSpec

_SIZE = (640, 640)
_A = anchor_count(_SIZE)


def _spec(name, *shape, dtype='float32'):
    return TensorSpec(name, dtype, shape)


_IMAGE = _spec('images', 1, 3, 640, 640)
_BYTES = _spec('input', 1, 3, 640, 640, dtype='uint8')
_ORIGINAL = _spec('orig_target_sizes', 1, 2, dtype='int64')
_PROTOTYPES = _spec('output1', 1, 32, 160, 160)
_EFFICIENT = [_spec('num_dets', 1, 1, dtype='int32'), _spec('det_boxes', 1, 100, 4),
              _spec('det_scores', 1, 100), _spec('det_classes', 1, 100, dtype='int32')]


def _card(outputs, names=0, metadata=None, inputs=(_IMAGE,), card=''):
    said = {'names': str({index: f'c{index}' for index in range(names)})} if names else {}
    said.update(metadata or {})
    if card:
        said['yolojet_card'] = card
    return ModelCard.read('m.onnx', said, list(inputs), list(outputs))


# (key, task, classes, outputs, arguments)
_KNOWN = [
    ('yolov8', 'detect', 80, [_spec('output0', 1, 84, _A)], {'names': 80}),
    ('yolov8', 'detect', 80, [_spec('output0', 1, 84, _A)], {}),
    ('yolov8', 'detect', 2, [_spec('output0', 1, 6, _A)], {'names': 2}),
    ('yolov8', 'detect', 80, [_spec('output0', 1, 84, 34000)], {'names': 80}),  # P2
    ('yolov8', 'detect', 80, [_spec('output0', 1, 84, 8500)], {'names': 80}),  # P6
    ('yolov8', 'detect', 80, [_spec('output0', 1, 84, 2000)], {'names': 80}),  # no P3
    ('yolov8', 'detect', 80, [_spec('output0', 'batch', 84, 'anchors')], {'names': 80}),
    ('yolov8', 'detect', 80, [_spec('map', 1, 64, 80, 80), _spec('output0', 1, 84, _A)], {}),
    ('yolov8', 'segment', 80, [_spec('output0', 1, 116, _A), _PROTOTYPES], {'names': 80}),
    ('yolov8', 'segment', 80, [_spec('output0', 1, 116, _A), _PROTOTYPES], {}),
    ('yolov8', 'pose', 1, [_spec('output0', 1, 56, _A)],
     {'names': 1, 'metadata': {'task': 'pose', 'kpt_shape': '[17, 3]'}}),
    ('yolov8', 'pose', 1, [_spec('output0', 1, 56, _A)], {'card': 'task: pose\nkeypoints: [17, 3]'}),
    ('yolov8', 'obb', 15, [_spec('output0', 1, 20, _A)],
     {'names': 15, 'metadata': {'task': 'obb'}}),
    ('yolov8_transposed', 'detect', 80, [_spec('output0', 1, _A, 84)], {'names': 80}),
    ('yolov9_dual', 'detect', 80, [_spec('output0', 1, 84, _A), _spec('output1', 1, 84, _A)], {}),
    ('end2end', 'detect', 0, [_spec('output0', 1, 300, 6)], {'names': 80}),
    ('end2end', 'detect', 0, [_spec('output0', 1, 300, 6)], {'names': 2}),
    ('end2end', 'detect', 0, [_spec('output0', 1, 300, 6)], {}),
    ('end2end', 'segment', 0, [_spec('output0', 1, 300, 38), _PROTOTYPES],
     {'metadata': {'task': 'segment'}}),
    ('end2end', 'pose', 0, [_spec('output0', 1, 300, 57)],
     {'names': 1, 'metadata': {'task': 'pose', 'kpt_shape': '[17, 3]'}}),
    ('end2end', 'obb', 0, [_spec('output0', 1, 300, 7)],
     {'names': 15, 'metadata': {'task': 'obb'}}),
    ('yolov5', 'detect', 80, [_spec('output', 1, 3 * _A, 85)], {}),
    ('yolov5', 'detect', 80, [_spec('output', 1, 3 * _A, 85)], {'names': 80}),
    ('yolov5', 'segment', 80, [_spec('output0', 1, 3 * _A, 117), _PROTOTYPES], {}),
    ('yolov6', 'detect', 80, [_spec('outputs', 1, _A, 85)], {}),
    ('yolov7_end2end', 'detect', 0, [_spec('output', 'n', 7)], {}),
    ('efficient_nms', 'detect', 0, _EFFICIENT, {}),
    ('yolox', 'detect', 80, [_spec('output', 1, _A, 85)], {'card': 'head: yolox'}),
    ('yolox_grid', 'detect', 80, [_spec('output', 1, _A, 85)], {'card': 'head: yolox_grid'}),
    ('rtdetr', 'detect', 0, [_spec('labels', 1, 300, dtype='int64'), _spec('boxes', 1, 300, 4),
                             _spec('scores', 1, 300)], {'inputs': (_IMAGE, _ORIGINAL)}),
    ('rtdetr_ultralytics', 'detect', 80, [_spec('output0', 1, 300, 84)], {'names': 80}),
    ('rtdetr_ultralytics', 'detect', 2, [_spec('output0', 1, 300, 6)],
     {'names': 2, 'card': 'head: rtdetr_ultralytics'}),
    ('rtdetr_ultralytics_best', 'detect', 0, [_spec('output0', 1, 300, 6)],
     {'names': 80, 'metadata': {'description': 'Ultralytics rtdetr-l model'}}),
    ('rtdetr_huggingface', 'detect', 80, [_spec('logits', 1, 300, 80),
                                          _spec('pred_boxes', 1, 300, 4)],
     {'card': 'head: rtdetr_huggingface'}),
    ('rfdetr', 'detect', 90, [_spec('dets', 1, 300, 4), _spec('labels', 1, 300, 91)], {}),
    ('yolo_nas', 'detect', 0, [_spec('graph2_flat_predictions', 'n', 7)], {'inputs': (_BYTES,)}),
    ('yolo_nas_batch', 'detect', 0, [
        _spec('graph2_num_predictions', 1, 1, dtype='int64'),
        _spec('graph2_pred_boxes', 1, 1000, 4), _spec('graph2_pred_scores', 1, 1000),
        _spec('graph2_pred_classes', 1, 1000, dtype='int64')], {'inputs': (_BYTES,)}),
    ('deepstream', 'detect', 0, [_spec('output', 1, _A, 6)], {'card': 'head: deepstream'}),
    ('classify', 'classify', 1000, [_spec('output0', 1, 1000)],
     {'names': 1000, 'metadata': {'task': 'classify'}}),
]


@pytest.mark.parametrize('key,task,classes,outputs,arguments', _KNOWN)
def test_every_family_is_recognised(key, task, classes, outputs, arguments):
    card = _card(outputs, **arguments)
    assert (card.head.head.key, card.task, card.head.classes) == (key, task, classes)
    assert card.input.fit is BY_KEY[key].input.fit
    assert card.names and card.evidence


def test_every_head_of_the_table_has_a_sample():
    assert {row[0] for row in _KNOWN} == {head.key for head in HEADS}


@pytest.mark.parametrize('outputs,arguments,words', [
    ([_spec('output', 1, _A, 85)], {},
     '"head: yolov8_transposed".*"head: yolov6".*"head: yolox".*"head: yolox_grid"'),
    ([_spec('output', 1, _A, 85)], {'names': 80}, '3 kinds.*m.card.yaml.*"head: yolox"'),
    ([_spec('output', 1, _A, 6)], {}, '"head: yolov8_transposed".*"head: deepstream"'),
    ([_spec('output0', 1, 300, 84)], {}, 'proves too little.*"head: rtdetr_ultralytics"'),
    ([_spec('output0', 1, 300, 6)],
     {'names': 2, 'metadata': {'description': 'Ultralytics rtdetr-l model'}},
     '"head: rtdetr_ultralytics".*"head: rtdetr_ultralytics_best"'),
    ([_spec('logits', 1, 300, 80), _spec('pred_boxes', 1, 300, 4)], {},
     '2 kinds of head.*"head: rtdetr_huggingface"'),
    ([_spec('output0', 1, 84, 300)], {'names': 80}, 'a head .* is needed'),
    ([_spec('output0', 1, 85, _A)], {'names': 80}, 'the 80 classes that are named a head'),
    ([_spec('output0', 1, 56, _A)], {'metadata': {'task': 'pose'}}, 'kpt_shape.*keypoints'),
    ([_spec('output0', 1, 10 ** 9, _A)], {}, 'a head .* is needed'),
    ([_spec('output0', 1, 84, _A)] * 3, {}, 'a head .* is needed'),
    ([], {}, 'gives no output'),
    ([_spec('output0', 1, 84, _A)], {'inputs': (_IMAGE, _spec('other', 1))}, 'takes images .*other'),
    ([_spec('output0', 1, 84, _A)], {'card': 'head: yolox'}, 'a head .B A 5.C. is needed.*correct'),
    ([_spec('output0', 1, 84, _A)], {'card': 'head: yolov99'}, 'says head: "yolov99"'),
    ([_spec('output0', 1, 84, _A)], {'card': 'hand: yolov8'}, 'the key "hand"'),
    ([_spec('output0', 1, 84, _A)], {'card': '- a'}, 'lines "KEY: VALUE"'),
    ([_spec('output0', 1, 84, _A)], {'card': 'a: ['}, 'no YAML'),
    ([_spec('output0', 1, 84, _A)], {'card': 'input: {scale: -1}'}, 'scale of the input is -1'),
    ([_spec('output0', 1, 84, _A)], {'card': 'input: {fit: wide}'}, 'fit: "wide"'),
    ([_spec('output0', 1, 84, _A)], {'card': 'input: {mean: 3}'}, 'mean'),
    ([_spec('output0', 1, 84, _A)], {'card': 'names: {1: a}'}, 'names'),
    ([_spec('output0', 1, 84, _A)], {'card': 'keypoints: [0, 3]'}, 'keypoints')])
def test_what_is_not_known_for_sure_is_refused_in_one_sentence(outputs, arguments, words):
    with pytest.raises(UserError, match=words) as error:
        _card(outputs, **arguments)
    assert '\n' not in str(error.value) and len(str(error.value)) < 900


def test_a_transformer_is_not_taken_for_a_head_of_fewer_levels():
    # 320x192 has 300 anchor points on the strides 16 and 32: as many as RT-DETR has queries.
    card = _card([_spec('output0', 1, 300, 84)], 80, inputs=[_spec('images', 1, 3, 192, 320)])
    assert card.head.head.key == 'rtdetr_ultralytics'


def test_a_card_file_overrides_names_and_input():
    card = _card([_spec('output0', 1, 6, _A)], 2, card=(
        'names: [cat, dog]\ninput: {fit: stretch, order: bgr, scale: 1, pad: 0}'))
    assert card.names == ('cat', 'dog')
    assert card.input.fit is Fit.STRETCH and card.input.order == 'bgr' and card.input.pad == 0


# What every head says of two objects, and of one below the threshold.
_BOXES = np.array([[100, 80, 180, 140], [300, 200, 420, 260], [10, 10, 30, 30]], np.float32)
_SCORES, _LABELS = np.array([0.9, 0.7, 0.1], np.float32), np.array([2, 0, 1])


def _outputs(card):
    """Return what the card's head gives for these objects in the last rows but one."""
    reading, head, rows = card.head, card.head.head, max(card.head.rows, 5)
    if head.grid:
        rows = anchor_count(card.input_size)
    here = np.arange(rows)[-4:-1]
    corners = np.concatenate((
        (_BOXES[:, :2] + _BOXES[:, 2:]) / 2, _BOXES[:, 2:] - _BOXES[:, :2]), axis=1)
    boxes = _BOXES if head.corners else corners
    if head.normalized:
        boxes = boxes / (*card.input_size, *card.input_size)
    if head.grid:
        column, row, stride = grid(card.input_size)[:, here]
        boxes = np.stack((boxes[:, 0] / stride - column, boxes[:, 1] / stride - row,
                          np.log(boxes[:, 2] / stride), np.log(boxes[:, 3] / stride)), axis=1)
    scores, objectness = _SCORES, 1.0
    if head.objectness is not None:
        scores, objectness = _SCORES / 0.95, 0.95
    tables = {}
    low = -20.0 if head.logits else 0.0

    def put(place, values, rest=0.0):
        if place is None:
            return
        table = tables.setdefault(place.output, {})
        for index, column in enumerate(np.atleast_2d(np.asarray(values, np.float32).T)):
            table[place.column + index] = np.full(rows, rest, np.float32)
            table[place.column + index][here] = column

    put(head.box, boxes)
    if head.label is None:
        wide = np.full((3, reading.classes + head.first_class), low)
        logits = np.log(scores / (1 - scores)) if head.logits else scores
        wide[np.arange(3), head.first_class + _LABELS] = logits
        put(head.score, wide, low)
    else:
        put(head.score, scores)
        put(head.label, _LABELS)
    put(head.objectness, np.full(3, objectness))
    put(head.ones, np.ones(3), 1.0)
    put(head.batch, np.zeros(3))
    if head.count is not None:
        tables[head.count] = {0: np.array([rows - 1], np.float32)}
    found = []
    for number in range(len(head.outputs)):
        columns = tables.get(number, {0: np.zeros(rows)})
        table = np.stack([columns[index] for index in sorted(columns)], axis=1)
        if head.count == number or head.outputs[number] == 'B N':
            table = table[:, 0]
        found.append(table.T if head.columns_first else table)
    return found


@pytest.mark.parametrize('row', [
    row for row in _KNOWN
    if row[1] == 'detect' and row[2] != 2 and row[4].get('names') != 2],
    ids=lambda row: f'{row[0]}-{len(row[3])}-{row[2]}')
def test_every_head_gives_the_objects_that_it_was_given(row):
    card = _card(row[3], **row[4])
    letterbox = Letterbox.fit((1280, 960), card.input_size, card.input.fit)
    found = detect(_outputs(card), card.head, letterbox,
                   FilterParams(score_threshold=0.3).resolve(card.names))
    expected = {
        Fit.LETTERBOX: (_BOXES - (0, 80, 0, 80)) * 2, Fit.TOP_LEFT: _BOXES * 2,
        Fit.STRETCH: _BOXES * (2, 1.5, 2, 1.5)}[card.input.fit][:2]
    np.testing.assert_allclose(found.boxes, expected, atol=1e-2)
    np.testing.assert_allclose(found.scores, _SCORES[:2], atol=1e-5)
    assert found.classes.tolist() == [2, 0] and found.broken == 0
