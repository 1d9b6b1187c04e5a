"""One GPU through PyCUDA: the only module that knows PyCUDA."""

from __future__ import annotations

from contextlib import contextmanager
import threading
import traceback
from typing import Iterator, Optional, Tuple

import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.installing import install_command
from yolojet_ros.inference.backend import BackendError

MIB = 1 << 20


class Buffer:
    """
    Device memory; `pointer` is its address on the GPU.

    For mapped memory `array` is the same memory on the host, else None.
    """

    def __init__(self, device: Device, memory, pointer: int, array=None, nbytes: int = 0) -> None:
        self.pointer = pointer
        self.array = array
        self._device = device
        self._memory = memory
        self._nbytes = nbytes

    def free(self) -> None:
        """Give the memory back; safe to call twice."""
        memory, self._memory, self.array = self._memory, None, None
        if memory is not None:
            self._device.allocated -= self._nbytes
            memory.free()


class Device:
    """
    The primary context of one GPU.

    Every use of the GPU happens within `with device.current():`, which makes the context current
    for the calling thread, one thread at a time, and takes it off again: so any thread may call,
    and no context is left on a stack when the process ends.

    name: of the GPU
    capability: (major, minor)
    integrated: whether GPU and CPU share their memory (Jetson)
    allocated: bytes of device memory held through this object

    :param index: of the GPU
    :raises UserError: if there is no usable GPU or no PyCUDA.
    """

    def __init__(self, index: int = 0) -> None:
        self._cuda = _import_driver()
        count = self._cuda.Device.count()
        if not 0 <= index < count:
            raise UserError(f'there is no GPU {index}; this machine has {count}, counted from 0')
        self._device = self._cuda.Device(index)
        self.index = index
        self.name = self._device.name()
        self.capability: Tuple[int, int] = self._device.compute_capability()
        attribute = self._cuda.device_attribute
        self.integrated = bool(self._device.get_attribute(attribute.INTEGRATED))
        self.multiprocessors = self._device.get_attribute(attribute.MULTIPROCESSOR_COUNT)
        self.driver_version: int = self._cuda.get_driver_version()
        self.allocated = 0
        self._lock = threading.RLock()
        try:
            self._context = self._device.retain_primary_context()
        except self._cuda.Error as error:
            raise UserError(
                f'GPU {index} cannot be used by this process any more ({error}); after such an '
                'error CUDA works only in a new process: restart the node') from error

    @contextmanager
    def current(self) -> Iterator[None]:
        """
        Make the context current; CUDA errors within become BackendError.

        An exception that leaves takes nothing with it: what the frames of its traceback refer to
        is freed while there is a context.

        :raises BackendError: if the device failed or was closed.
        """
        with self._lock:
            if self._context is None:
                raise BackendError('the GPU context is closed; load the engine again')
            try:
                self._context.push()
            except self._cuda.Error as error:
                raise BackendError(f'the GPU cannot be used any more: {error}') from error
            try:
                yield
            except self._cuda.MemoryError as error:
                _clear_frames(error)
                raise BackendError(self._explain_memory(error)) from error
            except self._cuda.Error as error:
                _clear_frames(error)
                raise BackendError(f'CUDA failed: {error}') from error
            except BaseException as error:
                _clear_frames(error)
                raise
            finally:
                self._cuda.Context.pop()

    def memory(self) -> Tuple[int, int]:
        """Return (free, total) bytes of device memory."""
        return self._cuda.mem_get_info()

    def allocate(self, nbytes: int) -> Buffer:
        """Return uninitialized device memory."""
        memory = self._cuda.mem_alloc(max(int(nbytes), 1))
        self.allocated += nbytes
        return Buffer(self, memory, int(memory), None, nbytes)

    def pinned(self, shape, dtype) -> Buffer:
        """Return zeroed page-locked host memory that is mapped into the GPU's address space."""
        array = self._cuda.pagelocked_zeros(
            shape, dtype, mem_flags=self._cuda.host_alloc_flags.DEVICEMAP)
        owner = array.base
        return Buffer(self, owner, int(owner.get_device_pointer()), array)

    def upload(self, array: np.ndarray) -> Buffer:
        """Return device memory that holds a copy of `array`."""
        buffer = self.allocate(array.nbytes)
        self._cuda.memcpy_htod(buffer.pointer, np.ascontiguousarray(array))
        return buffer

    def copy_in(self, target: Buffer, array: np.ndarray, stream=None, offset: int = 0) -> None:
        """
        Copy `array` to the GPU.

        With a stream it is in the stream's order: pinned memory must stay as it is until the
        stream is done, other memory is read by the time this returns.
        """
        if stream is None:
            self._cuda.memcpy_htod(target.pointer + offset, array)
        else:
            self._cuda.memcpy_htod_async(target.pointer + offset, array, stream)

    def copy_out(self, array: np.ndarray, source: Buffer, stream=None) -> None:
        """Copy from the GPU into `array`; with a stream asynchronously if it is pinned."""
        if stream is None:
            self._cuda.memcpy_dtoh(array, source.pointer)
        else:
            self._cuda.memcpy_dtoh_async(array, source.pointer, stream)

    def clear(self, target: Buffer, nbytes: int) -> None:
        """Set the first bytes of device memory to zero."""
        self._cuda.memset_d8(target.pointer, 0, nbytes)

    def stream(self):
        """Return a new stream; `handle` is its address."""
        return self._cuda.Stream()

    def event(self):
        """Return a new event for timing."""
        return self._cuda.Event()

    def module(self, binary: bytes):
        """Load compiled kernels."""
        return self._cuda.module_from_buffer(binary)

    def close(self) -> None:
        """Release the context; safe to call twice, and after a failure."""
        with self._lock:
            context, self._context = self._context, None
            if context is None:
                return
            try:
                context.detach()
            except self._cuda.Error:
                pass  # the context is lost: there is nothing left to release

    def _explain_memory(self, error: Exception) -> str:
        try:
            free, total = self.memory()
            left = f'{free // MIB} of {total // MIB} MiB are free'
        except self._cuda.Error:
            left = 'how much is free cannot be read'
        return f'the GPU is out of memory ({left}): {error}'


def _clear_frames(error: Optional[BaseException]) -> None:
    """Drop the local variables of all frames that an exception and its causes came through."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _import_driver():
    try:
        import pycuda.driver as cuda
    except ImportError as error:
        raise UserError(
            f'PyCUDA cannot be imported ({error}); TensorRT engines need an NVIDIA GPU with its '
            f'driver and "{install_command("pycuda")}"; without one use an ONNX model'
        ) from error
    try:
        cuda.init()
    except cuda.Error as error:
        raise UserError(
            f'no NVIDIA GPU can be used ({error}); check the driver with nvidia-smi, in a '
            'container start it with --gpus all (Jetson: --runtime nvidia)') from error
    return cuda
