"""A deserialized TensorRT engine behind one interface, from TensorRT 8.2 to 11."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.inference.backend import BackendError

# trt.nptype of 8.x fails on NumPy >= 1.24, and some names exist only in later versions.
_NUMPY_TYPES = {
    'FLOAT': np.float32, 'HALF': np.float16, 'INT8': np.int8, 'INT32': np.int32,
    'BOOL': np.bool_, 'UINT8': np.uint8, 'INT64': np.int64}


@dataclass(frozen=True)
class Tensor:
    """
    An input or output of an engine.

    index: binding index, for TensorRT before 8.5
    shape: -1 for a dynamic dimension
    """

    name: str
    index: int
    is_input: bool
    dtype: np.dtype
    shape: Tuple[int, ...]


def import_tensorrt():
    """
    Return the tensorrt module.

    :raises UserError: if it is not installed.
    """
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        raise UserError(
            f'TensorRT cannot be imported ({error}); on Jetson it comes with JetPack '
            '(python3-libnvinfer), on a PC "pip install tensorrt"; or use an ONNX model'
        ) from error
    return tensorrt


def load_plugins(paths: Sequence[str]) -> None:
    """
    Load libraries that register users' own TensorRT plugins.

    :raises UserError: if one cannot be loaded.
    """
    for path in paths:
        try:
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise UserError(
                f'the plugin library {path} cannot be loaded ({error}); give the path of a .so '
                'built for this machine and TensorRT version') from error


def numpy_dtype(trt, dtype) -> np.dtype:
    """Return the NumPy type of a trt.DataType."""
    for name, kind in _NUMPY_TYPES.items():
        if hasattr(trt.DataType, name) and getattr(trt.DataType, name) == dtype:
            return np.dtype(kind)
    raise UserError(f'the engine has a tensor of type {dtype}; only plain types can be exchanged')


def make_logger(trt):
    """Return a trt.ILogger that keeps the latest errors in `errors`."""
    error_levels = (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: List[str] = []

        def log(self, severity, message) -> None:
            if severity in error_levels:
                del self.errors[:-20]
                self.errors.append(message)

    return Logger()


def reason(logger) -> str:
    """Return what TensorRT last complained about, as one line."""
    return ' / '.join(text.strip() for text in logger.errors[-3:]) or 'TensorRT gave no reason'


class Network:
    """
    An engine ready to run; needs a current CUDA context for all it does.

    :param plan: the serialized engine
    :param source: file name, for messages
    :raises UserError: if TensorRT refuses the engine.
    """

    def __init__(self, plan: bytes, source: str) -> None:
        self.trt = import_tensorrt()
        self.source = source
        self.logger = make_logger(self.trt)
        self.trt.init_libnvinfer_plugins(self.logger, '')
        self.runtime = self.trt.Runtime(self.logger)
        self.engine = self.runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise UserError(
                f'TensorRT {self.trt.__version__} cannot load {source} ({reason(self.logger)}); '
                'an engine runs only with the TensorRT version and GPU that it was built with: '
                'build it again here with "yolojet engine build"')
        self.named = hasattr(self.engine, 'num_io_tensors')
        self.tensors: List[Tensor] = self._read_tensors()

    @property
    def inputs(self) -> List[Tensor]:
        """Return the input tensors."""
        return [tensor for tensor in self.tensors if tensor.is_input]

    @property
    def outputs(self) -> List[Tensor]:
        """Return the output tensors."""
        return [tensor for tensor in self.tensors if not tensor.is_input]

    @property
    def device_memory(self) -> int:
        """Return the bytes of scratch memory of one execution context."""
        for name in ('device_memory_size_v2', 'device_memory_size'):
            if hasattr(self.engine, name):
                return int(getattr(self.engine, name))
        return 0

    def batch_range(self) -> Tuple[int, int]:
        """Return how few and how many images one run takes."""
        tensor = self.inputs[0]
        if tensor.shape[0] > 0:
            return tensor.shape[0], tensor.shape[0]
        if self.named:
            shapes = self.engine.get_tensor_profile_shape(tensor.name, 0)
        else:
            shapes = self.engine.get_profile_shape(0, tensor.index)
        least, _, most = (int(tuple(shape)[0]) for shape in shapes)
        return least, most

    def create_execution(self) -> Execution:
        """Return a context to run the engine in; each has its own scratch memory."""
        context = self.engine.create_execution_context()
        if context is None:
            raise BackendError(
                f'no execution context for {self.source} ({reason(self.logger)}); this is '
                f'mostly a lack of GPU memory, {self.device_memory >> 20} MiB are needed')
        return Execution(self, context)

    def close(self) -> None:
        """Free the engine; its executions must be closed before."""
        self.engine = None
        self.runtime = None

    def _read_tensors(self) -> List[Tensor]:
        engine, trt = self.engine, self.trt
        if self.named:
            names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
            return [
                Tensor(name, index, engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
                       numpy_dtype(trt, engine.get_tensor_dtype(name)),
                       tuple(engine.get_tensor_shape(name)))
                for index, name in enumerate(names)]
        return [
            Tensor(engine.get_binding_name(index), index, engine.binding_is_input(index),
                   numpy_dtype(trt, engine.get_binding_dtype(index)),
                   tuple(engine.get_binding_shape(index)))
            for index in range(engine.num_bindings)]


class Execution:
    """One execution context of a network, with addresses for its tensors."""

    def __init__(self, network: Network, context) -> None:
        self._network = network
        self._context: Optional[object] = context
        self._bindings = [0] * len(network.tensors)
        self._shapes: Dict[str, Tuple[int, ...]] = {}

    def set_batch(self, batch: int) -> None:
        """Set the batch dimension of every dynamic input."""
        for tensor in self._network.inputs:
            if tensor.shape[0] > 0:
                continue
            shape = (batch, *tensor.shape[1:])
            if self._shapes.get(tensor.name) == shape:
                continue
            if self._network.named:
                accepted = self._context.set_input_shape(tensor.name, shape)
            else:
                accepted = self._context.set_binding_shape(tensor.index, shape)
            if not accepted:
                raise BackendError(
                    f'{self._network.source} does not take a batch of {batch}: '
                    + reason(self._network.logger))
            self._shapes[tensor.name] = shape

    def bind(self, tensor: Tensor, pointer: int) -> None:
        """Let `tensor` lie at a device address."""
        if self._network.named:
            self._context.set_tensor_address(tensor.name, pointer)
        else:
            self._bindings[tensor.index] = pointer

    def enqueue(self, stream: int) -> None:
        """
        Run once, asynchronously on the stream with this handle.

        :raises BackendError: if TensorRT refuses.
        """
        if self._network.named:
            done = self._context.execute_async_v3(stream)
        else:
            done = self._context.execute_async_v2(self._bindings, stream)
        if not done:
            raise BackendError(
                f'TensorRT could not run {self._network.source}: '
                + reason(self._network.logger))

    def profile(self, profiler) -> None:
        """Report the time of every layer of the coming runs to a trt.IProfiler."""
        self._context.profiler = profiler

    def close(self) -> None:
        """Free the context; safe to call twice."""
        self._context = None
