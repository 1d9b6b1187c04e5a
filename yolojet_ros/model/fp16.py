"""
Type a model FP16, for TensorRT 11 (which no longer chooses precisions) and for size.

Input, output and the decoding behind the last trained layers of the head stay FP32: FP16
holds coordinates above 512 pixels only to half a pixel.
"""

from __future__ import annotations

from collections import Counter
from typing import Dict, List, Optional, Set, Tuple, TYPE_CHECKING

import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.model import onnx_file, onnx_graph
from yolojet_ros.model.quantization import check_qdq

if TYPE_CHECKING:
    import onnx

# The first opset whose QuantizeLinear takes FP16.
_TYPED_QDQ_OPSET = 19
_FLOAT, _FLOAT16 = 1, 10
_SMALLEST = 2.0 ** -24
_LARGEST = float(np.finfo(np.float16).max)
_DECODING = 'decoding'
# Metadata that says which weights stayed FP32, and why; absent where none did.
REMAINING_KEY = 'fp32_weights'


def to_fp16(model: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """
    Return a copy whose weights and operators up to the decoding are FP16.

    What cannot be FP16 stays as it is; the metadata REMAINING_KEY then counts its weights.
    A quantized (Q/DQ) model is lifted to opset 19 first, which is for TensorRT 10 and
    later; older ones choose FP16 themselves when they build.

    :param source: name of the file, for messages.
    :raises UserError: if the model is FP16 already, or cannot be lifted.
    """
    import onnx

    if onnx_file.card(model, source).half or any(
            t.data_type == _FLOAT16 for t in model.graph.initializer):
        raise UserError(f'{source} is an FP16 model already')
    quantized = any(n.op_type == 'QuantizeLinear' for n in model.graph.node)
    if quantized:
        model = lift_opset(model, _TYPED_QDQ_OPSET, source)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    onnx_graph.hoist_constants(result.graph)
    remaining = _Converter(result).convert()
    if quantized:
        check_qdq(result)
    values = {'precision': 'FP16'}
    if remaining:
        values[REMAINING_KEY] = '; '.join(
            f'{count:,}: {why}' for why, count in sorted(remaining.items()))
    onnx_file.set_metadata(result, values)
    return result


def lift_opset(model: onnx.ModelProto, version: int, source: str) -> onnx.ModelProto:
    """
    Return `model` in a later opset; as it is where it has that one.

    :raises UserError: if an operator of it cannot be lifted.
    """
    from onnx import version_converter

    if onnx_file.opset(model) >= version:
        return model
    try:
        result = version_converter.convert_version(model, version)
    except RuntimeError as error:
        raise UserError(
            f'{source} cannot be lifted from opset {onnx_file.opset(model)} to {version} '
            f'({str(error).splitlines()[0][:120]}); export it with opset {version}') from error
    result.ir_version = onnx_file.ir_version(version)
    onnx_file.set_metadata(result, onnx_file.metadata(model))
    return result


class _Converter:
    """
    Types a graph FP16 node by node, in their order.

    Each tensor that was FP32 is then FP16 or FP32 by the node that makes it; a cast stands
    wherever a reader wants the other type.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnx

        self._graph = model.graph
        self._operators = onnx_graph.Operators(model)
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self._types: Dict[str, int] = {
            v.name: v.type.tensor_type.elem_type
            for v in (*inferred.value_info, *inferred.input, *inferred.output)}
        self._constants = onnx_file.initializers(model)
        self._types.update({t.name: t.data_type for t in self._constants.values()})
        self._names = {n for node in self._graph.node for n in (*node.input, *node.output)}
        self._half_tensors: Set[str] = set()
        self._twins: Dict[Tuple[str, bool], str] = {}
        self._nodes: List = []
        # Of each constant that is read in FP32: why, one reason is enough.
        self._remaining: Dict[str, str] = {}

    def convert(self) -> Dict[str, int]:
        """Return how many weights stay FP32 outside the decoding, by the reason."""
        inside = {name for node in self._graph.node for name in onnx_graph.captured(node)}
        decoding = onnx_graph.decoding(self._graph)
        for place, node in enumerate(list(self._graph.node)):
            why = _DECODING if place in decoding else self._obstacle(node, inside)
            if why is None:
                self._type_half(node)
            else:
                self._keep(node, why)
            self._nodes.append(node)
        for output in self._graph.output:
            if output.name in self._half_tensors:
                self._restore(output.name)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        onnx_graph.drop_unread_constants(self._graph)
        # The recorded types are the old ones.
        del self._graph.value_info[:]
        counts: Counter = Counter()
        for name, why in self._remaining.items():
            counts[why] += int(np.prod(self._constants[name].dims))
        return dict(counts)

    def _obstacle(self, node, inside: Set[str]) -> Optional[str]:
        """Say why a node has to stay as it is; None if it need not."""
        if self._operators.schema(node) is None:
            return f'{node.op_type} is no standard operator'
        if onnx_graph.captured(node) or inside.intersection(node.output):
            return 'control flow reads or holds them'
        for name in node.input:
            if name and not self._types.get(name):
                return f'{node.op_type} reads a tensor of unknown type'
            if self._is_float_constant(name) and not _fits(self._constants[name], name, node):
                return 'values outside the range of FP16'
        return None

    def _is_float_constant(self, name: str) -> bool:
        return name in self._constants and self._types[name] == _FLOAT

    def _keep(self, node, why: str) -> None:
        for index, name in enumerate(node.input):
            if name in self._half_tensors:
                node.input[index] = self._cast(name, _FLOAT)
        if why != _DECODING:
            self._remaining.update(
                (name, why) for name in onnx_graph.reads(node) if self._is_float_constant(name))

    def _type_half(self, node) -> None:
        schema = self._operators.schema(node)
        floats = False
        for index, name in enumerate(node.input):
            if self._types.get(name) != _FLOAT:
                continue
            floats = True
            takes = self._operators.takes_half(schema, schema.inputs, index)
            if takes and name in self._constants:
                node.input[index] = self._half_constant(name, node, index)
            elif takes and name not in self._half_tensors:
                node.input[index] = self._cast(name, _FLOAT16)
            elif not takes and name in self._half_tensors:
                node.input[index] = self._cast(name, _FLOAT)
            elif not takes and name in self._constants and node.op_type != 'Resize':
                self._remaining.setdefault(name, f'{node.op_type} takes no FP16')
        if not floats:
            return  # what it makes is FP32 of itself
        for attribute in node.attribute:
            if node.op_type == 'Cast' and attribute.name == 'to' and attribute.i == _FLOAT:
                attribute.i = _FLOAT16
        self._half_tensors.update(
            name for index, name in enumerate(node.output)
            if self._types.get(name) == _FLOAT
            and self._operators.takes_half(schema, schema.outputs, index))

    def _half_constant(self, name: str, reader, index: int) -> str:
        from onnx import numpy_helper

        scale = _is_scale(reader, index)
        if (name, scale) not in self._twins:
            values = numpy_helper.to_array(self._constants[name])
            if scale:
                # The scale of something that is all but zero must not become zero.
                values = np.maximum(values, _SMALLEST)
            twin = self._twins[name, scale] = self._fresh(f'{name}_fp16')
            self._graph.initializer.append(
                numpy_helper.from_array(values.astype(np.float16), twin))
        return self._twins[name, scale]

    def _cast(self, name: str, to: int) -> str:
        from onnx import helper

        if (name, False) not in self._twins:
            twin = self._twins[name, False] = self._fresh(f'{name}_cast')
            self._nodes.append(helper.make_node('Cast', [name], [twin], name=twin, to=to))
        return self._twins[name, False]

    def _restore(self, output: str) -> None:
        """Cast an FP16 output of the graph back, under its own name."""
        from onnx import helper

        half = self._fresh(f'{output}_fp16')
        for node in self._nodes:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == output:
                        names[index] = half
        self._nodes.append(helper.make_node(
            'Cast', [half], [output], name=self._fresh(f'{output}_restored'), to=_FLOAT))

    def _fresh(self, name: str) -> str:
        return onnx_graph.free_name(name, self._names)


def _is_scale(reader, index: int) -> bool:
    return reader.op_type in ('QuantizeLinear', 'DequantizeLinear') and index == 1


def _fits(tensor, name: str, reader) -> bool:
    """Tell whether FP16 holds a constant: none is too large, and no lone one (an epsilon) lost."""
    from onnx import numpy_helper

    if name in reader.input[1:2] and _is_scale(reader, 1):
        return True
    values = np.abs(numpy_helper.to_array(tensor))
    largest = values[np.isfinite(values)].max(initial=0.0)
    lost = values.size == 1 and 0 < largest <= _SMALLEST / 2
    return largest <= _LARGEST and not lost
