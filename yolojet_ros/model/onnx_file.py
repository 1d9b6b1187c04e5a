"""Read, check and write ONNX detectors, with the metadata that YOLOv8 exports carry."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Mapping, Sequence, Set, Tuple, TYPE_CHECKING

import numpy as np

from yolojet_ros.core.card_file import CardFile
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.installing import install_command
from yolojet_ros.core.files import atomic_path
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.core.tensors import TensorSpec
from yolojet_ros.core.text import one_line
from yolojet_ros.model import onnx_graph

if TYPE_CHECKING:
    import onnx

# The IR version that came with an opset: newer ones are refused by older runtimes.
_TYPES = {'FLOAT': 'float32', 'FLOAT16': 'float16', 'UINT8': 'uint8', 'INT32': 'int32',
          'INT64': 'int64'}
_IR_VERSIONS = ((15, 7), (19, 8), (21, 9), (23, 10))


def load(path: Path) -> onnx.ModelProto:
    """
    Read and check an ONNX file; nodes that are not in order are put in order.

    :raises UserError: if it is missing, truncated or not valid ONNX.
    """
    onnx = _onnx()
    path = Path(path)
    if not path.is_file():
        raise UserError(f'no model at {path}; give the path of an ONNX file')
    try:
        model = onnx.load(str(path))
        onnx_graph.sort_nodes(model.graph)
        onnx.checker.check_model(model)
        # What the user says beside the file goes with the model from here on.
        set_metadata(model, CardFile.metadata(path))
    except UserError:
        raise
    except Exception as error:  # protobuf's and onnx's errors have no common base
        reason = one_line(str(error), 120) or type(error).__name__
        raise UserError(
            f'{path} ({path.stat().st_size} bytes) is not a complete ONNX model '
            f'({reason}); export or copy it again') from error
    return model


def save(model: onnx.ModelProto, path: Path) -> None:
    """Check `model` and write it in one step; nothing is left at `path` if that fails."""
    onnx = _onnx()
    model.ir_version = min(model.ir_version, ir_version(opset(model)))
    _drop_unused_opsets(model)
    onnx.checker.check_model(model, full_check=True)
    with atomic_path(path) as temporary:
        # Written as bytes: the C++ writer of some versions cannot open non-ASCII paths.
        temporary.write_bytes(model.SerializeToString())


def card(model: onnx.ModelProto, source: str) -> ModelCard:
    """
    Read what a loaded model says of itself.

    :raises UserError: if it has no head that is known.
    """
    return read_head(model, source)[1]


def read_head(model: onnx.ModelProto, source: str) -> Tuple[List[str], ModelCard]:
    """
    Return the names of the outputs that are the head, and the card of a loaded model.

    :raises UserError: as card().
    """
    inputs, outputs = tensors(model)
    found = ModelCard.read(source, metadata(model), inputs, outputs)
    return [outputs[index].name for index in found.head.outputs], found


def tensors(model: onnx.ModelProto) -> Tuple[List[TensorSpec], List[TensorSpec]]:
    """Return the inputs and the outputs, with the sizes that can be inferred."""
    constants = {constant.name for constant in model.graph.initializer}
    inputs = [_spec(value) for value in model.graph.input if value.name not in constants]
    return inputs, [_spec(output) for output in _with_known_shapes(model).graph.output]


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type.elem_type
    dtype = _TYPES.get(_onnx().TensorProto.DataType.Name(kind), 'other')
    return TensorSpec(value.name, dtype, tuple(shape(value)))


def fixed_card(model: onnx.ModelProto, source: str) -> ModelCard:
    """
    Read the card of a model that is to be calibrated or compiled.

    :raises UserError: as card(), and if height or width are dynamic.
    """
    image_input = model.graph.input[0]
    if not all(isinstance(d, int) and d > 0 for d in shape(image_input)[2:]):
        raise UserError(
            f'{source} has an input of dynamic size {shape(image_input)}; export it with a '
            'fixed height and width')
    return card(model, source)


def _with_known_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the sizes of its outputs inferred where the file leaves them open."""
    if all(isinstance(size, int) for output in model.graph.output for size in shape(output)[1:]):
        return model
    inferred = type(model)()
    inferred.CopyFrom(model)
    for output in inferred.graph.output:
        # A name for a size is taken as given: without it the size itself is inferred.
        for dimension in output.type.tensor_type.shape.dim:
            dimension.ClearField('dim_param')
    return _onnx().shape_inference.infer_shapes(inferred, data_prop=True)


def shape(value: onnx.ValueInfoProto) -> List:
    """Return the dimensions of a tensor: an int, or a str where it is dynamic."""
    return [d.dim_value if d.HasField('dim_value') else (one_line(d.dim_param, 30) or '?')
            for d in value.type.tensor_type.shape.dim]


def metadata(model: onnx.ModelProto) -> Dict[str, str]:
    """Return the metadata by key."""
    return {entry.key: entry.value for entry in model.metadata_props}


def set_metadata(model: onnx.ModelProto, values: Mapping[str, str]) -> None:
    """Replace or add metadata; other keys stay."""
    merged = {**metadata(model), **values}
    del model.metadata_props[:]
    for key, value in merged.items():
        model.metadata_props.add(key=key, value=value)


def card_metadata(
    names: Sequence[str], input_size: Tuple[int, int], stride: int = 32,
) -> Dict[str, str]:
    """Write names, stride, imgsz and task the way YOLOv8 exports in the field carry them."""
    return {
        'names': repr(dict(enumerate(names))), 'stride': str(stride), 'task': 'detect',
        'imgsz': repr([input_size[1], input_size[0]])}


def opset(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators that the model is written in."""
    return max((o.version for o in model.opset_import if o.domain in ('', 'ai.onnx')), default=1)


def ir_version(opset_version: int) -> int:
    """Return the IR version that came with an opset."""
    return next((ir for limit, ir in _IR_VERSIONS if opset_version < limit), 11)


def _drop_unused_opsets(model: onnx.ModelProto) -> None:
    """Remove operator domains that no node uses; some parsers refuse unknown ones."""
    used = {node.domain for node in model.graph.node} | {'', 'ai.onnx'}
    kept = [item for item in model.opset_import if item.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def consumers(model: onnx.ModelProto) -> Dict[str, List[onnx.NodeProto]]:
    """Return which nodes read each tensor."""
    readers: Dict[str, List] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def bare_convolutions(model: onnx.ModelProto) -> List[str]:
    """
    Name the convolutions without an activation behind them.

    In YOLOv8 these are the last ones of the head's branches and the DFL. They carry box
    distances and class logits, which eight bits hold badly, so they stay in float.
    Found by structure: SiLU is either x * Sigmoid(x) or one node.
    """
    readers = consumers(model)
    return [node.name for node in model.graph.node
            if node.op_type == 'Conv' and not _activated(node.output[0], readers)]


def _activated(tensor: str, readers: Mapping[str, List]) -> bool:
    kinds = {reader.op_type for reader in readers.get(tensor, ())}
    if kinds & {'Relu', 'LeakyRelu', 'Clip', 'HardSwish', 'Swish', 'QuickGelu', 'Mish'}:
        return True
    return {'Sigmoid', 'Mul'} <= kinds


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every node a name of its own, because quantization refers to nodes by name."""
    taken: Set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f'{node.op_type}_{index}'
        taken.add(node.name)


def initializers(model: onnx.ModelProto) -> Dict[str, onnx.TensorProto]:
    """Return the constants of the graph by name."""
    return {t.name: t for t in model.graph.initializer}


def weight_count(model: onnx.ModelProto) -> int:
    """
    Count the numbers that were trained: weights and biases of the convolutions.

    With batch norm folded in, as exports have it. Dynamic quantization takes the biases
    out of the convolutions, so they are missing from its count.
    """
    constants = initializers(model)
    producers = {out: node for node in model.graph.node for out in node.output}
    seen: Set[str] = set()
    for node in model.graph.node:
        if node.op_type in ('Conv', 'ConvTranspose', 'Gemm', 'MatMul'):
            for name in node.input[1:]:
                seen.add(onnx_graph.origin(name, producers))
        elif node.op_type == 'ConvInteger':
            seen.add(node.input[1])
    return sum(int(np.prod(constants[name].dims)) for name in seen if name in constants)


def _onnx():
    try:
        import onnx
    except ImportError as error:
        raise UserError(
            f'working on ONNX files needs onnx; run "{install_command("onnx")}"') from error
    return onnx
