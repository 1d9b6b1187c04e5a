"""
Type a model FP16, for TensorRT 11 (which no longer chooses precisions) and for size.

Input, output and the decoding behind the head's last convolutions stay FP32: FP16 holds
coordinates above 512 pixels only to half a pixel.
"""

from __future__ import annotations

from typing import Dict, List, Set, TYPE_CHECKING

import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.model import onnx_file
from yolojet_ros.model.quantization import check_qdq

if TYPE_CHECKING:
    import onnx

# The first opset whose QuantizeLinear takes FP16.
_TYPED_QDQ_OPSET = 19
_FLOAT, _FLOAT16 = 1, 10
_SMALLEST = 2.0 ** -24
# Inputs that an operator wants in FP32 whatever its data is.
_FP32_INPUTS = {'Resize': (1, 2)}


def to_fp16(model: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """
    Return a copy whose weights and operators up to the decoding are FP16.

    A quantized (Q/DQ) model is lifted to opset 19 first, which is for TensorRT 10 and
    later; older ones choose FP16 themselves when they build.

    :param source: name of the file, for messages.
    :raises UserError: if the model is FP16 already.
    """
    import onnx

    if onnx_file.card(model, source).half or any(
            t.data_type == _FLOAT16 for t in model.graph.initializer):
        raise UserError(f'{source} is an FP16 model already')
    quantized = any(n.op_type == 'QuantizeLinear' for n in model.graph.node)
    if quantized:
        model = lift_opset(model, _TYPED_QDQ_OPSET)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _Converter(result, set(decoding_nodes(model))).convert()
    if quantized:
        check_qdq(result)
    onnx_file.set_metadata(result, {'precision': 'FP16'})
    return result


def decoding_nodes(model: onnx.ModelProto) -> List[str]:
    """Name all nodes behind the last convolutions of the head's branches."""
    bare = set(onnx_file.bare_convolutions(model))
    behind: Set[str] = set()
    names = []
    for node in model.graph.node:  # in topological order
        if behind.intersection(node.input):
            names.append(node.name)
            behind.update(node.output)
        elif node.name in bare:
            behind.update(node.output)
    return names


def lift_opset(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """Return `model` in a later opset; as it is where it has that one."""
    from onnx import version_converter

    if onnx_file.opset(model) >= version:
        return model
    result = version_converter.convert_version(model, version)
    result.ir_version = onnx_file.ir_version(version)
    onnx_file.set_metadata(result, onnx_file.metadata(model))
    return result


def _is_scale(name: str, reader) -> bool:
    return (reader.op_type in ('QuantizeLinear', 'DequantizeLinear')
            and name == reader.input[1])


class _Converter:
    """
    Types everything FP16 but the nodes to keep, which nothing else may depend on.

    So the only borders are the graph's input, the tensors that a kept node reads, and an
    output that no kept node writes.
    """

    def __init__(self, model: onnx.ModelProto, keep: Set[str]) -> None:
        import onnx

        self._graph = model.graph
        self._keep = keep
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self._types: Dict[str, int] = {
            v.name: v.type.tensor_type.elem_type
            for v in (*inferred.value_info, *inferred.input, *inferred.output)}
        self._constants = onnx_file.initializers(model)
        self._types.update({t.name: t.data_type for t in self._constants.values()})
        self._halved: Dict[str, str] = {}
        self._nodes: List = []

    def convert(self) -> None:
        half_tensors: Set[str] = set()
        for node in list(self._graph.node):
            if node.name in self._keep:
                for index, name in enumerate(node.input):
                    if name in half_tensors:
                        node.input[index] = self._cast(name, _FLOAT)
            else:
                self._type_inputs(node, half_tensors)
                self._type_attributes(node)
                half_tensors.update(n for n in node.output if self._types.get(n) == _FLOAT)
            self._nodes.append(node)
        for output in self._graph.output:
            if output.name in half_tensors:
                self._restore(output.name)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        self._drop_unused_constants()
        # The recorded types are the old ones.
        del self._graph.value_info[:]

    def _type_inputs(self, node, half_tensors: Set[str]) -> None:
        for index, name in enumerate(node.input):
            if (name in half_tensors or self._types.get(name) != _FLOAT
                    or index in _FP32_INPUTS.get(node.op_type, ())):
                continue
            node.input[index] = (
                self._half_constant(name, node) if name in self._constants
                else self._cast(name, _FLOAT16))

    def _type_attributes(self, node) -> None:
        from onnx import numpy_helper

        for attribute in node.attribute:
            if node.op_type == 'Cast' and attribute.name == 'to' and attribute.i == _FLOAT:
                attribute.i = _FLOAT16
            elif node.op_type == 'Constant' and attribute.t.data_type == _FLOAT:
                values = numpy_helper.to_array(attribute.t).astype(np.float16)
                attribute.t.CopyFrom(numpy_helper.from_array(values))

    def _half_constant(self, name: str, reader) -> str:
        from onnx import numpy_helper

        if name not in self._halved:
            limit = np.finfo(np.float16).max
            values = np.clip(numpy_helper.to_array(self._constants[name]), -limit, limit)
            if _is_scale(name, reader):
                # The scale of something that is all but zero must not become zero.
                values = np.maximum(values, _SMALLEST)
            self._halved[name] = f'{name}_fp16'
            self._graph.initializer.append(
                numpy_helper.from_array(values.astype(np.float16), self._halved[name]))
        return self._halved[name]

    def _cast(self, name: str, to: int) -> str:
        from onnx import helper

        if name not in self._halved:
            self._halved[name] = f'{name}_cast'
            self._nodes.append(helper.make_node(
                'Cast', [name], [f'{name}_cast'], name=f'{name}_cast', to=to))
        return self._halved[name]

    def _restore(self, output: str) -> None:
        """Cast an FP16 output of the graph back, under its own name."""
        from onnx import helper

        for node in self._nodes:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == output:
                        names[index] = f'{output}_fp16'
        self._nodes.append(helper.make_node(
            'Cast', [f'{output}_fp16'], [output], name=f'{output}_cast', to=_FLOAT))

    def _drop_unused_constants(self) -> None:
        used = {name for node in self._graph.node for name in node.input}
        kept = [t for t in self._graph.initializer if t.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
