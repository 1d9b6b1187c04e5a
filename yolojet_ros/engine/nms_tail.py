"""
Let a network end in NMS: TensorRT's plugin or its own layer behind the raw YOLOv8 head.

Both end in one output [batch, N, 6] of x1, y1, x2, y2, score, class with score -1 in unused
rows, so the same runtime decodes them.
"""

from __future__ import annotations

from typing import List, Sequence

import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.filters import MAX_BOXES
from yolojet_ros.engine.plan import Options

OUTPUT = 'detections'
_PLUGIN = 'EfficientNMS_TRT'


def append(trt, network, options: Options) -> List[np.ndarray]:
    """
    Replace the raw output of `network` by detections.

    :returns: constants that must live until the network is built.
    :raises UserError: if this TensorRT has no such NMS, or the model ends in NMS already.
    """
    raw = network.get_output(0)
    batch, rows, anchors = tuple(raw.shape)
    if rows > anchors or rows <= 4:
        raise UserError(
            f'--nms {options.nms} needs the raw head [batch, 4 + classes, anchors]; this model '
            f'gives {[batch, rows, anchors]}')
    network.unmark_output(raw)
    layer = network.add_shuffle(raw)
    layer.first_transpose = (0, 2, 1)
    graph = _Graph(trt, network)
    tail = _plugin_tail if options.nms == 'plugin' else _layer_tail
    output = tail(graph, layer.get_output(0), (batch, anchors, rows - 4), options)
    output.name = OUTPUT
    network.mark_output(output)
    return graph.constants


class _Graph:
    """The few operations that the tails are written in."""

    def __init__(self, trt, network) -> None:
        self.trt = trt
        self.network = network
        self.constants: List[np.ndarray] = []

    def constant(self, values: np.ndarray):
        # TensorRT refers to the array, it does not copy it.
        self.constants.append(values)
        return self.network.add_constant(values.shape, values).get_output(0)

    def slice(self, tensor, start, shape):
        return self.network.add_slice(tensor, start, shape, (1,) * len(shape)).get_output(0)

    def reshape(self, tensor, shape):
        layer = self.network.add_shuffle(tensor)
        layer.reshape_dims = shape
        return layer.get_output(0)

    def combine(self, operation: str, a, b):
        return self.network.add_elementwise(
            a, b, getattr(self.trt.ElementWiseOperation, operation)).get_output(0)

    def concatenate(self, tensors, axis: int):
        layer = self.network.add_concatenation(tensors)
        layer.axis = axis
        return layer.get_output(0)

    def as_float(self, tensor):
        if hasattr(self.network, 'add_cast'):
            return self.network.add_cast(tensor, self.trt.DataType.FLOAT).get_output(0)
        layer = self.network.add_identity(tensor)
        layer.set_output_type(0, self.trt.DataType.FLOAT)
        return layer.get_output(0)

    def join(self, count, boxes, scores, labels, batch: int):
        """Return [batch, N, 6] of the parts, with score -1 from row `count` on."""
        position = self.constant(np.arange(MAX_BOXES, dtype=np.int32)[None])
        used = self.combine('LESS', position, count)
        unused_score = self.constant(np.full((1, MAX_BOXES), -1, np.float32))
        scores = self.network.add_select(used, scores, unused_score).get_output(0)
        columns = [boxes] + [self.reshape(part, (batch, MAX_BOXES, 1))
                             for part in (scores, self.as_float(labels))]
        return self.concatenate(columns, 2)


def _plugin_tail(graph: _Graph, table, shape: Sequence[int], options: Options):
    """EfficientNMS_TRT, in TensorRT's plugin library from 8.0 on."""
    trt = graph.trt
    batch, anchors, classes = shape
    registry = trt.get_plugin_registry()
    find = registry.get_creator if hasattr(registry, 'get_creator') \
        else registry.get_plugin_creator
    creator = find(_PLUGIN, '1', '')
    if creator is None:
        raise UserError(
            f'TensorRT {trt.__version__} has no plugin {_PLUGIN} (is libnvinfer_plugin '
            'installed?); use --nms layer')
    values = {
        'score_threshold': np.array([options.nms_score], np.float32),
        'iou_threshold': np.array([options.nms_iou], np.float32),
        'max_output_boxes': np.array([MAX_BOXES], np.int32),
        'background_class': np.array([-1], np.int32),
        'score_activation': np.array([0], np.int32),
        'box_coding': np.array([1], np.int32)}  # centre and size
    kinds = {np.dtype(np.float32): trt.PluginFieldType.FLOAT32,
             np.dtype(np.int32): trt.PluginFieldType.INT32}
    graph.constants += values.values()
    plugin = creator.create_plugin('nms', trt.PluginFieldCollection([
        trt.PluginField(name, value, kinds[value.dtype]) for name, value in values.items()]))
    boxes = graph.slice(table, (0, 0, 0), (batch, anchors, 4))
    scores = graph.slice(table, (0, 0, 4), (batch, anchors, classes))
    layer = graph.network.add_plugin_v2([boxes, scores], plugin)
    count, boxes, scores, labels = (layer.get_output(index) for index in range(4))
    return graph.join(count, boxes, scores, labels, batch)


def _layer_tail(graph: _Graph, table, shape: Sequence[int], options: Options):
    """INMSLayer, from TensorRT 8.5 on; its selection is gathered into rows of fixed number."""
    trt, network = graph.trt, graph.network
    batch, anchors, classes = shape
    if not hasattr(network, 'add_nms'):
        raise UserError(
            f'TensorRT {trt.__version__} has no NMS layer (it came with 8.5); use --nms plugin')
    if batch != 1:
        raise UserError(f'--nms layer needs batch 1, not {batch}; use --nms plugin')
    boxes = graph.slice(table, (0, 0, 0), (1, anchors, 4))
    scores = graph.slice(table, (0, 0, 4), (1, anchors, classes))
    nms = network.add_nms(boxes, scores, graph.constant(np.array(MAX_BOXES, np.int32)))
    nms.bounding_box_format = trt.BoundingBoxFormat.CENTER_SIZES
    nms.set_input(3, graph.constant(np.array(options.nms_iou, np.float32)))
    nms.set_input(4, graph.constant(np.array(options.nms_score, np.float32)))
    count = graph.reshape(nms.get_output(1), (1, 1))
    # Rows of (image, class, anchor): as many as were found, filled up to a fixed number.
    layer = network.add_slice(nms.get_output(0), (0, 0), (MAX_BOXES, 3), (1, 1))
    # SliceMode was renamed SampleMode when resampling layers came to share it.
    layer.mode = (trt.SampleMode if hasattr(trt, 'SampleMode') else trt.SliceMode).FILL
    found = layer.get_output(0)
    labels, anchor = (
        graph.reshape(graph.slice(found, (0, column), (MAX_BOXES, 1)), (MAX_BOXES,))
        for column in (1, 2))
    picked = network.add_gather(graph.reshape(boxes, (anchors, 4)), anchor, 0).get_output(0)
    center = graph.slice(picked, (0, 0), (MAX_BOXES, 2))
    half = graph.combine('PROD', graph.slice(picked, (0, 2), (MAX_BOXES, 2)),
                         graph.constant(np.full((1, 1), 0.5, np.float32)))
    corners = graph.concatenate(
        [graph.combine('SUB', center, half), graph.combine('SUM', center, half)], 1)
    row = graph.combine('PROD', anchor, graph.constant(np.array([classes], np.int32)))
    score = network.add_gather(graph.reshape(scores, (anchors * classes,)),
                               graph.combine('SUM', labels, row), 0).get_output(0)
    return graph.join(
        count, graph.reshape(corners, (1, MAX_BOXES, 4)), graph.reshape(score, (1, MAX_BOXES)),
        graph.reshape(labels, (1, MAX_BOXES)), 1)
