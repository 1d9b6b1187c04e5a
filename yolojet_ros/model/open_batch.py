"""Let a model that takes one image take any number of them."""

from __future__ import annotations

from typing import List, Set, TYPE_CHECKING

import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.text import one_line
from yolojet_ros.model import onnx_file, onnx_graph

if TYPE_CHECKING:
    import onnx

_NAME = 'batch'
# Another number of images may be summed up in another order: of a score, and of a value itself.
_TOLERANCE = 1e-3


def open_batch(model: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """
    Return `model`, whose batch is fixed to 1, with an open one.

    Exporters write the 1 into the shapes of inputs, outputs and reshapes, and nowhere else in
    most detectors. Whether that was all is tried where ONNX Runtime is installed.

    :param source: file name, for messages
    :raises UserError: if images then get in each other's way, or it does not run.
    """
    from onnx import numpy_helper

    opened = type(model)()
    opened.CopyFrom(model)
    graph = opened.graph
    onnx_graph.hoist_constants(graph)
    constants = onnx_file.initializers(opened)
    inputs = [value for value in graph.input if value.name not in constants]
    for value in (*inputs, *graph.output):
        shape = value.type.tensor_type.shape
        if len(shape.dim) and shape.dim[0].dim_value == 1:
            shape.dim[0].dim_param = _NAME
    del graph.value_info[:]
    depending: Set[str] = {value.name for value in inputs}
    for index, node in enumerate(graph.node):
        if not depending & onnx_graph.reads(node):
            continue
        depending.update(node.output)
        if node.op_type == 'Reshape' and node.input[0] in depending \
                and node.input[1] in constants:
            shape = numpy_helper.to_array(constants[node.input[1]])
            if shape.size and shape[0] == 1 and not (_takes_zero(node) and 0 in shape):
                # Other nodes may read the same constant.
                name = f'{node.input[1]}_open_{index}'
                # With allowzero older runtimes refuse a size that is left open.
                _drop(node, 'allowzero')
                graph.initializer.append(numpy_helper.from_array(
                    np.array([0, *shape[1:]], np.int64), name))
                node.input[1] = name
    onnx_graph.drop_unread_constants(graph)
    _try(model, opened, source)
    return opened


def _takes_zero(node) -> bool:
    """Return whether a Reshape reads 0 as 0, not as the size that is there."""
    return any(item.name == 'allowzero' and item.i for item in node.attribute)


def _drop(node, name: str) -> None:
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


def _try(model, opened, source: str) -> None:
    """:raises UserError: if several images give something else than one after the other."""
    try:
        import onnxruntime
    except ImportError:
        return  # an engine is compared with the model once more when it is built
    width, height = onnx_file.card(model, source).input_size
    image, *others = onnx_file.tensors(model)[0]
    rng = np.random.default_rng(0)
    # A dark and a bright one, so that neither looks like their mean.
    images = rng.uniform(0, 1, (2, 3, height, width)) * np.reshape((0.2, 1), (2, 1, 1, 1))
    images = (images * 255 if image.dtype == 'uint8' else images).astype(image.dtype)

    def run(proto, tensor: np.ndarray) -> List[np.ndarray]:
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), providers=['CPUExecutionProvider'])
        feeds = {other.name: np.array([(width, height)] * len(tensor), np.int64)
                 for other in others}
        return session.run(None, {image.name: tensor, **feeds})

    advice = 'export it with a dynamic batch'
    try:
        together = run(opened, images)
    except Exception as error:  # onnxruntime has no base class of its own
        raise UserError(
            f'{source} has a fixed batch of 1, which is built into it '
            f'({one_line(str(error), 200)}); {advice}') from error
    alone = [run(model, images[index:index + 1]) for index in range(2)]
    for found, first, second in zip(together, *alone):
        wanted = np.concatenate((first, second))
        if found.shape != wanted.shape or not np.allclose(
                found, wanted, rtol=_TOLERANCE, atol=_TOLERANCE):
            raise UserError(
                f'{source} has a fixed batch of 1, and gives something else for two images at '
                f'once than for each of them; {advice}')
