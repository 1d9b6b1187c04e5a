"""A deserialized TensorRT engine behind one interface, from TensorRT 8.2 to 11."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.installing import install_command
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
            f'(python3-libnvinfer), on a PC from "{install_command("tensorrt")}"; or use an '
            'ONNX model'
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
    :param shared: whether all contexts can use the same optimization profile; from TensorRT 10
        on they always can
    :raises UserError: if TensorRT refuses the engine.
    """

    def __init__(self, plan: bytes, source: str, shared: bool = False) -> None:
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
        self._shared = shared
        self._taken: List[int] = []  # profiles of the contexts
        try:
            self.tensors: List[Tensor] = self._read_tensors()
            self._check_shapes()
        except BaseException:
            self.close()
            raise

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

    @property
    def dynamic(self) -> bool:
        """Return whether the batch may vary from run to run."""
        return self.inputs[0].shape[0] < 0

    def batch_range(self, profile: int = 0) -> Tuple[int, int]:
        """Return how few and how many images one run takes with an optimization profile."""
        tensor = self.inputs[0]
        if not self.dynamic:
            return tensor.shape[0], tensor.shape[0]
        if self.named:
            shapes = self.engine.get_tensor_profile_shape(tensor.name, profile)
        else:
            shapes = self.engine.get_profile_shape(
                profile, profile * len(self.tensors) + tensor.index)
        least, _, most = (int(tuple(shape)[0]) for shape in shapes)
        return least, most

    def create_execution(
        self, stream: int, scratch: Optional[int] = None, slots: Tuple[int, int] = (0, 1),
    ) -> Execution:
        """
        Return a context to run the engine in.

        :param stream: handle of the stream that it will run on
        :param scratch: address of `device_memory` bytes on the GPU, for contexts that never run
            at the same time; None gives it scratch memory of its own
        :param slots: (number of its slot, how many there are): each has a share of the profiles
        :raises UserError: if this engine cannot run in as many contexts at once.
        :raises BackendError: if there is too little memory.
        """
        context = self._create_context(scratch)
        if context is None:
            raise BackendError(
                f'no execution context for {self.source} ({reason(self.logger)}); this is '
                f'mostly a lack of GPU memory, {self.device_memory >> 20} MiB are needed')
        profile = self._profile_for(context, stream, slots)
        self._taken.append(profile)
        return Execution(self, context, profile)

    def release(self, profile: int) -> None:
        """Let another context have the profile of one that was closed."""
        self._taken.remove(profile)

    def close(self) -> None:
        """Free the engine; its executions must be closed before."""
        self.engine = None
        self.runtime = None

    def _create_context(self, scratch: Optional[int]):
        if scratch is None:
            return self.engine.create_execution_context()
        if hasattr(self.trt, 'ExecutionContextAllocationStrategy'):
            context = self.engine.create_execution_context(
                self.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        else:
            context = self.engine.create_execution_context_without_device_memory()
        if context is not None and hasattr(context, 'set_device_memory'):
            context.set_device_memory(scratch, self.device_memory)
        elif context is not None:
            context.device_memory = scratch
        return context

    def _profile_for(self, context, stream: int, slots: Tuple[int, int]) -> int:
        """
        Return the optimization profile of a new context.

        Where contexts share profiles (from TensorRT 10 on, and in 8.6 where the engine was built
        so) all have the first one; elsewhere each context needs its own.
        """
        if not self.dynamic:
            return 0
        if context.active_optimization_profile >= 0:
            return context.active_optimization_profile
        number, count = slots
        alike = [profile for profile in range(self.engine.num_optimization_profiles)
                 if self.batch_range(profile) == self.batch_range()]
        # To ask for one that another context has crashes TensorRT 8.6.
        taken = () if self._shared else self._taken
        for profile in dict.fromkeys((*alike[number::count], 0)):
            if profile not in taken and context.set_optimization_profile_async(profile, stream):
                return profile
        raise UserError(
            f'{self.source} takes a batch of any size by an optimization profile that only one '
            f'frame in flight can use with TensorRT {self.trt.__version__}; set pipeline_depth '
            'to 1, or build it again with "yolojet engine build", which makes enough of them')

    def _check_shapes(self) -> None:
        """
        Refuse tensors whose memory cannot be known before they are there.

        :raises UserError: naming the first.
        """
        for tensor in self.tensors:
            fixed = tensor.shape[1:] if self.dynamic else tensor.shape
            if min(fixed, default=1) < 0:
                raise UserError(self.explain_size(tensor, tensor.shape))

    def explain_size(self, tensor: Tensor, shape: Sequence[int]) -> str:
        """Return why a tensor of unknown size cannot be used."""
        return (
            f'{self.source} has the {"input" if tensor.is_input else "output"} {tensor.name} of '
            f'shape {list(shape)}, where -1 is known only while it runs; build it from a model '
            'with a fixed image size and a fixed number of boxes')

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
            for index in range(engine.num_bindings // engine.num_optimization_profiles)]


class Execution:
    """
    One execution context of a network, with addresses for its tensors.

    :param profile: its optimization profile
    """

    def __init__(self, network: Network, context, profile: int) -> None:
        self._network = network
        self._context: Optional[object] = context
        self._profile = profile
        # Before TensorRT 8.5 every profile has bindings of its own.
        self._first = profile * len(network.tensors)
        self._bindings = [0] * (0 if network.named else network.engine.num_bindings)
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
                accepted = self._context.set_binding_shape(self._first + tensor.index, shape)
            if not accepted:
                raise BackendError(
                    f'{self._network.source} does not take a batch of {batch}: '
                    + reason(self._network.logger))
            self._shapes[tensor.name] = shape

    def nbytes(self, tensor: Tensor) -> int:
        """
        Return the memory that a tensor needs for the batch that was set.

        :raises UserError: if it is known only while the engine runs.
        """
        if self._network.named:
            shape = tuple(self._context.get_tensor_shape(tensor.name))
        else:
            shape = tuple(self._context.get_binding_shape(self._first + tensor.index))
        if min(shape, default=1) < 0:
            raise UserError(self._network.explain_size(tensor, shape))
        return int(np.prod(shape)) * tensor.dtype.itemsize

    def bind(self, tensor: Tensor, pointer: int) -> None:
        """Let `tensor` lie at a device address."""
        if self._network.named:
            self._context.set_tensor_address(tensor.name, pointer)
        else:
            self._bindings[self._first + tensor.index] = pointer

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
        if self._context is not None:
            self._network.release(self._profile)
        self._context = None
