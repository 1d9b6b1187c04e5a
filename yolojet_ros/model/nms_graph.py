"""Append non-maximum suppression to the graph of a raw YOLOv8 head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Sequence, TYPE_CHECKING

import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.model import onnx_file

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class NmsSettings:
    """
    How the graph ends.

    kind: 'layer' is the standard NonMaxSuppression (ONNX Runtime, TensorRT 8.5 and later);
        'plugin' is EfficientNMS_TRT (TensorRT only, 8.0 and later)
    score: 0..1, candidates below it are dropped
    iou: 0..1, a box that overlaps a better one of its class more than this is dropped
    boxes: rows of the output; unused ones are all zero
    """

    kind: str = 'layer'
    score: float = 0.25
    iou: float = 0.7
    boxes: int = 300

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ('score', 'iou'):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f'--{name} is {getattr(self, name)}; it must be in 0..1')


def append_nms(model: onnx.ModelProto, settings: NmsSettings) -> None:
    """
    End `model` in NMS: output [1, boxes, 6] of x1, y1, x2, y2, score, class, best first.

    Both kinds give the same layout, in network pixels. An anchor point counts with its
    best class only, as in the package's own decoding.

    :raises UserError: if the head is not raw, or the batch is not 1.
    """
    from onnx import helper, TensorProto

    (raw, *_), card = onnx_file.read_head(model, 'the model')
    if card.head.head.key != 'yolov8' or card.task != 'detect' or card.batch != 1:
        raise UserError(
            f'NMS needs a raw head of batch 1 (YOLOv8, detect); this one is '
            f'{card.head.head.title} ({card.task}) of batch {card.batch or "dynamic"}')
    if settings.kind not in ('layer', 'plugin'):
        raise UserError(f'no NMS of kind {settings.kind!r}; choose layer or plugin')
    graph = _Builder(model)
    output = 'detections'
    boxes = graph.corner_boxes(raw)
    if settings.kind == 'plugin':
        # TensorRT looks plugins up by name alone; a domain tells other readers to let it be.
        model.opset_import.append(helper.make_opsetid('TRT', 1))
        graph.plugin(raw, boxes, output, settings)
    else:
        graph.layer(raw, boxes, output, settings)
    del model.graph.output[:]
    model.graph.output.append(
        helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, settings.boxes, 6]))
    onnx_file.set_metadata(model, {
        'nms': f'{settings.kind}, score {settings.score:g}, iou {settings.iou:g}'})


class _Builder:
    """Adds nodes and constants under names of their own."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._opset = onnx_file.opset(model)
        self._count = 0

    def constant(self, values: Sequence, dtype: type = np.int64) -> str:
        from onnx import numpy_helper

        self._count += 1
        name = f'nms_constant_{self._count}'
        self._graph.initializer.append(
            numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def node(self, kind: str, inputs: List[str], output: str = '', **attributes) -> str:
        return self.nodes(kind, inputs, [output or ''], **attributes)[0]

    def nodes(self, kind: str, inputs: List[str], outputs: List[str], **attributes) -> List[str]:
        from onnx import helper

        self._count += 1
        outputs = [name or f'nms_{kind}_{self._count}_{i}' for i, name in enumerate(outputs)]
        self._graph.node.append(helper.make_node(
            kind, inputs, outputs, name=f'nms_{kind}_{self._count}', **attributes))
        return outputs

    def slice(self, tensor: str, start: int, end: int, axis: int) -> str:
        return self.node('Slice', [tensor, *(
            self.constant([v]) for v in (start, end, axis))])

    def corner_boxes(self, raw: str) -> str:
        """Turn rows cx, cy, w, h of [1, 4 + nc, A] into xyxy [1, A, 4]."""
        center = self.slice(raw, 0, 2, 1)
        half = self.node('Mul', [self.slice(raw, 2, 4, 1), self.constant([0.5], np.float32)])
        corners = self.node('Concat', [
            self.node('Sub', [center, half]), self.node('Add', [center, half])], axis=1)
        return self.node('Transpose', [corners], perm=[0, 2, 1])

    def best_class_only(self, raw: str) -> str:
        """Zero all scores of an anchor point but its best: [1, nc, A]."""
        scores = self.slice(raw, 4, 2 ** 31 - 1, 1)
        if self._opset < 18:
            best = self.node('ReduceMax', [scores], axes=[1], keepdims=1)
        else:
            best = self.node('ReduceMax', [scores, self.constant([1])], keepdims=1)
        is_best = self.node('Not', [self.node('Less', [scores, best])])
        return self.node('Mul', [scores, self.node('Cast', [is_best], to=1)])

    def layer(self, raw: str, boxes: str, output: str, settings: NmsSettings) -> None:
        scores = self.best_class_only(raw)
        chosen = self.node('NonMaxSuppression', [
            boxes, scores, self.constant([settings.boxes]),
            self.constant([settings.iou], np.float32),
            self.constant([settings.score], np.float32)])
        category, anchor = self.slice(chosen, 1, 2, 1), self.slice(chosen, 2, 3, 1)
        flat_boxes = self.node('Squeeze', [boxes, self.constant([0])])
        flat_scores = self.node('Squeeze', [scores, self.constant([0])])
        rows = self.node('Concat', [
            self.node('GatherND', [flat_boxes, anchor]),
            self.node('Unsqueeze', [
                self.node('GatherND', [
                    flat_scores, self.node('Concat', [category, anchor], axis=1)]),
                self.constant([1])]),
            self.node('Cast', [category], to=1)], axis=1)
        # Zero rows behind make the number of rows fixed and enough for TopK.
        padded = self.node('Concat', [
            rows, self.constant(np.zeros((settings.boxes, 6)), np.float32)], axis=0)
        order = self.node('Squeeze', [self.slice(padded, 4, 5, 1), self.constant([1])])
        _, best = self.nodes('TopK', [order, self.constant([settings.boxes])], ['', ''], axis=0)
        self.node('Unsqueeze', [self.node('Gather', [padded, best], axis=0),
                                self.constant([0])], output)

    def plugin(self, raw: str, boxes: str, output: str, settings: NmsSettings) -> None:
        scores = self.node('Transpose', [self.best_class_only(raw)], perm=[0, 2, 1])
        _, found, best, category = self.nodes(
            'EfficientNMS_TRT', [boxes, scores], ['', '', '', ''], domain='TRT',
            plugin_version='1',
            score_threshold=settings.score, iou_threshold=settings.iou,
            max_output_boxes=settings.boxes, background_class=-1, score_activation=0,
            class_agnostic=0, box_coding=0)
        last = self.constant([2])
        self.node('Concat', [
            found, self.node('Unsqueeze', [best, last]),
            self.node('Unsqueeze', [self.node('Cast', [category], to=1), last])],
            output, axis=2)
