"""The rewritten graph computes what the original does, whoever exported it."""

from __future__ import annotations

import io
from pathlib import Path
import warnings

import numpy as np
import onnx
from onnx import helper, numpy_helper
import onnxruntime
import pytest

torch = pytest.importorskip('torch')

from model_samples import exported  # noqa: E402
from torch import nn  # noqa: E402
from yolojet_ros.model import int8_layout, onnx_file, quantization  # noqa: E402

_DEMO = Path(__file__).parents[1] / 'engines' / 'demo'
_ASSETS = Path(__file__).parent / 'assets'


def _single(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose weights are stored in FP16 in FP32."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == 'Cast' and attribute.i == onnx.TensorProto.FLOAT16:
                attribute.i = onnx.TensorProto.FLOAT
    del model.graph.value_info[:]
    return model


def _run(model: onnx.ModelProto, tensor: np.ndarray):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=['CPUExecutionProvider'])
    return session.run(None, {session.get_inputs()[0].name: tensor})


def _rewritten(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the rewritten model after a look at its outputs, which must be the original's."""
    onnx_file.name_nodes(model)
    before = model.SerializeToString()
    result = int8_layout.rewrite(model)
    assert model.SerializeToString() == before, 'the original was changed'
    onnx.checker.check_model(result, full_check=True)
    shape = [size if isinstance(size, int) else 1 for size in onnx_file.shape(model.graph.input[0])]
    tensor = np.random.default_rng(0).random(shape, np.float32)
    for expected, found in zip(_run(model, tensor), _run(result, tensor)):
        scale = np.abs(expected).max()
        assert np.abs(found - expected).max() <= 1e-5 * scale
    return result


def _kinds(model: onnx.ModelProto):
    found = [node.op_type for node in model.graph.node]
    return {kind: found.count(kind) for kind in set(found)}


@pytest.mark.parametrize('source', [
    _DEMO / 'yolojet_demo.onnx', _DEMO / 'yolojet_demo_segment.onnx', _ASSETS / 'pose_fp16.onnx',
    _ASSETS / 'obb_fp16.onnx', 13, 17], ids=lambda source: getattr(source, 'stem', source))
def test_every_block_of_a_yolov8_is_rewritten_and_computes_the_same(source):
    model = _single(onnx_file.load(source)) if isinstance(source, Path) else (
        onnx.load_model_from_string(exported(source)))
    before, after = _kinds(model), _kinds(_rewritten(model))
    assert before['Split'] - after.get('Split', 0) == 8
    assert after['Conv'] == before['Conv'] + 8
    assert {kind: count for kind, count in after.items() if kind not in (
        'Conv', 'Split', 'Sigmoid', 'Mul', 'Constant')} == {
        kind: count for kind, count in before.items() if kind not in (
            'Conv', 'Split', 'Sigmoid', 'Mul', 'Constant')}


def test_bottlenecks_fill_whole_vectors_of_channels():
    """The widest block has 16 channels in its bottleneck, which TensorRT would copy around."""
    model = _rewritten(onnx.load_model_from_string(exported(17)))
    constants = onnx_file.initializers(model)
    halves = [node for node in model.graph.node if node.name.endswith(int8_layout.AGAIN)
              and node.op_type == 'Conv']
    assert len(halves) == 8
    assert all(constants[node.input[1]].dims[0] % 32 == 0 for node in halves)


class _Conv(nn.Module):
    def __init__(self, channels, out, kernel=1, groups=1, active=True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, padding=kernel // 2, groups=groups)
        self.act = nn.SiLU() if active else nn.Identity()

    def forward(self, x):
        return self.act(self.conv(x))


class _Bottleneck(nn.Module):
    def __init__(self, channels, inner) -> None:
        super().__init__()
        self.cv1, self.cv2 = _Conv(channels, inner, 3), _Conv(inner, channels, 3)

    def forward(self, x):
        return x + self.cv2(self.cv1(x))


class _Nested(nn.Module):
    """Bottlenecks between two branches, as newer YOLOs have them within their blocks."""

    def __init__(self, channels, inner) -> None:
        super().__init__()
        self.cv1, self.cv2 = _Conv(channels, inner), _Conv(channels, inner)
        self.cv3, self.m = _Conv(2 * inner, channels), _Bottleneck(inner, inner)

    def forward(self, x):
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class _Attention(nn.Module):
    """Self-attention over the places of one half, with a depthwise convolution."""

    def __init__(self, channels) -> None:
        super().__init__()
        self.qkv = _Conv(channels, 3 * channels, active=False)
        self.place = _Conv(channels, channels, 3, channels, active=False)

    def forward(self, x):
        n, c, h, w = x.shape
        q, k, v = self.qkv(x).view(n, 3 * c, h * w).split([c, c, c], 1)
        found = (v @ (q.transpose(1, 2) @ k).softmax(-1).transpose(1, 2)).view(n, c, h, w)
        return x + found + self.place(v.reshape(n, c, h, w))


class _Block(nn.Module):
    """A convolution whose halves are concatenated with what inner layers make of the second."""

    def __init__(self, inner, channels, keep=True) -> None:
        super().__init__()
        self.m, self.keep = nn.ModuleList(inner), keep
        self.cv1 = _Conv(16, 2 * channels)
        self.cv2 = _Conv((1 + keep + len(inner)) * channels, 16)

    def forward(self, x):
        parts = list(self.cv1(x).split(self.cv1.conv.out_channels // 2, 1))
        for layer in self.m:
            parts.append(layer(parts[-1]))
        if not self.keep:
            del parts[1]
        return self.cv2(torch.cat(parts, 1))


def _exported(network: nn.Module) -> onnx.ModelProto:
    torch.manual_seed(0)
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the tracing exporter is deprecated
        torch.onnx.export(network.eval(), torch.rand(1, 16, 8, 8), target, opset_version=17,
                          input_names=['images'], dynamo=False)
    return onnx.load_model_from_string(target.getvalue())


@pytest.mark.parametrize('channels', [8, 12, 16, 24, 32, 40])
@pytest.mark.parametrize('name, inner, rewritten', [
    ('c2f', lambda c: [_Bottleneck(c, c)], True),
    ('c2f of two', lambda c: [_Bottleneck(c, c), _Bottleneck(c, c)], True),
    ('c3k2 with a narrow bottleneck', lambda c: [_Bottleneck(c, c // 2)], True),
    ('c3k2', lambda c: [_Nested(c, c // 2)], True),
    ('c3k2 of equal channels', lambda c: [_Nested(c, c)], True),
    ('attention', lambda c: [_Attention(c)], True),
    ('c2psa', lambda c: [_Attention(c)], False)])
def test_blocks_of_other_networks_compute_the_same(name, inner, rewritten, channels):
    model = _exported(_Block(inner(channels), channels, keep=rewritten))
    result = _rewritten(model)
    assert 'Split' in _kinds(model)
    splits = [n for n in result.graph.node if n.op_type == 'Split' and len(n.output) == 2]
    assert bool(splits) != rewritten


def test_one_set_of_weights_for_two_convolutions_is_not_changed_for_both():
    inner = _Bottleneck(16, 16)
    inner.cv2 = inner.cv1
    model = _exported(nn.Sequential(_Block([inner], 16), inner))
    _rewritten(model)


def test_halves_that_are_outputs_stay():
    model = _exported(_Block([_Bottleneck(16, 16)], 16))
    split = next(node for node in model.graph.node if node.op_type == 'Split')
    model.graph.output.append(helper.make_tensor_value_info(
        split.output[1], onnx.TensorProto.FLOAT, [1, 16, 8, 8]))
    assert 'Split' in _kinds(_rewritten(model))


def test_what_is_computed_again_stays_in_float_with_its_convolution():
    model = quantization.prepare(onnx.load_model_from_string(exported(17)), 'm')
    again = next(node.name for node in model.graph.node if node.op_type == 'Conv'
                 and node.name.endswith(int8_layout.AGAIN))
    name = again[:-len(int8_layout.AGAIN)]
    quantized = {node.name for node in quantization.quantizable(model)}
    assert {name, again} <= quantized
    assert quantized - {n.name for n in quantization.quantizable(model, [name])} == {name, again}
    assert quantized - {n.name for n in quantization.quantizable(model, [again])} == {again}
