"""Choose and load the backend for a model file."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Union

from yolojet_ros.core.errors import UserError
from yolojet_ros.inference.backend import Backend

BACKENDS = ('auto', 'tensorrt', 'onnxruntime')
ENGINE_SUFFIXES = ('.engine', '.plan', '.trt')


def load_backend(
    model: Union[str, Path], backend: str = 'auto', device: int = 0, depth: int = 1,
) -> Backend:
    """
    Load `model` on the backend that suits it.

    An engine file runs on TensorRT. An ONNX file runs on ONNX Runtime, except
    that an engine of the same name beside it is taken where TensorRT is
    installed, or demanded.

    :param model: path of an .onnx or .engine file
    :param backend: 'auto', 'tensorrt' or 'onnxruntime'
    :param device: CUDA device index (TensorRT only)
    :param depth: frames in flight, 1 or 2 (TensorRT only)
    :raises UserError: if the file cannot be used, with what to do about it.
    """
    path = Path(model).expanduser()
    if backend not in BACKENDS:
        raise UserError(f'backend is "{backend}"; it must be one of {", ".join(BACKENDS)}')
    if not path.is_file():
        raise UserError(f'no model file at {path}; set "model" to a YOLOv8 .onnx or .engine file')
    is_engine = path.suffix in ENGINE_SUFFIXES
    if not is_engine and path.suffix != '.onnx':
        raise UserError(
            f'{path.name} ends in "{path.suffix}"; a model file ends in .onnx or .engine')
    if is_engine and backend == 'onnxruntime':
        raise UserError(
            f'{path.name} is a TensorRT engine; ONNX Runtime needs the .onnx file it was '
            'built from')
    if not is_engine:
        engine = path.with_suffix('.engine')
        if backend == 'tensorrt' and not engine.is_file():
            raise UserError(
                f'TensorRT needs an engine, and there is no {engine.name} beside {path.name}; '
                f'run "yolojet engine build --onnx {path} --out {engine}"')
        if backend == 'tensorrt' or (
                backend == 'auto' and engine.is_file() and find_spec('tensorrt')):
            path, is_engine = engine, True
    if is_engine:
        from yolojet_ros.inference.tensorrt_backend import TensorRTBackend
        return TensorRTBackend(path, device=device, depth=depth)
    from yolojet_ros.inference.onnxruntime_backend import OnnxRuntimeBackend
    return OnnxRuntimeBackend(path)
