"""A network that gives what a model found on one image, and takes no time for it."""

from __future__ import annotations

from pathlib import Path

from yolojet_ros.core.errors import UserError


def write_idle_network(model: Path, path: Path) -> None:
    """
    Write an ONNX file that answers every image as `model` answers one of the scene.

    :raises UserError: if `model` is no ONNX file of one input, or cannot be run.
    """
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    from yolojet_ros.core.image_formats import ImageView
    from yolojet_ros.core.letterbox import Letterboxer
    from yolojet_ros.inference.onnxruntime_backend import OnnxRuntimeBackend
    from yolojet_ros.model import onnx_file
    from yolojet_ros.sim.scene import Scene

    source = onnx_file.load(model)
    if len(source.graph.input) != 1:
        raise UserError(f'{model.name} has {len(source.graph.input)} inputs; only a model that '
                        'takes nothing but the image can be left out')
    backend = OnnxRuntimeBackend(model)
    try:
        card, outputs = backend.card, [output.name for output in backend.session.get_outputs()]
        view = ImageView.from_bgr(Scene(1280, 720, seed=1).read().image)
        tensor = Letterboxer(card.input_size, card.input)(view)[0]
        image = backend.session.get_inputs()[0].name
        answers = backend.session.run(outputs, {image: np.repeat(tensor, backend.places, 0)})
    finally:
        backend.close()
    # ONNX Runtime computes what is constant beforehand; a reader of the image it must ask.
    first = numpy_helper.from_array(np.zeros(tensor.ndim, np.int64), 'first')
    last = numpy_helper.from_array(np.ones(tensor.ndim, np.int64), 'last')
    nodes = [helper.make_node('Slice', [image, 'first', 'last'], ['pixel']),
             helper.make_node('ReduceMax', ['pixel'], ['value'], keepdims=0)]
    constants = [first, last]
    for name, answer in zip(outputs, answers):
        kind = helper.np_dtype_to_tensor_dtype(answer.dtype)
        zero = numpy_helper.from_array(np.zeros((), answer.dtype), f'{name}_zero')
        constants += [zero, numpy_helper.from_array(answer, f'{name}_answer')]
        nodes += [helper.make_node('Cast', ['value'], [f'{name}_value'], to=kind),
                  helper.make_node('Mul', [f'{name}_value', zero.name], [f'{name}_nothing']),
                  helper.make_node('Add', [f'{name}_answer', f'{name}_nothing'], [name])]
    graph = helper.make_graph(
        nodes, 'idle', [helper.make_tensor_value_info(
            image, helper.np_dtype_to_tensor_dtype(tensor.dtype),
            [backend.places, *tensor.shape[1:]])],
        [helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(answer.dtype), answer.shape)
         for name, answer in zip(outputs, answers)], constants)
    idle = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)],
                             ir_version=onnx_file.ir_version(17))
    onnx_file.set_metadata(idle, onnx_file.metadata(source))
    onnx.save(idle, str(path))
