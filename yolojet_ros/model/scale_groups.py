"""
Which tensors have to share one INT8 scale, so that TensorRT needs to quantize them only once.

Operators that only move values (concatenation, split, resize, pooling) run in INT8 without a
layer of their own for quantization if all that goes in and comes out has one scale: TensorRT
then moves the Q in front of them up to whatever computed the values, and fuses it there (TensorRT
developer guide, explicit quantization, "Q/DQ propagation").
"""

from __future__ import annotations

from typing import Dict, Iterable, List, TYPE_CHECKING

from yolojet_ros.model import onnx_graph

if TYPE_CHECKING:
    import onnx

# Operators whose outputs hold values of their inputs, by how many inputs are values (None: all).
_MOVES = {'Concat': None, 'Identity': 1, 'MaxPool': 1, 'Resize': 1, 'Slice': 1, 'Split': 1}


class ScaleGroups:
    """
    Sets of activations with one scale each, by union-find over their names.

    :param model: its decoding, behind the last trained layers, is left out.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self._parents: Dict[str, str] = {}
        self._constants = onnx_graph.constants(graph)
        self._moved: Dict[str, bool] = {graph.input[0].name: False}
        self._sums: List = []
        decoding = onnx_graph.decoding(graph)
        for place, node in enumerate(graph.node):
            if place in decoding or self._constants.issuperset(node.output):
                continue
            moves = self._is_move(node)
            self._moved.update((name, moves) for name in node.output)
            if moves:
                self._unite((*node.input[:_MOVES[node.op_type]], *node.output))
            elif node.op_type == 'Add' and not self._constants.intersection(node.input):
                self._sums.append(node)

    def residuals_in(self, tensors: Iterable[str]) -> List[onnx.NodeProto]:
        """Return the sums of two activations whose result is in the groups of `tensors`."""
        roots = {self.root(name) for name in tensors}
        return [node for node in self._sums if self.root(node.output[0]) in roots]

    def root(self, tensor: str) -> str:
        """Name the group of a tensor."""
        while tensor in self._parents:
            tensor = self._parents[tensor]
        return tensor

    def computed(self, tensors: Iterable[str]) -> List[str]:
        """Return what computes the values of the groups of `tensors`, in the graph's order."""
        roots = {self.root(name) for name in tensors}
        return [name for name, moved in self._moved.items()
                if not moved and self.root(name) in roots]

    def thresholds(self, found: Dict[str, float]) -> Dict[str, float]:
        """Return the threshold of each group by its root: the largest of its members'."""
        shared: Dict[str, float] = {}
        for name, threshold in found.items():
            root = self.root(name)
            shared[root] = max(threshold, shared.get(root, 0.0))
        return shared

    def _unite(self, names: Iterable[str]) -> None:
        roots = {self.root(name) for name in names if name and name not in self._constants}
        first, *others = sorted(roots)
        self._parents.update((other, first) for other in others)

    def _is_move(self, node) -> bool:
        if node.op_type == 'Resize':
            return all(a.s == b'nearest' for a in node.attribute if a.name == 'mode')
        # What is concatenated with constants has values of its own.
        return node.op_type in _MOVES and not (
            node.op_type == 'Concat' and self._constants.intersection(node.input))
