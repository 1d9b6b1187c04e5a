"""Tiny ONNX models for tests: the head's output is chosen, the rest is real."""

from __future__ import annotations

import numpy as np
import pytest

from yolojet_ros.core.head import anchor_count

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
from onnx import helper, numpy_helper, TensorProto  # noqa: E402

NAMES = ('crate', 'barrel', 'cone')


def raw_output(boxes, scores, size, classes=len(NAMES), extra=()):
    """Return a raw head output float32[1, 4 + nc + e, A] with chosen rows, the others 0.

    :param boxes: [n, 4], cx, cy, w, h in network pixels
    :param scores: [n, nc]
    :param extra: [n, e], what the task adds: coefficients, keypoints or angle
    """
    extra = np.asarray(extra, np.float32).reshape(len(boxes), -1) if len(boxes) else np.zeros((0, 0))
    output = np.zeros((1, 4 + classes + extra.shape[1], anchor_count(size)), np.float32)
    if len(boxes):
        output[0, :4, :len(boxes)] = np.asarray(boxes, np.float32).T
        output[0, 4:4 + classes, :len(boxes)] = np.asarray(scores, np.float32).T
        output[0, 4 + classes:, :len(boxes)] = extra.T
    return output


def write_task_model(path, task, boxes, scores, extra, size=(320, 192)):
    """
    Write a model of a task with constant answers; for other arguments see `raw_output`.

    The prototypes of a segment model are 1 everywhere, and 1 on the left half of the input and
    -1 on its right half. A pose model has as many keypoints as `extra` has columns for, 3 each.
    """
    output = raw_output(boxes, scores, size, extra=extra)
    metadata, more = {'task': task}, []
    if task == 'segment':
        prototypes = np.ones((1, 2, size[1] // 4, size[0] // 4), np.float32)
        prototypes[0, 1, :, size[0] // 8:] = -1
        more = [prototypes]
    if task == 'pose':
        metadata['kpt_shape'] = str([len(extra[0]) // 3, 3])
    return write_model(path, output, size, metadata=metadata, more=more)


def write_model(
        path, output, size=(320, 192), names=NAMES, metadata=None, batch=1, fragile=False,
        poisoned=False, dynamic=False, declared=None, more=(), slow=0, endless=False,
        slow_on_white=0, hanging=False):
    """
    Write an ONNX file that always answers `output`, whatever it sees.

    :param poisoned: answer NaN to an image with white pixels
    :param dynamic: leave height and width of the input open
    :param declared: shape of the output that the file declares; None for the true one
    :param more: further outputs
    :param fragile: let the network fail while it runs on an image with white pixels
    :param endless: never answer
    :param slow_on_white: as `slow`, for an image with white pixels only
    :param hanging: never answer to an image with white pixels
    :param slow: products of two 1024x1024 matrices to compute on the way, 10 ms or more each
    """
    zero = numpy_helper.from_array(np.zeros((), np.float32), 'zero')
    constant = numpy_helper.from_array(output.astype(np.float32), 'answer')
    nodes = [
        helper.make_node('ReduceMax', ['images'], ['brightest'], keepdims=0),
        helper.make_node('Mul', ['brightest', 'zero'], ['nothing']),
        helper.make_node('Add', ['answer', 'nothing'], ['output0']),
    ]
    if fragile:  # white looks up an entry that a table of one does not have
        nodes[1:2] = [
            helper.make_node('Cast', ['brightest'], ['index'], to=TensorProto.INT64),
            helper.make_node('Unsqueeze', ['zero', 'first'], ['table']),
            helper.make_node('Gather', ['table', 'index'], ['nothing']),
        ]
    if poisoned:
        nodes[1:2] = [
            helper.make_node('Floor', ['brightest'], ['white']),
            helper.make_node('Sub', ['white', 'one'], ['other']),
            helper.make_node('Div', ['zero', 'other'], ['nothing']),
        ]
    if endless or hanging:
        nodes[1:2] = [
            helper.make_node('Floor', ['brightest'], ['white']),
            helper.make_node('Cast', ['white'], ['is_white'], to=TensorProto.BOOL),
            helper.make_node('Mul', ['brightest', 'zero'], ['begin']),
            helper.make_node('Loop', ['', 'is_white' if hanging else 'yes', 'begin'], ['nothing'],
                             body=_same_for_ever())]
    outputs = [('output0', declared or output.shape)]
    one, first = np.ones((), np.float32), np.zeros(1, np.int64)
    constants = [zero, constant, numpy_helper.from_array(one, 'one'),
                 numpy_helper.from_array(first, 'first'),
                 numpy_helper.from_array(np.array(True), 'yes')]
    if slow:
        ones = np.ones((1024, 1024), np.float32) / 1024
        constants.append(numpy_helper.from_array(ones, 'product0'))
        chain = [helper.make_node('Add', ['product0', 'brightest'], ['product1'])]
        chain += [helper.make_node('MatMul', [f'product{i}', 'product0'], [f'product{i + 1}'])
                  for i in range(1, slow + 1)]
        chain += [helper.make_node('ReduceMax', [f'product{slow + 1}'], ['largest'], keepdims=0),
                  helper.make_node('Mul', ['largest', 'zero'], ['nothing'])]
        nodes[1:2] = chain
    if slow_on_white:
        constants += [
            numpy_helper.from_array(np.ones((1024, 1024), np.float32) / 1024, 'product'),
            numpy_helper.from_array(np.array(slow_on_white, np.int64), 'times')]
        nodes[1:2] = [
            helper.make_node('Floor', ['brightest'], ['white']),
            helper.make_node('Cast', ['white'], ['once'], to=TensorProto.INT64),
            helper.make_node('Mul', ['once', 'times'], ['turns']),
            helper.make_node('Mul', ['brightest', 'zero'], ['begin']),
            helper.make_node('Loop', ['turns', 'yes', 'begin'], ['nothing'], body=_products())]
    for index, extra in enumerate(more, 1):
        constants.append(numpy_helper.from_array(extra.astype(np.float32), f'answer{index}'))
        nodes.append(helper.make_node('Add', [f'answer{index}', 'nothing'], [f'output{index}']))
        outputs.append((f'output{index}', extra.shape))
    sides = ['height', 'width'] if dynamic else [size[1], size[0]]
    graph = helper.make_graph(
        nodes, 'constant',
        [helper.make_tensor_value_info('images', TensorProto.FLOAT, [batch, 3, *sides])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
         for name, shape in outputs], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8)
    keys = {'names': str(dict(enumerate(names))), 'stride': '32', 'task': 'detect',
            'imgsz': str([size[1], size[0]])}
    keys.update(metadata or {})
    helper.set_model_props(model, {key: text for key, text in keys.items() if text is not None})
    onnx.save(model, str(path))
    return path


def _products():
    """Return the body of a loop of products, which keeps a number."""
    def info(name, kind):
        return helper.make_tensor_value_info(name, kind, [])

    return helper.make_graph(
        [helper.make_node('And', ['go_on', 'go_on'], ['again']),
         helper.make_node('Add', ['product', 'before'], ['factor']),
         helper.make_node('MatMul', ['factor', 'product'], ['result']),
         helper.make_node('ReduceMax', ['result'], ['most'], keepdims=0),
         helper.make_node('Mul', ['most', 'zero'], ['after'])], 'body',
        [info('turn', TensorProto.INT64), info('go_on', TensorProto.BOOL),
         info('before', TensorProto.FLOAT)],
        [info('again', TensorProto.BOOL), info('after', TensorProto.FLOAT)])


def _same_for_ever():
    """Return the body of a loop that goes on as long as its condition, and keeps a number."""
    def info(name, kind):
        return helper.make_tensor_value_info(name, kind, [])

    return helper.make_graph(
        [helper.make_node('And', ['go_on', 'go_on'], ['again']),
         helper.make_node('Add', ['before', 'zero'], ['after'])], 'body',
        [info('turn', TensorProto.INT64), info('go_on', TensorProto.BOOL),
         info('before', TensorProto.FLOAT)],
        [info('again', TensorProto.BOOL), info('after', TensorProto.FLOAT)])
