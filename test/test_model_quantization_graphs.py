"""Graphs of other authors become INT8 models that run, whatever they are made of."""

from __future__ import annotations

import conv_model
import numpy as np
import onnx
from onnx import helper, numpy_helper
import onnxruntime
import pytest
from yolojet_ros.cli.main import main
from yolojet_ros.model import int8_layout, onnx_file, quantization


class _Tail:
    """
    Adds nodes to the tiny model, behind its activations `a`, float32[1, 8, 32, 48].

    active: the activation behind the convolutions: 'silu', an operator, or None.
    """

    def __init__(self, active='silu') -> None:
        self.model, self._active = conv_model.build(), active
        self._rng, self._nodes = np.random.default_rng(0), []

    def constant(self, values, name='constant') -> str:
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def noise(self, *shape, name='constant') -> str:
        return self.constant(self._rng.normal(size=shape).astype(np.float32), name)

    def op(self, kind, inputs, *outputs, **attributes):
        self._nodes.append(helper.make_node(kind, inputs, outputs, outputs[0], **attributes))
        return outputs[0]

    def conv(self, tensor, channels, out, name, weight=None) -> str:
        weight = weight or self.noise(out, channels, 1, 1, name=f'{name}_w')
        self.op('Conv', [tensor, weight], f'{name}_c')
        if self._active is None:
            return f'{name}_c'
        if self._active != 'silu':
            return self.op(self._active, [f'{name}_c'], name)
        self.op('Sigmoid', [f'{name}_c'], f'{name}_s')
        return self.op('Mul', [f'{name}_c', f'{name}_s'], name)

    def finish(self, tensor) -> onnx.ModelProto:
        """Return the model whose scores are moved by what the nodes make of the image."""
        nodes = list(self.model.graph.node)
        place = next(i for i, node in enumerate(nodes) if node.name == 'pool')
        nodes[place].input[0] = tensor
        del self.model.graph.node[:]
        self.model.graph.node.extend([*nodes[:place], *self._nodes, *nodes[place:]])
        onnx.checker.check_model(self.model, full_check=True)
        return self.model


def _beside() -> onnx.ModelProto:
    """What is computed from a half is put below something else, not behind its channels."""
    tail = _Tail()
    x = tail.conv('a', 8, 32, 'x')
    tail.op('Split', [x], 'first', 'second', axis=1)
    whole = tail.conv(tail.op('Concat', ['first', 'second'], 'whole', axis=1), 32, 8, 'w')
    inner, other = tail.conv('second', 16, 16, 'z'), tail.conv('a', 8, 16, 'e')
    below = tail.conv(tail.op('Concat', [other, inner], 'below', axis=2), 16, 8, 'b')
    return tail.finish(tail.op('Concat', [whole, below], 'y', axis=2))


def _half_twice() -> onnx.ModelProto:
    """A half that is concatenated twice."""
    tail = _Tail()
    tail.op('Split', [tail.conv('a', 8, 32, 'x')], 'first', 'second', axis=1)
    inner = tail.conv('second', 16, 16, 'z')
    joined = tail.op('Concat', ['first', 'second', 'first', inner], 'joined', axis=1)
    return tail.finish(tail.conv(joined, 64, 8, 'y'))


def _of_constant() -> onnx.ModelProto:
    """A convolution reads what the file holds."""
    tail = _Tail()
    place = tail.conv(tail.noise(1, 4, 32, 48), 4, 8, 'p')
    return tail.finish(tail.conv(tail.op('Add', ['a', place], 'sum'), 8, 8, 'y'))


def _of_made_constant() -> onnx.ModelProto:
    """A convolution reads what is made of constants alone; a sum does, too."""
    tail = _Tail()
    place = tail.conv(tail.op('Identity', [tail.noise(1, 8, 32, 48)], 'made'), 8, 8, 'p')
    both = tail.op('Add', [tail.op('Add', ['a', place], 'sum'), 'made'], 'both')
    return tail.finish(tail.conv(both, 8, 8, 'y'))


def _taken_names() -> onnx.ModelProto:
    """Names that the pairs would have are those of other things."""
    tail = _Tail()
    scale = tail.noise(1, 8, 1, 1, name='a_scale')
    scaled = tail.op('Mul', ['a', scale], 'y_w_quantized')
    return tail.finish(tail.conv(tail.op('Add', [scaled, 'a'], 'a_dequantized'), 8, 8, 'y'))


def _inactive() -> onnx.ModelProto:
    tail = _Tail(None)
    return tail.finish(tail.conv('a', 8, 8, 'y'))


def _only_sigmoid() -> onnx.ModelProto:
    tail = _Tail('Sigmoid')
    return tail.finish(tail.conv('a', 8, 8, 'y'))


def _run(model: onnx.ModelProto) -> np.ndarray:
    image = np.random.default_rng(0).random((1, 3, 64, 96), np.float32)
    options = onnxruntime.SessionOptions()
    # Releases of JetPack's age fuse what they then cannot load.
    options.add_session_config_entry('session.disable_quant_qdq', '1')
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=['CPUExecutionProvider'])
    return session.run(None, {'images': image})[0]


@pytest.mark.parametrize('build', [_beside, _half_twice])
def test_what_only_looks_like_a_block_computes_the_same(build):
    model = build()
    onnx_file.name_nodes(model)
    found, expected = _run(int8_layout.rewrite(model)), _run(model)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize('build, convolutions', [
    (_beside, 7), (_half_twice, 4), (_of_constant, 2), (_of_made_constant, 2), (_taken_names, 2),
    (_inactive, 1), (_only_sigmoid, 1)])
def test_any_graph_is_quantized_by_the_command(build, convolutions, tmp_path, capsys):
    source, target = tmp_path / 'm.onnx', tmp_path / 'q.onnx'
    onnx.save(build(), str(source))
    assert main(['model', 'quantize', str(source), str(target), '--images', '2',
                 '--method', 'minmax', '--no-cache']) == 0
    assert f'{convolutions} convolutions in INT8' in capsys.readouterr().out
    quantized, expected = onnx_file.load(target), _run(onnx_file.load(source))
    quantization.check_qdq(quantized)
    scores = np.s_[:, 4:]
    change = np.abs(_run(quantized) - expected)[scores].max()
    assert 0 < change < 0.1 * max(1, np.abs(expected[scores]).max())
