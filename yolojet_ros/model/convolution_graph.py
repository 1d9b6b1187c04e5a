"""An ONNX graph under change: who makes and who reads a tensor, and what convolutions hold."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Sequence, Set, Tuple, TYPE_CHECKING

import numpy as np

from yolojet_ros.model import onnx_file, onnx_graph

if TYPE_CHECKING:
    import onnx

Parameters = Tuple[np.ndarray, Optional[np.ndarray]]


class Layer(NamedTuple):
    """A convolution and the nodes of the activation behind it."""

    conv: onnx.NodeProto
    activation: List[onnx.NodeProto]


class ConvolutionGraph:
    """
    Changes the graph of a model in place.

    :param model: its nodes have names, each its own (onnx_file.name_nodes).
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        """Note the constants and the names that are taken."""
        self._graph = model.graph
        self._constants: Dict[str, onnx.TensorProto] = onnx_file.initializers(model)
        self._outputs = {value.name for value in model.graph.output}
        self._taken: Set[str] = onnx_graph.names(model.graph)

    def nodes(self) -> List[onnx.NodeProto]:
        """Return the nodes, each behind those it reads from."""
        nodes = list(self._graph.node)
        return [nodes[place] for place in onnx_graph.reading_order(nodes)]

    def readers(self, tensor: str) -> List[onnx.NodeProto]:
        """Return the nodes that read a tensor."""
        return [node for node in self._graph.node if tensor in node.input]

    def is_output(self, tensor: str) -> bool:
        """Tell whether a tensor is an output of the model."""
        return tensor in self._outputs

    def layer_of(self, tensor: str) -> Optional[Layer]:
        """Return the convolution with an activation (SiLU, ReLU) that makes a tensor."""
        last = self._maker(tensor)
        if last is None:
            return None
        if last.op_type == 'Mul':
            gates = [node for node in map(self._maker, last.input)
                     if node is not None and node.op_type == 'Sigmoid'
                     and node.input[0] in last.input]
            if len(gates) != 1:
                return None
            activation = [gates[0], last]
        elif last.op_type in ('Relu', 'LeakyRelu'):
            activation = [last]
        else:
            return None
        conv = self._maker(activation[0].input[0])
        return Layer(conv, activation) if conv is not None and self.is_plain(conv) else None

    def _maker(self, tensor: str) -> Optional[onnx.NodeProto]:
        return next((node for node in self._graph.node if tensor in node.output), None)

    def is_plain(self, node: onnx.NodeProto) -> bool:
        """Tell whether a node is a convolution of one group with constant parameters."""
        return node.op_type == 'Conv' and attribute(node, 'group', 1) == 1 and all(
            name in self._constants for name in node.input[1:])

    def channels(self, conv: onnx.NodeProto) -> int:
        """Return how many channels a convolution computes."""
        return self._constants[conv.input[1]].dims[0]

    def constant(self, tensor: str) -> Optional[np.ndarray]:
        """Return the values of a tensor that the file holds; None for others."""
        from onnx import numpy_helper

        found = self._constants.get(tensor)
        return None if found is None else numpy_helper.to_array(found)

    def parameters(self, conv: onnx.NodeProto) -> Parameters:
        """Return weights [out, in, h, w] and bias [out] of a plain convolution."""
        weights, *bias = (self.constant(name) for name in conv.input[1:])
        return weights, bias[0] if bias else None

    def set_parameters(self, conv: onnx.NodeProto, parameters: Parameters) -> None:
        """Give a convolution parameters of its own: others may share those it had."""
        from onnx import numpy_helper

        del conv.input[1:]
        for kind, values in zip(('weight', 'bias'), parameters):
            if values is None:
                continue
            name = self._free(f'{conv.name}_{kind}')
            tensor = self._graph.initializer.add()
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))
            self._constants[name] = tensor
            conv.input.append(name)

    def copy(self, layer: Layer, parameters: Parameters, suffix: str) -> str:
        """Add a layer with other parameters and the same input; return what it computes."""
        renamed: Dict[str, str] = {}
        for node in (layer.conv, *layer.activation):
            copy = self._graph.node.add()
            copy.CopyFrom(node)
            copy.name = self._free(node.name + suffix)
            copy.input[:] = [renamed.get(name, name) for name in node.input]
            copy.output[:] = [self._free(name + suffix) for name in node.output]
            renamed.update(zip(node.output, copy.output))
            if node is layer.conv:
                self.set_parameters(copy, parameters)
        return copy.output[0]

    def _free(self, name: str) -> str:
        """Return a name that nothing has yet."""
        return onnx_graph.free_name(name, self._taken)

    def remove(self, node: onnx.NodeProto) -> None:
        """Take a node out."""
        self._graph.node.remove(node)

    def finish(self) -> None:
        """Put the nodes in order, and drop constants that nothing reads any more."""
        onnx_graph.sort_nodes(self._graph)
        onnx_graph.drop_unread_constants(self._graph)
        del self._graph.value_info[:]  # shapes of what has changed


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """Return a whole number that a node may carry."""
    return next((item.i for item in node.attribute if item.name == name), default)


def rename_input(node: onnx.NodeProto, old: str, new: str) -> None:
    """Let a node read another tensor."""
    node.input[:] = [new if name == old else name for name in node.input]


def padded(values: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Return an array with zeros behind it, up to a size along one axis."""
    widths: Sequence = [(0, size - length if place == axis else 0)
                        for place, length in enumerate(values.shape)]
    return np.pad(values, widths)
