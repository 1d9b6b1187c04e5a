"""What is read from metadata and tensor shapes."""

import pytest

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.head import anchor_count, MAX_CLASSES
from yolojet_ros.core.model_card import MAX_NAME_LENGTH, ModelCard
from yolojet_ros.core.tensors import TensorSpec

_NAMES = "{0: 'crate', 1: 'barrel'}"


def _card(metadata=None, input_shape=(1, 3, 192, 320), output_shape=(1, 6, 1260)):
    return ModelCard.read(
        'm.onnx', metadata or {}, [TensorSpec('images', 'float32', input_shape)],
        [TensorSpec('output0', 'float32', output_shape)])


def test_a_complete_card():
    card = _card({'names': _NAMES, 'stride': '32', 'imgsz': '[192, 320]', 'task': 'detect'})
    assert card.names == ('crate', 'barrel') and card.input_size == (320, 192)
    assert card.head.head.key == 'yolov8' and card.head.rows == 1260 == anchor_count((320, 192))
    assert card.batch == 1 and card.stride == 32


def test_names_may_be_a_list_or_missing():
    assert _card({'names': "['a', 'b']"}).names == ('a', 'b')
    assert _card().names == ('class_0', 'class_1')


def _coco(output_shape, count=80):
    names = {'names': str({index: f'c{index}' for index in range(count)})} if count else {}
    return _card(names, (1, 3, 640, 640), output_shape)


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
    (dict(metadata={'task': 'segment'}), 'a head'),
    (dict(metadata={'task': 'track'}), '"track" model'),
    (dict(input_shape=(1, 1, 192, 320)), 'input of shape'),
    (dict(input_shape=(1, 3)), 'input of shape'),
    (dict(input_shape=(1, 3, 'h', 'w')), 'dynamic input size'),
    (dict(output_shape=(1, 1000)), 'head: classify'),
    (dict(output_shape=(1, 32, 24, 40)), r'output0 float32 .1, 32, 24, 40.; a head'),
    (dict(output_shape=(1, 7, 1260), metadata={'names': _NAMES}), 'the 2 classes that are named'),
    (dict(metadata={'kpt_shape': '[17]'}), 'kpt_shape'),
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
