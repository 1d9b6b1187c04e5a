"""What is read from metadata and tensor shapes."""

import pytest

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.model_card import (
    anchor_count, HeadLayout, MAX_CLASSES, MAX_NAME_LENGTH, ModelCard)

_NAMES = "{0: 'crate', 1: 'barrel'}"


def _card(metadata=None, input_shape=(1, 3, 192, 320), output_shape=(1, 6, 1260)):
    return ModelCard.from_tensors('m.onnx', metadata or {}, input_shape, output_shape)


def test_a_complete_card():
    card = _card({'names': _NAMES, 'stride': '32', 'imgsz': '[192, 320]', 'task': 'detect'})
    assert card.names == ('crate', 'barrel') and card.input_size == (320, 192)
    assert card.layout is HeadLayout.RAW and card.boxes == 1260 == anchor_count((320, 192))
    assert card.batch == 1 and card.stride == 32


def test_names_may_be_a_list_or_missing():
    assert _card({'names': "['a', 'b']"}).names == ('a', 'b')
    assert _card().names == ('class_0', 'class_1')


@pytest.mark.parametrize('shape,layout', [
    ((1, 6, 1260), HeadLayout.RAW), ((1, 1260, 6), HeadLayout.TRANSPOSED),
    ((1, 300, 6), HeadLayout.NMS), (('batch', 6, 'anchors'), HeadLayout.RAW)])
def test_layouts_are_told_apart_even_where_both_sides_could_be_six(shape, layout):
    assert _card({'names': _NAMES}, output_shape=shape).layout is layout


def test_only_a_layout_that_ends_in_nms_is_final():
    assert [layout for layout in HeadLayout if layout.final] == [HeadLayout.NMS]


def _coco(output_shape, count=80, **arguments):
    names = {'names': str({index: f'c{index}' for index in range(count)})} if count else {}
    return ModelCard.from_tensors(
        'm.onnx', names, arguments.get('input_shape', (1, 3, 640, 640)), output_shape)


@pytest.mark.parametrize('rows', [8400, 34000, 8500, 2000])  # P3-P5, P2-P5, P3-P6, P4-P5
def test_heads_of_more_and_fewer_levels_are_read(rows):
    assert _coco((1, 84, rows)).boxes == rows


@pytest.mark.parametrize('shape,count,words', [
    ((1, 300, 84), 80, '300 are not the 8400 anchor points.*RT-DETR'),
    ((1, 84, 300), 80, '300 are not the 8400 anchor points'),
    ((1, 300, 84), 0, 'output of shape'),
    ((1, 8400, 85), 0, 'names no classes.*YOLOX, YOLOv6'),
    ((1, 8400, 85), 80, 'output has 81; the column more is objectness'),
    ((1, 85, 8400), 80, 'output has 81; the column more is objectness'),
    ((1, 25200, 85), 80, 'output of shape'),
    ((1, 8400, 6), 0, 'names no classes.*DeepStream'),
    ((1, 8400, 6), 80, 'names 80 classes in its metadata but its output has 2'),
    ((1, 25200, 6), 0, 'output of shape'), ((1, 16800, 6), 3, 'output of shape'),
    ((1, 10 ** 9, 8400), 0, 'at most 10000')])
def test_heads_of_other_kinds_are_refused_not_misread(shape, count, words):
    with pytest.raises(UserError, match=words) as error:
        _coco(shape, count)
    assert '\n' not in str(error.value)


def test_a_transformer_is_not_taken_for_a_head_of_fewer_levels():
    # 320x192 has 300 anchor points on the strides 16 and 32: as many as RT-DETR has queries.
    with pytest.raises(UserError, match='300 are not the 1260 anchor points'):
        _coco((1, 300, 84), input_shape=(1, 3, 192, 320))


def test_two_heads_are_refused_and_feature_maps_are_passed_over():
    metadata = {'names': _NAMES}
    head, feature_map = (1, 6, 1260), (1, 64, 24, 40)
    index, card = ModelCard.from_outputs(
        'm.onnx', metadata, (1, 3, 192, 320), [feature_map, head])
    assert index == 1 and card.layout is HeadLayout.RAW
    with pytest.raises(UserError, match='2 outputs.*auxiliary head.*YOLOv9'):
        ModelCard.from_outputs('m.onnx', metadata, (1, 3, 192, 320), [head, feature_map, head])
    with pytest.raises(UserError, match='output of shape'):
        ModelCard.from_outputs('m.onnx', metadata, (1, 3, 192, 320), [feature_map])
    with pytest.raises(UserError, match='no float output'):
        ModelCard.from_outputs('m.onnx', metadata, (1, 3, 192, 320), [])


@pytest.mark.parametrize('size', [(31, 33), (0, 640), (640, -32), (100000, 100000), (4128, 4096)])
def test_sizes_that_cannot_run_are_refused_by_arithmetic(size):
    words = f'takes images of {size[0]}x{size[1]}'
    with pytest.raises(UserError, match=words):
        _card({'names': _NAMES, 'imgsz': f'[{size[1]}, {size[0]}]'}, (1, 3, 'h', 'w'))
    if min(size) > 0:
        with pytest.raises(UserError, match=words):
            _card({'names': _NAMES}, (1, 3, size[1], size[0]))


def test_a_batch_that_fills_the_memory_is_refused_by_arithmetic():
    with pytest.raises(UserError, match='takes 100000 images of 320x192 at once'):
        _card({'names': _NAMES}, (100000, 3, 192, 320))


def test_names_are_bounded_in_number_and_length():
    assert len(_coco((1, 4 + MAX_CLASSES, 8400), MAX_CLASSES).names) == MAX_CLASSES
    longest = repr(['a' * MAX_NAME_LENGTH, 'b'])
    assert _card({'names': longest}).names[1] == 'b'
    for names, words in (
            (['a' * (MAX_NAME_LENGTH + 1), 'b'], 'the longest in 201 characters'),
            ([''] * (MAX_CLASSES + 1), 'names 10001 classes'),
            (['a' * 20_000_000], 'take 20000004 characters')):
        with pytest.raises(UserError, match=words) as error:
            _card({'names': repr(names)})
        assert len(str(error.value)) < 300


def test_a_dynamic_batch_and_size_are_filled_from_the_metadata():
    card = _card({'names': _NAMES, 'imgsz': '[192, 320]'}, ('batch', 3, 'height', 'width'))
    assert card.batch == 0 and card.input_size == (320, 192)
    assert _card({'names': _NAMES, 'imgsz': '640'}, (1, 3, None, None),
                 (1, 6, 8400)).input_size == (640, 640)


@pytest.mark.parametrize('arguments,words', [
    (dict(metadata={'task': 'segment'}), 'segment'),
    (dict(input_shape=(1, 1, 192, 320)), 'input of shape'),
    (dict(input_shape=(1, 3)), 'input of shape'),
    (dict(input_shape=(1, 3, 'h', 'w')), 'dynamic input size'),
    (dict(output_shape=(1, 1000)), '1260'),
    (dict(output_shape=(1, 32, 24, 40)), 'output of shape'),
    (dict(output_shape=(1, 7, 1260), metadata={'names': _NAMES}), 'names 2 classes.*has 3'),
    (dict(metadata={'names': '{0: oops'}), 'class names'),
    (dict(metadata={'names': _NAMES, 'stride': 'x'}), 'the stride'),
    (dict(metadata={'names': _NAMES, 'stride': '1e999'}), 'the stride'),
    (dict(metadata={'names': _NAMES, 'stride': '-32'}), 'the stride'),
    (dict(metadata={'task': 'a\nb'}), r'"a.nb" model')])
def test_a_foreign_model_is_named_in_one_sentence(arguments, words):
    with pytest.raises(UserError, match=words) as error:
        _card(**arguments)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('names', [r"['a\0', 'b']", r"{0: 'a', 1: '\ud800'}"])
def test_names_that_no_message_can_carry_are_refused(names):
    with pytest.raises(UserError, match='no ROS message can carry') as error:
        _card({'names': names})
    assert str(error.value).isprintable()
