"""A network that gives what a model found on one image, and takes no time for it."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Tuple

from yolojet_ros.core.errors import UserError


def write_idle_network(
    model: Path, path: Path, input_size: Optional[Tuple[int, int]] = None,
) -> None:
    """
    Write an ONNX file that answers every image as `model` answers one of the scene.

    :param input_size: (width, height) for a model that leaves it open
    :raises UserError: if `model` is no ONNX file of one input, or cannot be run.
    """
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    from yolojet_ros.core.image_formats import ImageView
    from yolojet_ros.core.letterbox import Letterboxer
    from yolojet_ros.inference.load import ENGINE_SUFFIXES
    from yolojet_ros.inference.onnxruntime_backend import OnnxRuntimeBackend
    from yolojet_ros.model import onnx_file, onnx_graph
    from yolojet_ros.sim.scene import Scene

    if model.suffix in ENGINE_SUFFIXES:
        raise UserError(f'{model.name} is an engine; give the .onnx file that it was built from')
    source = onnx_file.load(model)
    backend = OnnxRuntimeBackend(model, input_size=input_size)
    try:
        inputs = [item.name for item in backend.session.get_inputs()]
        if len(inputs) > 1:
            raise UserError(f'{model.name} has {len(inputs)} inputs; only of a model that takes '
                            'nothing but the image the network can be left out')
        view = ImageView.from_bgr(Scene(1280, 720, seed=1).read().image)
        tensor = Letterboxer(backend.card.input_size, backend.card.input)(view)[0]
        outputs = [item.name for item in backend.session.get_outputs()]
        answers = backend.session.run(outputs, {inputs[0]: np.repeat(tensor, backend.places, 0)})
    finally:
        backend.close()
    taken, nodes, constants = {*inputs, *outputs}, [], []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, onnx_graph.free_name(name, taken)))
        return constants[-1].name

    def add(operator: str, *takes: str, gives: str = '', **attributes: int) -> str:
        gives = gives or onnx_graph.free_name(operator, taken)
        nodes.append(helper.make_node(operator, takes, [gives], **attributes))
        return gives

    # ONNX Runtime computes what is constant beforehand; a reader of the image it must ask.
    pixel = add('Slice', inputs[0], constant('first', np.zeros(4, np.int64)),
                constant('last', np.ones(4, np.int64)))
    value = add('ReduceMax', pixel, keepdims=0)
    for name, answer in zip(outputs, answers):
        nothing = add('Mul', add('Cast', value, to=helper.np_dtype_to_tensor_dtype(answer.dtype)),
                      constant('zero', np.zeros((), answer.dtype)))
        add('Add', constant('answer', answer), nothing, gives=name)
    image = next(item for item in source.graph.input if item.name == inputs[0])
    graph = helper.make_graph(nodes, 'idle', [image], source.graph.output, constants)
    idle = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)],
                             ir_version=onnx_file.ir_version(17))
    onnx_file.set_metadata(idle, onnx_file.metadata(source))
    onnx.save(idle, str(path))
