"""
Explicit INT8: insert Q/DQ pairs in the one form that TensorRT 8 to 11 all accept.

Symmetric, per tensor for activations and per output channel for weights. A pair stands behind
whatever computes values that a convolution reads, where TensorRT fuses it, and again in front of
the convolution, with one scale for all that is split, concatenated, resized or pooled in between:
so that runs in INT8, too, and nothing is quantized on its own (scale_groups). Before, int8_layout
rewrites what would be copied. The summands of a residual have pairs as well, each its own scale.
Weights stay float and get a pair of their own, because TensorRT 8 rejects integer initializers.
"""

from __future__ import annotations

from contextlib import contextmanager
import logging
from pathlib import Path
import tempfile
from typing import (
    Collection, Dict, Iterator, List, Mapping, Optional, Sequence, TYPE_CHECKING)

import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import atomic_path
from yolojet_ros.model import int8_layout, onnx_file, onnx_graph
from yolojet_ros.model.convolution_graph import rename_input
from yolojet_ros.model.scale_groups import ScaleGroups

if TYPE_CHECKING:
    import onnx

_LIMIT = 127.0


def prepare(model: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """
    Return a loaded FP32 model in the form that is quantized, which computes the same.

    :param source: its name, for messages.
    :raises UserError: if it is quantized or typed in half precision already.
    """
    onnx_file.name_nodes(model)
    check_source(model, source)
    return int8_layout.rewrite(model)


def quantizable(model: onnx.ModelProto, keep_float: Collection[str] = ()) -> List:
    """
    Return the Conv nodes to quantize: all with an activation behind, but `keep_float`.

    What reads constants, or stands behind the last trained layers, has no range to measure.

    What prepare() computes again stays in float with the convolution that it is part of.

    :raises UserError: if a name in `keep_float` is no convolution, or none is left.
    """
    convolutions = [node for node in model.graph.node if node.op_type == 'Conv']
    unknown = sorted(set(keep_float) - {node.name for node in convolutions})
    if unknown:
        raise UserError(f'the model has no convolution named "{unknown[0]}" to keep in float')
    again = {name + int8_layout.AGAIN for name in keep_float}
    skipped = {*onnx_file.bare_convolutions(model), *keep_float, *again}
    constants = onnx_file.initializers(model)
    groups = ScaleGroups(model)
    found = [node for node in convolutions if node.name not in skipped
             and node.input[1] in constants and groups.computed(node.input[:1])]
    if not found:
        raise UserError('the model has no convolution that can be quantized')
    return found


def calibrated(model: onnx.ModelProto, nodes: Sequence) -> List[str]:
    """Name the activations whose range has to be known to quantize `nodes`."""
    groups = ScaleGroups(model)
    return groups.computed(_read(groups, nodes))


def _read(groups: ScaleGroups, nodes: Sequence) -> List[str]:
    """Name what `nodes` read, and the summands of the residuals among it."""
    tensors = [node.input[0] for node in nodes]
    return tensors + [name for add in groups.residuals_in(tensors) for name in add.input]


def check_source(model: onnx.ModelProto, source: str) -> None:
    """Refuse models that are quantized or typed in half precision already."""
    kinds = {node.op_type for node in model.graph.node}
    if kinds & {'QuantizeLinear', 'DequantizeLinear', 'ConvInteger', 'QLinearConv'}:
        raise UserError(f'{source} is quantized already; give the FP32 model')
    if onnx_file.fixed_card(model, source).half or any(
            t.data_type == 10 for t in model.graph.initializer):
        raise UserError(f'{source} is an FP16 model; quantization starts from the FP32 model')
    if onnx_file.opset(model) < 13:
        raise UserError(
            f'{source} has opset {onnx_file.opset(model)}; INT8 per channel needs 13 or '
            'later, so export it again')


def insert_qdq(
    model: onnx.ModelProto, nodes: Sequence, thresholds: Mapping[str, float],
) -> onnx.ModelProto:
    """
    Return a copy of `model` with Q/DQ pairs before `nodes`, and behind what computes their inputs.

    :param nodes: Conv nodes of `model` with constant weights.
    :param thresholds: of each of calibrated(model, nodes), the magnitude that becomes 127.
    """
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = onnx_file.initializers(result)
    groups = ScaleGroups(result)
    chosen = {node.name for node in nodes}
    convolutions = [node for node in graph.node if node.op_type == 'Conv']
    quantized = [node for node in convolutions if node.name in chosen]
    summed = groups.residuals_in([node.input[0] for node in quantized])
    computed = groups.computed(_read(groups, quantized))
    shared = groups.thresholds({name: thresholds[name] for name in computed})
    writer = _PairWriter(graph)

    def read_pair(node, index: int) -> None:
        name = node.input[index]
        scale = np.float32(shared[groups.root(name)] / _LIMIT)
        node.input[index] = writer.pair(name, scale)

    kept = {id(node) for node in convolutions} - {id(node) for node in quantized}
    behind = set(computed)
    for node in list(graph.node):
        if id(node) in kept:
            continue  # what stays in float reads what was computed in float
        for index, name in enumerate(node.input):
            if name in behind:
                read_pair(node, index)
    done = set(writer.pairs.values())
    for node, indices in [(n, (0,)) for n in quantized] + [(n, (0, 1)) for n in summed]:
        for index in indices:
            if node.input[index] not in done:
                read_pair(node, index)
    for node in quantized:
        values = onnx.numpy_helper.to_array(constants[node.input[1]])
        peaks = np.abs(values).reshape(len(values), -1).max(1)
        # A channel of zeros would have scale 0; any positive scale keeps it zero.
        scales = (np.where(peaks > 0, peaks, 1.0) / _LIMIT).astype(np.float32)
        node.input[1] = writer.pair(node.input[1], scales)
    _sort(graph, writer.nodes)
    return result


def take_int8(model: onnx.ModelProto) -> Optional[float]:
    """
    Let a Q/DQ model take the image quantized already, in place.

    :return: the value of one step of the image; None where the model stays as it is, because
        its image is not quantized first.
    """
    from onnx import numpy_helper, TensorProto

    graph, constants = model.graph, onnx_file.initializers(model)
    image = graph.input[0]
    readers = [node for node in graph.node if image.name in onnx_graph.reads(node)]
    if len(readers) != 1 or readers[0].op_type != 'QuantizeLinear' or len(readers[0].input) != 3:
        return None
    scale, zero = (constants.get(name) for name in readers[0].input[1:])
    if scale is None or zero is None or zero.data_type != TensorProto.INT8 \
            or scale.data_type != TensorProto.FLOAT or scale.dims \
            or numpy_helper.to_array(zero).any():
        return None
    (quantized,) = readers[0].output
    graph.node.remove(readers[0])
    for node in graph.node:
        rename_input(node, quantized, image.name)
    image.type.tensor_type.elem_type = TensorProto.INT8
    del graph.value_info[:]
    return float(numpy_helper.to_array(scale))


class _PairWriter:
    """Makes one Q/DQ pair for each tensor, however many nodes read it."""

    def __init__(self, graph) -> None:
        self._graph = graph
        self._taken = onnx_graph.names(graph)
        self.pairs: Dict[str, str] = {}
        self.nodes: List = []

    def pair(self, tensor: str, scale: np.ndarray) -> str:
        """Return the name of the dequantized tensor."""
        from onnx import helper, numpy_helper

        if tensor in self.pairs:
            return self.pairs[tensor]
        per_channel = {'axis': 0} if scale.ndim else {}
        names = [onnx_graph.free_name(f'{tensor}_{suffix}', self._taken) for suffix in (
            'scale', 'zero_point', 'quantized', 'dequantized')]
        self._graph.initializer.extend((
            numpy_helper.from_array(np.asarray(scale, np.float32), names[0]),
            numpy_helper.from_array(np.zeros(scale.shape, np.int8), names[1])))
        self.nodes.append(helper.make_node(
            'QuantizeLinear', [tensor, *names[:2]], [names[2]], name=names[2], **per_channel))
        self.nodes.append(helper.make_node(
            'DequantizeLinear', [names[2], *names[:2]], [names[3]], name=names[3],
            **per_channel))
        self.pairs[tensor] = names[3]
        return names[3]


def _sort(graph, added: Sequence) -> None:
    """Put each added node right before the first node that reads it."""
    by_output = {node.output[0]: node for node in added}
    placed, order = set(), []

    def place(name: str) -> None:
        node = by_output.get(name)
        if node is not None and name not in placed:
            place(node.input[0])
            placed.add(name)
            order.append(node)

    for node in list(graph.node):
        for name in node.input:
            place(name)
        order.append(node)
    del graph.node[:]
    graph.node.extend(order)


def check_qdq(model: onnx.ModelProto) -> None:
    """
    Check that every Q and DQ is of the form that TensorRT accepts.

    :raises UserError: naming the first node that is not.
    """
    from onnx import numpy_helper, TensorProto

    constants = onnx_file.initializers(model)
    producers = {name: node for node in model.graph.node for name in node.output}
    pairs = [n for n in model.graph.node if n.op_type in ('QuantizeLinear', 'DequantizeLinear')]
    if not pairs:
        raise UserError('the model has no Q/DQ pair: nothing in it is quantized')
    typed = onnx_file.opset(model) >= 19
    scale_types = (TensorProto.FLOAT, TensorProto.FLOAT16) if typed else (TensorProto.FLOAT,)
    for node in pairs:
        problem = ''
        scale = constants.get(node.input[1]) if len(node.input) == 3 else None
        zero = constants.get(node.input[2]) if len(node.input) == 3 else None
        if scale is None or zero is None:
            problem = 'has no constant scale and zero point'
        elif scale.data_type not in scale_types or not (numpy_helper.to_array(scale) > 0).all():
            problem = 'has a scale that is not positive FP32'
        elif zero.data_type != TensorProto.INT8 or numpy_helper.to_array(zero).any():
            problem = 'has a zero point that is not INT8 zero'
        elif node.op_type == 'DequantizeLinear' and (
                getattr(producers.get(node.input[0]), 'op_type', '') != 'QuantizeLinear'):
            problem = 'does not follow a QuantizeLinear (an integer constant?)'
        if problem:
            raise UserError(
                f'node "{node.name}" {problem}; TensorRT would reject the model, so nothing '
                'was written')


def quantize(
    model: onnx.ModelProto, thresholds: Mapping[str, float], method: str,
    keep_float: Collection[str] = (),
) -> onnx.ModelProto:
    """
    Return the explicit INT8 form of an FP32 model.

    :param model: as prepare() returns it.
    :param thresholds: as calibration.calibrate() returns them for calibrated().
    :param method: how they were found, for the metadata.
    :param keep_float: names of further convolutions to leave in float.
    """
    result = insert_qdq(model, quantizable(model, keep_float), thresholds)
    check_qdq(result)
    onnx_file.set_metadata(result, {'quantization': f'INT8 Q/DQ, {method}'})
    return result


def quantize_dynamic(source: Path, output: Path) -> None:
    """
    Write a model whose weights are INT8 and whose activations are scaled at run time.

    For ONNX Runtime on a CPU only: TensorRT rejects it, because it has no operators whose
    scales are computed while it runs (DynamicQuantizeLinear, ConvInteger).
    """
    from onnxruntime.quantization import quantize_dynamic as convert, QuantType

    model = onnx_file.load(source)
    check_source(model, source.name)
    # In a folder of its own: it goes by the suffix of the file, and leaves others beside it.
    with tempfile.TemporaryDirectory() as folder:
        ordered, converted = Path(folder, 'ordered.onnx'), Path(folder, 'dynamic.onnx')
        ordered.write_bytes(model.SerializeToString())  # its nodes are in order now
        with _errors_only():
            convert(str(ordered), str(converted), op_types_to_quantize=['Conv'],
                    weight_type=QuantType.QUInt8)
        model = onnx_file.load(converted)
    onnx_file.set_metadata(model, {'quantization': 'INT8 dynamic, CPU only'})
    with atomic_path(output) as temporary:
        temporary.write_bytes(model.SerializeToString())


@contextmanager
def _errors_only() -> Iterator[None]:
    """Silence the library's advice to prepare models in a way that exports have been."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(level)
