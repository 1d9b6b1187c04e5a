"""A tiny YOLOv8-like ONNX model whose scores depend on the image, in every precision."""

import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto
from yolojet_ros.core.head import anchor_count
from yolojet_ros.model import fp16, onnx_file, quantization

NAMES = ('crate', 'barrel', 'cone')
SIZE = (96, 64)


def build(batch=1):
    """Return the FP32 model: a convolution with SiLU whose mean moves the scores."""
    rng = np.random.default_rng(3)
    anchors = anchor_count(SIZE)
    answer = np.zeros((1, 4 + len(NAMES), anchors), np.float32)
    answer[0, 0], answer[0, 1] = rng.uniform(0, SIZE[0], anchors), rng.uniform(0, SIZE[1], anchors)
    answer[0, 2:4] = rng.uniform(6, 30, (2, anchors))
    answer[0, 4:] = rng.uniform(0, 0.8, (len(NAMES), anchors)) ** 3
    move = np.zeros_like(answer)
    move[0, 4:] = rng.uniform(0, 0.5, (len(NAMES), anchors))
    constants = {'weight': rng.normal(0, 0.5, (8, 3, 3, 3)).astype(np.float32),
                 'bias': np.zeros(8, np.float32), 'answer': answer, 'move': move}
    nodes = [
        helper.make_node('Conv', ['images', 'weight', 'bias'], ['c'], 'conv', strides=[2, 2],
                         pads=[1, 1, 1, 1]),
        helper.make_node('Sigmoid', ['c'], ['s'], 'sigmoid'),
        helper.make_node('Mul', ['c', 's'], ['a'], 'silu'),
        helper.make_node('GlobalAveragePool', ['a'], ['g'], 'pool'),
        helper.make_node('ReduceMean', ['g'], ['m'], 'mean', axes=[1, 2, 3], keepdims=1),
        helper.make_node('Squeeze', ['m', 'axis'], ['q'], 'squeeze'),
        helper.make_node('Mul', ['move', 'q'], ['shift'], 'scale'),
        helper.make_node('Add', ['answer', 'shift'], ['output0'], 'add')]
    shape = [batch, 3, SIZE[1], SIZE[0]]
    graph = helper.make_graph(
        nodes, 'tiny', [helper.make_tensor_value_info('images', TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info('output0', TensorProto.FLOAT,
                                       [batch, 4 + len(NAMES), anchors])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()]
        + [numpy_helper.from_array(np.array([3], np.int64), 'axis')])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8)
    onnx_file.set_metadata(model, onnx_file.card_metadata(NAMES, SIZE))
    return model


def write(folder, kind='float', batch=1):
    """Write the model as 'float', 'qdq', 'half' or 'qdq_half'; return its path as text."""
    model = build(batch)
    if kind.startswith('qdq'):
        model = quantization.quantize(model, {'images': 1.0}, 'test')
    if kind.endswith('half'):
        model = fp16.to_fp16(model, 'tiny')
    path = folder / f'{kind}.onnx'
    onnx.save(model, str(path))
    return str(path)
