"""What an ONNX graph is made of: the order of its nodes, its trained parts, its decoding."""

from __future__ import annotations

import heapq
from typing import Iterator, List, Mapping, Sequence, Set, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

# A matrix of so few numbers turns boxes or distances; a trained one has more.
_MOST_GEOMETRY = 64


def sort_nodes(graph: onnx.GraphProto) -> None:
    """
    Put every node behind those it reads from, keeping the order where that is so already.

    ONNX demands it, some exporters do not do it. Nodes of a circle go to the end.
    """
    nodes = list(graph.node)
    for node in nodes:
        for inner in _subgraphs(node):
            sort_nodes(inner)
    order = reading_order(nodes)
    if order != list(range(len(nodes))):
        copies = [_copy(nodes[place]) for place in order]
        del graph.node[:]
        graph.node.extend(copies)


def reading_order(nodes: Sequence) -> List[int]:
    makers = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    sources = [{makers[name] for name in reads(node) if name in makers} for node in nodes]
    readers: List[List[int]] = [[] for _ in nodes]
    for place, needed in enumerate(sources):
        for source in needed:
            readers[source].append(place)
    missing = [len(needed) for needed in sources]
    ready = [place for place, count in enumerate(missing) if not count]
    order = []
    while ready:
        place = heapq.heappop(ready)
        order.append(place)
        for reader in readers[place]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    return order + [place for place, count in enumerate(missing) if count]


def _copy(message):
    result = type(message)()
    result.CopyFrom(message)
    return result


def reads(node: onnx.NodeProto) -> Set[str]:
    """Name what a node reads, in the graphs inside it as well."""
    return {*node.input, *captured(node)}


def captured(node: onnx.NodeProto) -> Set[str]:
    """Name what the graphs inside a node (If, Loop) read, from outside it or not."""
    return {name for inner in _subgraphs(node) for child in inner.node for name in reads(child)}


def _subgraphs(node: onnx.NodeProto) -> Iterator:
    for attribute in node.attribute:
        if attribute.HasField('g'):
            yield attribute.g
        yield from attribute.graphs


def names(graph: onnx.GraphProto) -> Set[str]:
    """Return every name that a graph or one inside it gives to a tensor or a node."""
    found = {value.name for value in (*graph.input, *graph.initializer)}
    for node in graph.node:
        found.update((node.name, *node.output))
        for inner in _subgraphs(node):
            found |= names(inner)
    return found


def free_name(name: str, taken: Set[str]) -> str:
    """Return a name that is not in `taken` yet, made of `name`, and add it."""
    while name in taken:
        name += '_'
    taken.add(name)
    return name


def constants(graph: onnx.GraphProto) -> Set[str]:
    """Name the tensors that are the same whatever the image is; the nodes are in order."""
    found = {'', *(tensor.name for tensor in graph.initializer)}
    for node in graph.node:
        if reads(node) <= found:
            found.update(node.output)
    return found - {''}


def drop_unread_constants(graph: onnx.GraphProto) -> None:
    """Take out the initializers that no node reads and that are no output."""
    read = {name for node in graph.node for name in reads(node)}
    read.update(output.name for output in graph.output)
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def hoist_constants(graph: onnx.GraphProto) -> None:
    """Turn Constant nodes that hold a tensor into initializers."""
    kept = []
    for node in graph.node:
        if node.op_type == 'Constant' and node.attribute[0].name == 'value':
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            kept.append(_copy(node))
    if len(kept) < len(graph.node):
        del graph.node[:]
        graph.node.extend(kept)


def decoding(graph: onnx.GraphProto) -> Set[int]:
    """
    Return the places of the nodes behind the last trained layers of every branch.

    They turn distances and logits into boxes and scores. Found by structure, whatever the
    head is: no convolution or large matrix follows them.
    """
    values = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    found, leads_on = set(), set()
    for place in reversed(range(len(graph.node))):
        node = graph.node[place]
        if _is_trained(node, values, makers) or leads_on.intersection(node.output):
            leads_on.update(reads(node))
        else:
            found.add(place)
    return found


def _is_trained(node, values: Mapping, makers: Mapping) -> bool:
    if node.op_type not in ('Conv', 'ConvTranspose', 'Gemm', 'MatMul'):
        return False
    from onnx import numpy_helper

    sources = (origin(name, makers) for name in node.input[:2])
    weights = [values[name] for name in sources if name in values]
    if node.op_type in ('Conv', 'ConvTranspose'):
        # The expectation over distance bins is written as a convolution with 0, 1, 2, ...
        return not any(
            1 < np.prod(w.dims) <= _MOST_GEOMETRY
            and np.array_equal(numpy_helper.to_array(w).ravel(), np.arange(np.prod(w.dims)))
            for w in weights)
    return any(np.prod(w.dims) > _MOST_GEOMETRY for w in weights)


def origin(name: str, makers: Mapping[str, onnx.NodeProto]) -> str:
    """Follow quantization and casts back to the tensor that they began with."""
    while name in makers and makers[name].op_type in (
            'QuantizeLinear', 'DequantizeLinear', 'Cast'):
        name = makers[name].input[0]
    return name


class Operators:
    """What the ONNX standard says of operators, at the versions that a model imports."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Note the versions."""
        self._versions = {item.domain: item.version for item in model.opset_import}

    def schema(self, node: onnx.NodeProto):
        """Return the schema of a node's operator; None for one that is not standard."""
        from onnx import defs

        domain = '' if node.domain == 'ai.onnx' else node.domain
        version = self._versions.get(domain, self._versions.get('ai.onnx', 1))
        try:
            return defs.get_schema(node.op_type, version, domain)
        except defs.SchemaError:
            return None

    @staticmethod
    def takes_half(schema, formals: Sequence, index: int) -> bool:
        """
        Tell whether a tensor may be FP16.

        :param formals: schema.inputs or schema.outputs.
        :param index: of the tensor; the last formal may stand for many.
        """
        formal = formals[min(index, len(formals) - 1)]
        return 'tensor(float16)' in formal.types

