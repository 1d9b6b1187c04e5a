"""Models of one image that are opened for many."""

from pathlib import Path

import conv_model
import numpy as np
from onnx import helper, numpy_helper
import pytest
from yolojet_ros.core.errors import UserError
from yolojet_ros.model import onnx_file
from yolojet_ros.model.open_batch import open_batch

_ROOT = Path(__file__).parents[1]
_MODELS = ('engines/demo/yolojet_demo.onnx', 'engines/demo/yolojet_demo_segment.onnx',
           'test/assets/obb_fp16.onnx', 'test/assets/pose_fp16.onnx')


@pytest.mark.parametrize('name', _MODELS)
def test_our_own_exports_can_be_opened(name):
    opened = open_batch(onnx_file.load(_ROOT / name), name)
    assert onnx_file.card(opened, name).batch == 0
    for value in (*opened.graph.input, *opened.graph.output):
        assert onnx_file.shape(value)[0] == 'batch'


def _with_tail(*nodes, **constants):
    """Return the tiny model with nodes from `a`, its activations, to `tail` added to its scores."""
    model = conv_model.build()
    add = model.graph.node.pop()
    model.graph.node.extend(nodes)
    model.graph.node.append(helper.make_node('Add', ['answer', 'shift'], ['sum'], 'sum'))
    model.graph.node.append(helper.make_node('Add', ['sum', 'tail'], add.output, 'add'))
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    return model


@pytest.mark.parametrize('zero, flat', [(0, [1, 8]), (1, [1, 8]), (0, [1, 0])])
def test_reshapes_that_hold_the_one_are_opened(zero, flat):
    model = _with_tail(
        helper.make_node('Reshape', ['g', 'flat'], ['f'], 'flatten', allowzero=zero),
        helper.make_node('ReduceMean', ['f'], ['mean'], 'mean2', axes=[1], keepdims=1),
        helper.make_node('Reshape', ['mean', 'three'], ['tail'], 'three'),
        flat=np.array(flat), three=np.array([1, 1, 1]))
    model.opset_import[0].version = 14
    opened = open_batch(model, 'm.onnx')
    assert onnx_file.card(opened, 'm.onnx').batch == 0


@pytest.mark.parametrize('words, nodes, constants', [
    ('something else for two images', [
        helper.make_node('ReduceMean', ['g'], ['mean'], 'all', axes=[0, 1], keepdims=1),
        helper.make_node('Squeeze', ['mean', 'axis'], ['tail'], 'less')], {}),
    ('built into it', [
        helper.make_node('Concat', ['g', 'one'], ['both'], 'both', axis=1),
        helper.make_node('ReduceMean', ['both'], ['mean'], 'all', axes=[1], keepdims=1),
        helper.make_node('Squeeze', ['mean', 'axis'], ['tail'], 'less')],
     {'one': np.ones((1, 1, 1, 1), np.float32)})])
def test_a_model_whose_images_get_in_each_others_way_is_refused(words, nodes, constants):
    model = _with_tail(*nodes, **constants)
    with pytest.raises(UserError, match=f'm.onnx has a fixed batch of 1, .*{words}') as error:
        open_batch(model, 'm.onnx')
    assert '\n' not in str(error.value) and 'export it with a dynamic batch' in str(error.value)
