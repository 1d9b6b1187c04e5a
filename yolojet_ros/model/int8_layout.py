"""
Rewrite a float detector, without changing what it computes, so that INT8 needs no copies.

TensorRT holds INT8 activations in vectors of 32 channels, and lets a layer write straight into
its place in a concatenation only if nobody else reads what it writes. The blocks of YOLOv8 (C2f)
break both rules: half of what their first convolution computes is concatenated and read by
the bottlenecks as well, and has 16 channels in the widest block. On an H200 copies and reformats
took more time there than the convolutions beside them.
"""

from __future__ import annotations

from typing import List, NamedTuple, Optional, TYPE_CHECKING

import numpy as np

from yolojet_ros.model import onnx_graph
from yolojet_ros.model.convolution_graph import (
    attribute, ConvolutionGraph, Layer, padded, rename_input)

if TYPE_CHECKING:
    import onnx

# Channels that TensorRT packs into one vector of INT8 (kCHW32).
_VECTOR = 32
# Behind the name of a convolution: the one that computes its second half again.
AGAIN = '_half'


class _Block(NamedTuple):
    """What a layer computes is halved: both halves are concatenated, one is read again."""

    layer: Layer
    split: onnx.NodeProto
    concat: onnx.NodeProto


class _Bottlenecks(NamedTuple):
    """
    What is computed from one half alone, as far as the concatenation.

    tensors: all of it; convolutions: of as many channels in and out
    merge: the convolution behind the concatenation
    """

    tensors: List[str]
    convolutions: List[onnx.NodeProto]
    concat: onnx.NodeProto
    merge: onnx.NodeProto


def rewrite(model: onnx.ModelProto) -> onnx.ModelProto:
    """
    Return a copy of `model` with the same outputs (up to rounding) and fewer copies in INT8.

    Where a block is built in another way, it stays as it is.

    :param model: FP32, its nodes have names (onnx_file.name_nodes).
    """
    result = type(model)()
    result.CopyFrom(model)
    if any(onnx_graph.captured(node) for node in result.graph.node):
        return result  # graphs in nodes read by names that would change
    onnx_graph.hoist_constants(result.graph)
    graph = ConvolutionGraph(result)
    for block in _blocks(graph):
        start = _compute_half_again(graph, block)
        _fill_vectors(graph, start)
    graph.finish()
    return result


def _blocks(graph: ConvolutionGraph) -> List[_Block]:
    """Return the blocks whose second half is concatenated and read by others, too."""
    found = []
    for split in graph.nodes():
        if split.op_type != 'Split' or len(split.output) != 2 or (
                attribute(split, 'axis', 0) != 1 or any(map(graph.is_output, split.output))):
            continue
        layer = graph.layer_of(split.input[0])
        concat = _concat_of(graph, *split.output)
        if layer and concat is not None and _in_halves(graph, split, layer) and (
                len(graph.readers(split.output[1])) > 1):
            found.append(_Block(layer, split, concat))
    return found


def _concat_of(graph: ConvolutionGraph, first: str, second: str) -> Optional[onnx.NodeProto]:
    """Return what concatenates two tensors side by side, if nothing else reads the first."""
    readers = graph.readers(first)
    if len(readers) != 1 or readers[0].op_type != 'Concat' or attribute(
            readers[0], 'axis', 0) != 1:
        return None
    inputs = list(readers[0].input)
    place = inputs.index(first)
    together = inputs[place:place + 2] == [first, second]
    once = inputs.count(first) == inputs.count(second) == 1
    return readers[0] if together and once else None


def _in_halves(graph: ConvolutionGraph, split: onnx.NodeProto, layer: Layer) -> bool:
    channels = graph.channels(layer.conv)
    if len(split.input) == 1:  # in equal parts, as far as possible
        return channels % 2 == 0
    sizes = graph.constant(split.input[1])
    return sizes is not None and bool((2 * sizes == channels).all())


def _compute_half_again(graph: ConvolutionGraph, block: _Block) -> str:
    """
    Give the bottlenecks a convolution of their own, for the half that they read.

    The concatenation takes the whole instead of its halves. A convolution of half the channels,
    1x1 in YOLOv8, is cheaper than the copy that two readers of one tensor cost.

    :return: the tensor that the bottlenecks read now.
    """
    layer, split, concat = block
    first, second = split.output
    weights, bias = graph.parameters(layer.conv)
    kept = slice(len(weights) // 2, None)
    start = graph.copy(layer, (weights[kept], None if bias is None else bias[kept]), AGAIN)
    concat.input.remove(second)
    rename_input(concat, first, split.input[0])
    for node in graph.readers(second):
        rename_input(node, second, start)
    graph.remove(split)
    return start


def _fill_vectors(graph: ConvolutionGraph, start: str) -> None:
    """Widen the bottlenecks that begin at `start` to whole vectors, with channels of zeros."""
    first = graph.layer_of(start).conv
    channels = graph.channels(first)
    wide = -(-channels // _VECTOR) * _VECTOR
    if not channels < wide <= 2 * channels:
        return  # whole already, or more zeros than values
    found = _bottlenecks(graph, start, channels)
    if found is None:
        return
    _skip_zeros(graph, found, channels, wide)
    for conv in found.convolutions:
        weights, bias = graph.parameters(conv)
        graph.set_parameters(conv, (padded(padded(weights, 0, wide), 1, wide), _wider(bias, wide)))
    weights, bias = graph.parameters(first)
    graph.set_parameters(first, (padded(weights, 0, wide), _wider(bias, wide)))


def _wider(bias: Optional[np.ndarray], size: int) -> Optional[np.ndarray]:
    return None if bias is None else padded(bias, 0, size)


def _bottlenecks(graph: ConvolutionGraph, start: str, channels: int) -> Optional[_Bottlenecks]:
    """Return what begins at `start`; None if zeros could get out of it anywhere."""
    tensors, convolutions, concats = [start], [], []
    for node in graph.nodes():
        outside = [name for name in node.input if name not in tensors]
        if len(outside) == len(node.input):
            continue
        if node.op_type == 'Concat':
            concats.append((node, outside))
            continue
        if node.op_type == 'Conv':
            if not graph.is_plain(node) or graph.channels(node) != channels:
                return None
            convolutions.append(node)
        elif outside or node.op_type not in ('Sigmoid', 'Relu', 'LeakyRelu', 'Mul', 'Add'):
            return None
        tensors.extend(node.output)
    if len(concats) != 1 or any(map(graph.is_output, tensors)):
        return None
    (concat, outside), = concats
    merges = graph.readers(concat.output[0])
    if attribute(concat, 'axis', 0) != 1:
        return None  # below or beside, not behind its channels
    if len(outside) != 1 or len(merges) != 1 or not graph.is_plain(merges[0]) or (
            graph.is_output(concat.output[0])):
        return None
    return _Bottlenecks(tensors, convolutions, concat, merges[0])


def _skip_zeros(
    graph: ConvolutionGraph, found: _Bottlenecks, channels: int, wide: int,
) -> None:
    """Give the convolution behind the concatenation weights of zero for the added channels."""
    weights, bias = graph.parameters(found.merge)
    inner = [name in found.tensors for name in found.concat.input]
    widths = [channels if here else weights.shape[1] - sum(inner) * channels for here in inner]
    parts = np.split(weights, np.cumsum(widths)[:-1], axis=1)
    filled = [padded(part, 1, wide) if here else part for part, here in zip(parts, inner)]
    graph.set_parameters(found.merge, (np.concatenate(filled, 1), bias))
