"""FP16 typing: every trained layer of whatever network, and nothing of the decoding."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
import tempfile

import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto
import onnxruntime
import pytest

torch = pytest.importorskip('torch')

from model_samples import SIZE, trained_model  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from yolojet_ros.core.errors import UserError  # noqa: E402
from yolojet_ros.model import onnx_file, onnx_graph  # noqa: E402
from yolojet_ros.model.export import export  # noqa: E402
from yolojet_ros.model.fp16 import REMAINING_KEY, to_fp16  # noqa: E402
from yolojet_ros.model.nms_graph import append_nms, NmsSettings  # noqa: E402

_WIDTH = 128  # of the stage that the blocks are put behind


class _ActivationFree(nn.Sequential):
    """A convolution with nothing but a convolution behind it."""

    def __init__(self):
        super().__init__(nn.Conv2d(_WIDTH, _WIDTH, 1), nn.Conv2d(_WIDTH, _WIDTH, 1))


class _Depthwise(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(_WIDTH, _WIDTH, 7, padding=3, groups=_WIDTH), nn.SiLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1, groups=_WIDTH))


class _Attention(nn.Module):
    """Heads of queries, keys and values from one bare convolution, over areas of the image."""

    def __init__(self, areas=1):
        super().__init__()
        self.areas = areas
        self.qkv = nn.Conv2d(_WIDTH, 3 * _WIDTH, 1)
        self.position = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1, groups=_WIDTH)
        self.projection = nn.Conv2d(_WIDTH, _WIDTH, 1)
        self.gain = nn.Parameter(torch.full((_WIDTH, 1, 1), 0.5))

    def forward(self, x):
        batch, channels, height, width = x.shape
        q, k, v = self.qkv(x).view(
            batch * self.areas, 4, 3 * channels // 4, -1).split(channels // 4, 2)
        weights = ((q.transpose(2, 3) @ k) * (channels // 4) ** -0.5).softmax(-1)
        mixed = (v @ weights.transpose(2, 3)).reshape(batch, channels, height, width)
        values = v.reshape(batch, channels, height, width)
        return x + self.gain * self.projection(mixed + self.position(values))


class _AreaAttention(_Attention):
    def __init__(self):
        super().__init__(areas=2)


class _Linear(nn.Module):
    """A layer norm and two matrices over the channels."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(_WIDTH)
        self.up, self.down = nn.Linear(_WIDTH, 96), nn.Linear(96, _WIDTH)

    def forward(self, x):
        rows = x.flatten(2).transpose(1, 2)
        rows = self.down(functional.gelu(self.up(self.norm(rows))))
        return x + rows.transpose(1, 2).reshape(x.shape)


_BLOCKS = (_ActivationFree, _Depthwise, _Attention, _AreaAttention, _Linear)


@lru_cache(maxsize=None)
def _file(block, opset) -> bytes:
    model = trained_model()
    torch.manual_seed(1)
    model.network.stage4 = nn.Sequential(model.network.stage4, block())
    with tempfile.TemporaryDirectory() as folder:
        export(model, Path(folder, 'm.onnx'), opset)
        return Path(folder, 'm.onnx').read_bytes()


def _exported(block, opset=17) -> onnx.ModelProto:
    return onnx.load_model_from_string(_file(block, opset))


def _run(model, images):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider'])
    return session.run(None, {'images': images})[0]


def _trained(model):
    """Return the weights that convolutions and matrices read, but the 16 distance bins."""
    names = {name for node in model.graph.node if node.op_type in ('Conv', 'Gemm', 'MatMul')
             for name in node.input[1:]}
    return [t for t in model.graph.initializer if t.name in names and np.prod(t.dims) != 16]


@pytest.mark.parametrize('block, opset', [*((b, 17) for b in _BLOCKS), (_Attention, 13)])
def test_every_trained_layer_becomes_fp16_whatever_lies_between(block, opset, tmp_path):
    model = _exported(block, opset)
    half = to_fp16(model, 'm')
    onnx_file.save(half, tmp_path / 'h.onnx')
    assert {t.data_type for t in _trained(half)} == {TensorProto.FLOAT16}
    assert len(_trained(half)) == len(_trained(model))
    assert REMAINING_KEY not in onnx_file.metadata(half)
    images = np.random.default_rng(1).random((1, 3, SIZE[1], SIZE[0]), np.float32)
    expected, found = _run(model, images), _run(half, images)
    assert expected[:, 4:].std() > 0.05  # the scores say something
    assert 0 < np.abs(expected - found)[:, 4:].max() < 0.03
    assert np.abs(expected - found)[:, :4].max() < 1.5


@pytest.mark.parametrize('block', _BLOCKS)
def test_the_decoding_computes_in_fp32_alone(block):
    half = to_fp16(_exported(block), 'm')
    inferred = onnx.shape_inference.infer_shapes(half, strict_mode=True).graph
    types = {v.name: v.type.tensor_type.elem_type
             for v in (*inferred.value_info, *inferred.output)}
    types.update({t.name: t.data_type for t in half.graph.initializer})
    behind = [half.graph.node[place] for place in sorted(onnx_graph.decoding(half.graph))]
    assert {'Softmax', 'Sigmoid', 'Concat'} <= {node.op_type for node in behind}
    for node in behind:
        if node.op_type != 'Cast':
            assert TensorProto.FLOAT16 not in [types.get(name) for name in node.input], node.name


def test_small_matrices_of_the_decoding_and_nms_stay_with_it():
    model = _exported(_Attention)
    plain = len(onnx_graph.decoding(model.graph))
    append_nms(model, NmsSettings('layer', score=0.3, iou=0.5, boxes=20))
    corners = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [-.5, 0, .5, 0], [0, -.5, 0, .5]], np.float32)
    model.graph.initializer.extend((
        numpy_helper.from_array(corners, 'corners'),
        *(numpy_helper.from_array(np.array([v], np.int64), f'number_{v}') for v in (0, 2, 4))))
    model.graph.node.extend((
        helper.make_node(
            'Slice', ['detections', 'number_0', 'number_4', 'number_2'], ['part'], 'part'),
        helper.make_node('MatMul', ['part', 'corners'], ['turned'], 'turn')))
    added = len(model.graph.node)
    half = to_fp16(model, 'm')
    # Only the six logits are cast; all of NMS lies behind them.
    assert len(onnx_graph.decoding(model.graph)) > plain + 10
    assert len(half.graph.node) - added <= 7
    images = np.random.default_rng(1).random((1, 3, SIZE[1], SIZE[0]), np.float32)
    expected, found = _run(model, images), _run(half, images)
    assert np.allclose(np.sort(expected[0, :, 4]), np.sort(found[0, :, 4]), atol=0.03)


def _small(nodes, constants, opset=17, extra=()):
    """Return a model: images -> nodes -> features, then a convolution to the raw head."""
    head = np.random.default_rng(0).normal(0, 0.1, (5, 8, 1, 1)).astype(np.float32)
    stem = np.random.default_rng(1).normal(0, 0.1, (8, 3, 8, 8)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node('Conv', ['images', 'stem'], ['x'], 'stem', strides=[8, 8]), *nodes,
         helper.make_node('Conv', ['y', 'head'], ['map'], 'head'),
         helper.make_node('Reshape', ['map', 'shape'], ['rows'], 'flat'),
         helper.make_node('Pad', ['rows', 'pads'], ['output0'], 'pad')], 'small',
        [helper.make_tensor_value_info('images', 1, [1, 3, 32, 32])],
        [helper.make_tensor_value_info('output0', 1, [1, 5, 21])],
        [numpy_helper.from_array(stem, 'stem'), numpy_helper.from_array(head, 'head'),
         numpy_helper.from_array(np.array([1, 5, 16], np.int64), 'shape'),
         numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 5], np.int64), 'pads'),
         *(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid('', opset), *extra], ir_version=8)
    onnx_file.set_metadata(model, onnx_file.card_metadata(('a',), (32, 32)))
    return model


def _weight(value):
    return np.full((8, 8, 1, 1), value, np.float32)


@pytest.mark.parametrize('case, reason, count', [
    ('large', 'outside the range', 64), ('tiny divisor', 'outside the range', 1),
    ('foreign', 'no standard operator', 64), ('behind', 'unknown type', 64),
    ('branch', 'control flow', 1600)])
def test_weights_that_stay_fp32_are_counted_with_the_reason(case, reason, count, tmp_path):
    conv = helper.make_node('Conv', ['x', 'w'], ['y'], 'c')
    extra = ()
    if case == 'large':
        model = _small([conv], {'w': _weight(1e6)})
    elif case == 'tiny divisor':
        model = _small([helper.make_node('Add', ['x', 'e'], ['y'], 'a')],
                       {'e': np.float32(1e-12)})
    elif case == 'foreign':
        extra = (helper.make_opsetid('mine', 1),)
        model = _small([helper.make_node('Mine', ['x', 'w'], ['y'], 'm', domain='mine')],
                       {'w': _weight(1)}, extra=extra)
        # The head reads what nobody knows the type of, unless the file says it.
        model.graph.value_info.append(helper.make_tensor_value_info('y', 1, [1, 8, 4, 4]))
    elif case == 'behind':
        extra = (helper.make_opsetid('mine', 1),)
        model = _small([helper.make_node('Mine', ['x'], ['z'], 'm', domain='mine'),
                        helper.make_node('Conv', ['z', 'w'], ['q'], 'c'),
                        helper.make_node('Relu', ['x'], ['y'], 'r')],
                       {'w': _weight(1)}, extra=extra)
        model.graph.output.append(helper.make_tensor_value_info('q', 1, [1, 8, 4, 4]))
    else:
        branches = {
            f'{name}_branch': helper.make_graph(
                [helper.make_node('Conv', ['x', 'w'], [f'{name}_y'])], name, [],
                [helper.make_tensor_value_info(f'{name}_y', 1, [1, 8, 4, 4])])
            for name in ('then', 'else')}
        model = _small([helper.make_node('If', ['yes'], ['y'], 'if', **branches)],
                       {'w': _weight(1), 'yes': np.array(True)})
    half = to_fp16(model, 'm')
    text = onnx_file.metadata(half).get(REMAINING_KEY, '')
    assert reason in text and text.startswith(f'{count:,}: ')
    if not extra:
        onnx_file.save(half, tmp_path / 'h.onnx')
        images = np.random.default_rng(2).random((1, 3, 32, 32), np.float32)
        assert np.allclose(_run(half, images), _run(model, images), rtol=2e-2, atol=2e-2)


def test_constants_that_are_nodes_become_fp16_too(tmp_path):
    weight = numpy_helper.from_array(_weight(0.5))
    model = _small([helper.make_node('Constant', [], ['w'], 'k', value=weight),
                    helper.make_node('Conv', ['x', 'w'], ['y'], 'c')], {})
    half = to_fp16(model, 'm')
    onnx_file.save(half, tmp_path / 'h.onnx')
    assert {t.data_type for t in _trained(half)} == {TensorProto.FLOAT16}
    images = np.random.default_rng(2).random((1, 3, 32, 32), np.float32)
    assert np.allclose(_run(half, images), _run(model, images), atol=5e-3)


def test_a_trained_layer_that_writes_the_output_gives_fp32_out():
    mixer = np.random.default_rng(3).normal(0, 0.1, (21, 21)).astype(np.float32)
    model = _small([helper.make_node('Relu', ['x'], ['y'], 'r')], {'mixer': mixer})
    model.graph.node[-1].output[0] = 'padded'
    model.graph.node.append(helper.make_node('MatMul', ['padded', 'mixer'], ['output0'], 'mix'))
    half = to_fp16(model, 'm')
    onnx.checker.check_model(half, full_check=True)
    assert half.graph.output[0].name == 'output0'
    images = np.random.default_rng(2).random((1, 3, 32, 32), np.float32)
    found = _run(half, images)
    assert found.dtype == np.float32 and np.allclose(found, _run(model, images), atol=2e-3)


def test_what_cannot_be_lifted_is_told_in_one_sentence():
    model = _small([helper.make_node('QuantizeLinear', ['x', 's', 'z'], ['q'], 'q'),
                    helper.make_node('DequantizeLinear', ['q', 's', 'z'], ['d'], 'd'),
                    helper.make_node('Mine', ['d'], ['y'], 'm')],
                   {'s': np.float32(0.1), 'z': np.int8(0)}, opset=13)
    with pytest.raises(UserError, match='cannot be lifted from opset 13') as error:
        to_fp16(model, 'm')
    assert '\n' not in str(error.value)
