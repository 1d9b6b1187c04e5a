"""The table of heads: what is recognised, what is refused, and how each is decoded."""

from head_samples import ANCHORS, BOXES, IMAGE, KNOWN, outputs_of, read_card, SCORES, spec
import numpy as np
import pytest

from yolojet_ros.core.decode import detect
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.filters import FilterParams
from yolojet_ros.core.head import BY_KEY, HEADS
from yolojet_ros.core.image_input import Fit
from yolojet_ros.core.letterbox import Letterbox


@pytest.mark.parametrize('key,task,classes,outputs,arguments', KNOWN)
def test_every_family_is_recognised(key, task, classes, outputs, arguments):
    card = read_card(outputs, **arguments)
    assert (card.head.head.key, card.task, card.head.classes) == (key, task, classes)
    assert card.input.fit is BY_KEY[key].input.fit
    assert card.names and card.evidence


def test_a_class_that_is_named_tells_objectness_from_a_label():
    card = read_card([spec('output', 1, 3 * ANCHORS, 6)], names=1)
    assert card.head.head.key == 'yolov5' and card.head.classes == 1


def test_every_head_of_the_table_has_a_sample():
    assert {row[0] for row in KNOWN} == {head.key for head in HEADS}


@pytest.mark.parametrize('outputs,arguments,words', [
    ([spec('output', 1, ANCHORS, 85)], {},
     '"head: yolov8_transposed".*"head: yolov6".*"head: yolox".*"head: yolox_grid"'),
    ([spec('output', 1, ANCHORS, 85)], {'names': 80}, '3 kinds.*m.card.yaml.*"head: yolox"'),
    ([spec('output', 1, ANCHORS, 6)], {}, '"head: yolov8_transposed".*"head: deepstream"'),
    ([spec('output', 1, 3 * ANCHORS, 6)], {},
     '2 kinds.*"head: yolov5".*"head: deepstream_anchors"'),
    ([spec('output', 1, 3 * ANCHORS, 6)], {'names': 3},
     'proves too little.*"head: deepstream_anchors"'),
    ([spec('output', 1, ANCHORS, 6)], {'names': 2},
     '"head: yolov8_transposed".*"head: deepstream"'),
    ([spec('output0', 1, 84, ANCHORS), spec('map', 1, 64, 160, 160)], {},
     '"head: yolov8" and "task: detect".*"head: yolov8" and "task: segment"'),
    ([spec('flat', 'n', 7)], {}, '"head: yolov7_end2end".*"head: classify"'),
    ([spec('output0', 1, 300, 84)], {}, 'proves too little.*"head: rtdetr_ultralytics"'),
    ([spec('output0', 1, 300, 6)],
     {'names': 2, 'metadata': {'description': 'Ultralytics rtdetr-l model'}},
     '"head: rtdetr_ultralytics".*"head: rtdetr_ultralytics_best"'),
    ([spec('logits', 1, 300, 80), spec('pred_boxes', 1, 300, 4)], {},
     '2 kinds of head.*"head: rtdetr_huggingface"'),
    ([spec('output0', 1, 84, 300)], {'names': 80}, 'a head .* is needed'),
    ([spec('output0', 1, 85, ANCHORS)], {'names': 80}, 'the 80 classes that are named a head'),
    ([spec('output0', 1, 56, ANCHORS)], {'metadata': {'task': 'pose'}}, 'kpt_shape.*keypoints'),
    ([spec('output0', 1, 10 ** 9, ANCHORS)], {}, 'a head .* is needed'),
    ([spec('output0', 1, 84, ANCHORS)] * 3, {}, 'a head .* is needed'),
    ([], {}, 'gives no output'),
    ([spec('output0', 1, 84, ANCHORS)], {'inputs': (IMAGE, spec('other', 1))},
     'takes images .*other'),
    ([spec('output0', 1, 84, ANCHORS)], {'card': 'head: yolox'},
     'a head .B A 5.C. is needed.*correct'),
    ([spec('output0', 1, 84, ANCHORS)], {'card': 'head: yolov99'}, 'says head: "yolov99"'),
    ([spec('output0', 1, 84, ANCHORS)], {'card': 'hand: yolov8'}, 'the key "hand"'),
    ([spec('output0', 1, 84, ANCHORS)], {'card': '- a'}, 'lines "KEY: VALUE"'),
    ([spec('output0', 1, 84, ANCHORS)], {'card': 'a: ['}, 'no YAML'),
    ([spec('output0', 1, 84, ANCHORS)], {'card': 'input: {scale: -1}'},
     'scale of the input is -1'),
    ([spec('output0', 1, 84, ANCHORS)], {'card': f'input: {{scale: 1{400 * "0"}}}'}, 'scale'),
    ([spec('output0', 1, 84, ANCHORS)], {'card': 'keypoints: [17, 3.0]'}, 'keypoints'),
    ([spec('output0', 1, 84, ANCHORS)], {'card': 'names: [yes, no]'}, 'quotes'),
    ([spec('output0', 1, 84, ANCHORS)], {'card': 'input: {fit: wide}'}, 'fit: "wide"'),
    ([spec('output0', 1, 84, ANCHORS)], {'card': 'input: {mean: 3}'}, 'mean'),
    ([spec('output0', 1, 84, ANCHORS)], {'card': 'names: {1: a}'}, 'names'),
    ([spec('output0', 1, 84, ANCHORS)], {'card': 'keypoints: [0, 3]'}, 'keypoints')])
def test_what_is_not_known_for_sure_is_refused_in_one_sentence(outputs, arguments, words):
    with pytest.raises(UserError, match=words) as error:
        read_card(outputs, **arguments)
    assert '\n' not in str(error.value) and len(str(error.value)) < 900


def test_a_transformer_is_not_taken_for_a_head_of_fewer_levels():
    # 320x192 has 300 anchor points on the strides 16 and 32: as many as RT-DETR has queries.
    card = read_card(
        [spec('output0', 1, 300, 84)], names=80, inputs=[spec('images', 1, 3, 192, 320)])
    assert card.head.head.key == 'rtdetr_ultralytics'


def test_a_card_file_overrides_names_and_input():
    card = read_card([spec('output0', 1, 6, ANCHORS)], names=2, card=(
        'names: [cat, dog]\ninput: {fit: stretch, order: bgr, scale: 1, pad: 0}'))
    assert card.names == ('cat', 'dog')
    assert card.input.fit is Fit.STRETCH and card.input.order == 'bgr' and card.input.pad == 0


@pytest.mark.parametrize('row', [
    row for row in KNOWN
    if row[1] == 'detect' and row[2] != 2 and row[4].get('names') != 2],
    ids=lambda row: f'{row[0]}-{len(row[3])}-{row[2]}')
def test_every_head_gives_the_objects_that_it_was_given(row):
    card = read_card(row[3], **row[4])
    letterbox = Letterbox.fit((1280, 960), card.input_size, card.input.fit)
    found = detect(outputs_of(card), card.head, letterbox,
                   FilterParams(score_threshold=0.3).resolve(card.names))
    expected = {
        Fit.LETTERBOX: (BOXES - (0, 80, 0, 80)) * 2, Fit.TOP_LEFT: BOXES * 2,
        Fit.STRETCH: BOXES * (2, 1.5, 2, 1.5)}[card.input.fit][:2]
    np.testing.assert_allclose(found.boxes, expected, atol=1e-2)
    np.testing.assert_allclose(found.scores, SCORES[:2], atol=1e-5)
    assert found.classes.tolist() == [2, 0] and found.broken == 0
