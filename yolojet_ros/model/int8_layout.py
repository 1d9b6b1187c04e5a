"""
Rewrite a float detector, without changing what it computes, so that INT8 needs no copies.

TensorRT holds INT8 activations in vectors of 32 channels, and lets a layer write straight into
its place in a concatenation only if nobody else reads what it writes. YOLOv8 breaks both rules:
half of a block's first convolution is split off for the bottlenecks and concatenated as well, with
16 channels in the widest block; and what is upsampled is copied into a concatenation, because
the upsampling cannot write there. On an H200 those copies and reformats took more time than the
convolutions beside them.
"""

from __future__ import annotations

from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, TYPE_CHECKING

import numpy as np

from yolojet_ros.model import onnx_file, onnx_graph

if TYPE_CHECKING:
    import onnx

# Channels that TensorRT packs into one vector of INT8 (kCHW32).
_VECTOR = 32


class _Block(NamedTuple):
    """A convolution whose output is halved: one half is only concatenated, one read again."""

    split: onnx.NodeProto
    enter: List[onnx.NodeProto]  # the convolution and its activation
    concat: onnx.NodeProto


def rewrite(
    model: onnx.ModelProto, again: bool = True, later: bool = False, fill: bool = True,
) -> onnx.ModelProto:
    """Return a copy of `model` with the same outputs (up to rounding) and fewer copies."""
    result = type(model)()
    result.CopyFrom(model)
    graph = _Graph(result)
    if later:
        for node in [n for n in result.graph.node if n.op_type == 'Concat']:
            _upsample_later(graph, node)
    for block in graph.blocks():
        if again and graph.is_halved(block):
            start = _compute_half_again(graph, block)
            if fill:
                _fill_vectors(graph, start)
        else:
            _concatenate_whole(block)
    graph.finish()
    return result


def _concatenate_whole(block: _Block) -> None:
    """Let the concatenation take the whole instead of its halves."""
    split, _, concat = block
    inputs = [name for name in concat.input if name != split.output[1]]
    inputs[inputs.index(split.output[0])] = split.input[0]
    concat.input[:] = inputs


def _compute_half_again(graph: _Graph, block: _Block) -> str:
    """
    Give the bottlenecks a convolution of their own, for the half that they read.

    The concatenation takes the whole output instead of two halves. A 1x1 convolution of half
    the channels is cheaper than the copy that two readers of one tensor cost.

    :return: the tensor that the bottlenecks read now.
    """
    split, (conv, *activation), concat = block
    half = split.output[1]
    weights, bias = graph.parameters(conv)
    kept = slice(len(weights) // 2, None)
    tensor = graph.copy_chain(
        [conv, *activation], weights[kept], None if bias is None else bias[kept])
    for node in graph.readers(half):
        if node is not concat:
            _rename(node, half, tensor)
    _concatenate_whole(block)
    graph.remove(split)
    return tensor


def _fill_vectors(graph: _Graph, start: str) -> None:
    """Widen the bottlenecks that begin at `start` to whole vectors, with channels of zeros."""
    first = graph.convolution_before(start)
    channels = graph.channels(first)
    wide = -(-channels // _VECTOR) * _VECTOR
    if wide == channels:
        return
    inside, convolutions, concats = _bottlenecks(graph, start, channels)
    if inside is None:
        return
    for concat in concats:
        for merge in graph.readers(concat.output[0]):
            _insert_zeros(graph, merge, concat, inside, channels, wide)
    for conv in convolutions:
        graph.pad(conv, wide, wide)
    graph.pad(first, wide, None)


def _bottlenecks(graph, start, channels):
    """Return what is computed from `start` alone, as far as a concatenation; Nones if not so."""
    inside, convolutions, concats = {start}, [], []
    for node in graph.in_order():
        if not inside.intersection(node.input):
            continue
        if node.op_type == 'Conv':
            if not graph.is_plain(node) or graph.channels(node) != channels:
                return None, None, None
            convolutions.append(node)
        elif node.op_type == 'Concat':
            if not all(graph.is_plain(n) for n in graph.readers(node.output[0])):
                return None, None, None
            concats.append(node)
            continue
        elif node.op_type not in ('Sigmoid', 'Relu', 'LeakyRelu', 'Mul', 'Add') or (
                not inside.issuperset(node.input)):
            return None, None, None
        inside.update(node.output)
    return inside, convolutions, concats


def _insert_zeros(graph, merge, concat, inside, channels, wide) -> None:
    """Let a convolution behind a concatenation ignore the added channels."""
    weights, bias = graph.parameters(merge)
    parts, start = [], 0
    narrow = sum(name in inside for name in concat.input) * channels
    for name in concat.input:
        width = channels if name in inside else (weights.shape[1] - narrow)
        part = weights[:, start:start + width]
        start += width
        parts.append(_padded(part, 1, wide) if name in inside else part)
    graph.set_parameters(merge, np.concatenate(parts, 1), bias)


def _upsample_later(graph: _Graph, concat: onnx.NodeProto) -> None:
    """
    Let the 1x1 convolution behind a concatenation work on its inputs one by one.

    What was upsampled is convolved first, upsampled then, and added: a quarter of the work, and
    nothing is concatenated.
    """
    readers = graph.readers(concat.output[0])
    resizes = [graph.maker(name) for name in concat.input]
    resizes = [n for n in resizes if n is not None and n.op_type == 'Resize'
               and len(graph.readers(n.output[0])) == 1]
    if len(concat.input) != 2 or len(resizes) != 1 or len(readers) != 1:
        return
    (merge,), (resize,) = readers, resizes
    if not graph.is_plain(merge) or not graph.is_pointwise(merge):
        return
    place = list(concat.input).index(resize.output[0])
    other = concat.input[1 - place]
    source = graph.convolution_before(resize.input[0])
    if source is None:
        return
    weights, bias = graph.parameters(merge)
    width = graph.channels(source)
    small, rest = ((weights[:, :width], weights[:, width:]) if place == 0 else
                   (weights[:, -width:], weights[:, :-width]))
    sum_name, partial = merge.output[0], f'{merge.output[0]}_rest'
    convolved = graph.copy_chain([merge], small, None, resize.input[0], '_upsampled')
    _rename(resize, resize.input[0], convolved)
    merge.input[0] = other
    merge.output[0] = partial
    graph.set_parameters(merge, rest, bias)
    graph.add('Add', [partial, resize.output[0]], sum_name, f'{merge.name}_sum')
    graph.remove(concat)


class _Graph:
    """The graph of a model under change, with who makes and who reads each tensor."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._graph = model.graph
        self._constants: Dict = onnx_file.initializers(model)

    def in_order(self) -> List:
        nodes = list(self._graph.node)
        return [nodes[place] for place in onnx_graph.reading_order(nodes)]

    def readers(self, tensor: str) -> List:
        return [n for n in self._graph.node if tensor in n.input]

    def maker(self, tensor: str) -> Optional[onnx.NodeProto]:
        return next((n for n in self._graph.node if tensor in n.output), None)

    def remove(self, node) -> None:
        self._graph.node.remove(node)

    def add(self, kind: str, inputs: Sequence[str], output: str, name: str) -> None:
        from onnx import helper

        self._graph.node.append(helper.make_node(kind, list(inputs), [output], name=name))

    def blocks(self) -> List[_Block]:
        """Return the blocks whose second half is concatenated and read by others, too."""
        found = []
        for split in [n for n in self._graph.node if n.op_type == 'Split']:
            enter = self._activated(split.input[0])
            if len(split.output) != 2:
                continue
            concats = self.readers(split.output[0])
            if len(concats) != 1 or concats[0].op_type != 'Concat':
                continue
            inputs = list(concats[0].input)
            place = inputs.index(split.output[0])
            if inputs[place:place + 2] == list(split.output):
                found.append(_Block(split, enter, concats[0]))
        return found

    def is_halved(self, block: _Block) -> bool:
        """Tell whether a convolution makes both halves."""
        from onnx import numpy_helper

        split, enter, _ = block
        if enter is None or not self.is_plain(enter[0]) or len(split.input) == 1:
            return False
        sizes = numpy_helper.to_array(self._constants[split.input[1]])
        return bool((2 * sizes == self.channels(enter[0])).all())

    def _activated(self, tensor: str) -> Optional[List]:
        """Return the convolution and the activation that make a tensor."""
        node = self.maker(tensor)
        if node is None:
            return None
        if node.op_type == 'Mul':
            gates = [self.maker(name) for name in node.input]
            gates = [n for n in gates if n is not None and n.op_type == 'Sigmoid']
            if len(gates) != 1 or gates[0].input[0] not in node.input:
                return None
            activation = [gates[0], node]
        elif node.op_type in ('Relu', 'LeakyRelu'):
            activation = [node]
        else:
            return None
        conv = self.maker(activation[0].input[0])
        return None if conv is None or conv.op_type != 'Conv' else [conv, *activation]

    def convolution_before(self, tensor: str) -> Optional[onnx.NodeProto]:
        found = self._activated(tensor)
        return found and found[0]

    def is_plain(self, conv) -> bool:
        """Tell whether a node is a convolution of one group with constant parameters."""
        return conv.op_type == 'Conv' and all(
            name in self._constants for name in conv.input[1:]) and all(
            a.i == 1 for a in conv.attribute if a.name == 'group')

    def is_pointwise(self, conv) -> bool:
        shape = self._constants[conv.input[1]].dims
        return all(size == 1 for size in shape[2:]) and all(
            value == 1 for a in conv.attribute if a.name == 'strides' for value in a.ints) and not(
            any(value for a in conv.attribute if a.name == 'pads' for value in a.ints))

    def channels(self, conv) -> int:
        return self._constants[conv.input[1]].dims[0]

    def parameters(self, conv):
        from onnx import numpy_helper

        arrays = [numpy_helper.to_array(self._constants[name]) for name in conv.input[1:]]
        return arrays[0], (arrays[1] if len(arrays) > 1 else None)

    def set_parameters(self, conv, weights, bias) -> None:
        """Give a convolution parameters of its own: exporters let several share one."""
        from onnx import numpy_helper

        named = {f'{conv.name}_weight': weights}
        if bias is not None:
            named[f'{conv.name}_bias'] = bias
        del conv.input[1:]
        for name, values in named.items():
            tensor = numpy_helper.from_array(np.ascontiguousarray(values), name)
            if name in self._constants:
                self._constants[name].CopyFrom(tensor)
            else:
                self._graph.initializer.append(tensor)
                self._constants[name] = self._graph.initializer[-1]
            conv.input.append(name)

    def pad(self, conv, outputs: int, inputs: Optional[int]) -> None:
        """Add output and input channels of zeros."""
        weights, bias = self.parameters(conv)
        weights = _padded(weights, 0, outputs)
        if inputs is not None:
            weights = _padded(weights, 1, inputs)
        self.set_parameters(conv, weights, None if bias is None else _padded(bias, 0, outputs))

    def copy_chain(self, nodes, weights, bias, source=None, suffix='_half') -> str:
        """Add a copy of a convolution and its activation; return the copy's output."""
        renamed: Mapping[str, str] = {
            name: f'{name}{suffix}' for node in nodes for name in node.output}
        for node in nodes:
            copy = self._graph.node.add()
            copy.CopyFrom(node)
            copy.name = f'{node.name}{suffix}'
            for names in (copy.input, copy.output):
                names[:] = [renamed.get(name, name) for name in names]
            if node is nodes[0]:
                if source is not None:
                    copy.input[0] = source
                self.set_parameters(copy, weights, bias)
        return renamed[nodes[-1].output[0]]

    def finish(self) -> None:
        """Put the nodes in order and drop what nothing reads any more."""
        onnx_graph.sort_nodes(self._graph)
        read = {name for node in self._graph.node for name in onnx_graph.reads(node)}
        kept = [t for t in self._graph.initializer if t.name in read]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
        del self._graph.value_info[:]


def _padded(values: np.ndarray, axis: int, size: int) -> np.ndarray:
    widths = [(0, size - length if place == axis else 0)
              for place, length in enumerate(values.shape)]
    return np.pad(values, widths)


def _rename(node, old: str, new: str) -> None:
    node.input[:] = [new if name == old else name for name in node.input]
