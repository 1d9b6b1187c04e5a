"""What is read from metadata and tensor shapes."""

import pytest

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.model_card import anchor_count, HeadLayout, ModelCard

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
    (dict(metadata={'names': '{0: oops'}), 'class names')])
def test_a_foreign_model_is_named_in_one_sentence(arguments, words):
    with pytest.raises(UserError, match=words) as error:
        _card(**arguments)
    assert '\n' not in str(error.value)
