"""Choose and load the backend for a model file."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Optional, Sequence, Tuple, Union

from yolojet_ros.core.engine_card import EngineCard, sha256
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import home_path
from yolojet_ros.inference.backend import Backend
from yolojet_ros.inference.check import checked

BACKENDS = ('auto', 'tensorrt', 'onnxruntime')
ENGINE_SUFFIXES = ('.engine', '.plan', '.trt')


def load_backend(
    model: Union[str, Path], backend: str = 'auto', device: int = 0, depth: int = 1,
    plugins: Sequence[str] = (), threads: int = 0, spinning: bool = False,
    input_size: Optional[Tuple[int, int]] = None,
) -> Backend:
    """
    Load `model` on the backend that suits it, and check that it runs.

    An engine file runs on TensorRT. An ONNX file runs on ONNX Runtime, except
    that an engine of the same name beside it is taken where TensorRT is
    installed, or demanded; by itself only if it was built from this very file
    and can be used here.

    :param model: path of an .onnx or .engine file
    :param backend: 'auto', 'tensorrt' or 'onnxruntime'
    :param device: CUDA device index; with ONNX Runtime 0
    :param depth: frames in flight, 1 or 2; with ONNX Runtime 1
    :param plugins: libraries of the user's own TensorRT plugins (TensorRT only)
    :param threads, spinning: of ONNX Runtime, 0 threads for one a core; with TensorRT 0 and False
    :param input_size: (width, height) for a model that leaves it open; an engine never does
    :raises UserError: if the file cannot be used, with what to do about it.
    """
    path = home_path(model)
    _check(path, backend)
    try:
        return _loaded(path, backend, device, depth, plugins, threads, spinning, input_size)
    except OSError as error:
        raise UserError(f'{error.filename or path} cannot be read ({error.strerror}), or was '
                        'replaced while it was; load it again') from error


def _loaded(
    path: Path, backend: str, device: int, depth: int, plugins: Sequence[str], threads: int,
    spinning: bool, input_size: Optional[Tuple[int, int]],
) -> Backend:
    def load_engine(engine: Path, warning: str) -> Backend:
        from yolojet_ros.inference.tensorrt_backend import TensorRTBackend
        loaded = checked(TensorRTBackend(engine, device=device, depth=depth, plugins=plugins))
        _check_size(loaded, input_size)
        if warning:
            loaded.warn(warning)
        return loaded

    if path.suffix in ENGINE_SUFFIXES:
        _check_for_gpu(path, threads, spinning)
        return load_engine(path, _odd_origin(path))
    engine, obstacle = path.with_suffix('.engine'), ''
    if backend == 'tensorrt':
        _check_for_gpu(engine, threads, spinning)
        return load_engine(engine, _check_origin(engine, path))
    if backend == 'auto' and engine.is_file() and find_spec('tensorrt'):
        _check_for_gpu(engine, threads, spinning)
        try:
            return load_engine(engine, _check_origin(engine, path))
        except UserError as error:
            obstacle = str(error)
    from yolojet_ros.inference.onnxruntime_backend import OnnxRuntimeBackend
    try:
        _check_for_cpu(path, device, depth)
        loaded = checked(OnnxRuntimeBackend(path, threads, spinning, input_size))
    except UserError as error:
        raise UserError(f'{error}; and {obstacle}') if obstacle else error
    if obstacle:
        loaded.warn(f'{path.name} runs on the CPU, because {obstacle}')
    return loaded


def _check(path: Path, backend: str) -> None:
    """Refuse a file and a backend that do not fit."""
    if backend not in BACKENDS:
        raise UserError(f'backend is "{backend}"; it must be one of {", ".join(BACKENDS)}')
    if not path.is_file():
        raise UserError(f'no model file at {path}; set "model" to an .onnx or .engine file')
    if path.suffix not in (*ENGINE_SUFFIXES, '.onnx'):
        raise UserError(
            f'{path.name} ends in "{path.suffix}"; a model file ends in .onnx or .engine')
    if path.suffix in ENGINE_SUFFIXES and backend == 'onnxruntime':
        raise UserError(
            f'{path.name} is a TensorRT engine; ONNX Runtime needs the .onnx file it was '
            'built from')
    engine = path.with_suffix('.engine')
    if path.suffix == '.onnx' and backend == 'tensorrt' and not engine.is_file():
        raise UserError(
            f'TensorRT needs an engine, and there is no {engine.name} beside {path.name}; '
            f'run "yolojet engine build --onnx {path} --out {engine}"')


def _check_for_cpu(path: Path, device: int, depth: int) -> None:
    """Refuse wishes that ONNX Runtime would ignore."""
    for name, value, default, reason in (
            ('device', device, 0, 'works on the CPU'),
            ('pipeline_depth', depth, 1, 'works on one image at a time')):
        if value != default:
            raise UserError(
                f'{name} is {value}, but {path.name} runs on ONNX Runtime, which {reason}; '
                f'set {name} to {default}, or build an engine with '
                f'"yolojet engine build --onnx {path}"')


def _check_for_gpu(engine: Path, threads: int, spinning: bool) -> None:
    """Refuse what would do nothing with TensorRT."""
    if threads or spinning:
        name, value = ('cpu_threads', threads) if threads else ('cpu_spinning', spinning)
        raise UserError(
            f'{name} is {value}, but {engine.name} runs on the GPU with TensorRT; leave it at its '
            'default, or set backend to onnxruntime')


def _check_size(loaded: Backend, wanted: Optional[Tuple[int, int]]) -> None:
    """Close an engine of another input size than is wanted, and refuse it."""
    width, height = loaded.card.input_size
    if wanted is not None and tuple(wanted) != (width, height):
        loaded.close()
        raise UserError(
            f'{loaded.card.source} takes images of {width}x{height} only; input_size asks for '
            f'{wanted[0]}x{wanted[1]}: leave it empty, or build the engine for that size')


def _check_origin(engine: Path, onnx: Path) -> str:
    """
    Return what is to be said of the origin of an engine that runs in the place of `onnx`.

    :raises UserError: if it was built from another model.
    """
    card = EngineCard.load(engine)
    if card is None:
        return (f'whether {engine.name} was built from {onnx.name} is not known, because it has '
                'no .json beside it; "yolojet engine build" writes one')
    card.check_model(engine, onnx, sha256(onnx))
    return ''


def _odd_origin(engine: Path) -> str:
    """Return what is to be said if the model that an engine was built from has changed since."""
    card = EngineCard.load(engine)
    onnx = engine.parent / Path(card.onnx).name if card is not None else engine
    if card is None or not onnx.is_file():
        return ''
    try:
        card.check_model(engine, onnx, sha256(onnx))
    except UserError as error:
        return str(error)
    return ''
