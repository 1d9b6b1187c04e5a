"""A GPU that is the CPU: the runtime's device and graphs over host memory and host kernels."""

import threading
import time
import types
import weakref

import cuda_on_host
import numpy as np
import trt_standin
from yolojet_ros.inference.cuda import device as device_


class Stream:
    handle = 7

    def synchronize(self):
        pass


class Event:
    """A moment, for the time between two."""

    def record(self, stream):
        self.time = time.perf_counter()

    def synchronize(self):
        pass

    def time_till(self, other):
        return (other.time - self.time) * 1e3


class _CudaError(Exception):
    pass


class _CudaMemoryError(_CudaError):
    pass


class HostDevice(device_.Device):
    """Implements what device.Device offers, without CUDA."""

    library = None
    fail_after = None  # allocations until memory runs out
    left_open = None  # what was not freed when the latest device was closed

    def __init__(self, index=0):
        # Device.current() is the real one.
        self._cuda = types.SimpleNamespace(
            Error=_CudaError, MemoryError=_CudaMemoryError,
            Context=types.SimpleNamespace(pop=lambda: None))
        self._context = types.SimpleNamespace(push=lambda: None, detach=lambda: None)
        self._lock = threading.RLock()
        self._streams = weakref.WeakSet()
        self._before = weakref.WeakSet(trt_standin.living())
        self.index, self.name, self.capability = index, 'Host GPU', (8, 7)
        self.integrated, self.driver_version, self.allocated = False, 12020, 0
        self.multiprocessors = 1
        self.buffers = []

    def memory(self):
        return 4 << 30, 8 << 30

    def _buffer(self, array, nbytes, mapped):
        if HostDevice.fail_after is not None:
            HostDevice.fail_after -= 1
            if HostDevice.fail_after < 0:
                raise _CudaMemoryError('no memory')
        if nbytes > self.memory()[0]:
            raise _CudaMemoryError('no memory')
        self.allocated += nbytes
        memory = types.SimpleNamespace(array=array, free=lambda: None)
        buffer = device_.Buffer(
            self, memory, array.ctypes.data, array if mapped else None, nbytes)
        self.buffers.append(buffer)
        return buffer

    def allocate(self, nbytes):
        real = max(int(nbytes), 1) if nbytes < self.memory()[0] else 1
        return self._buffer(cuda_on_host._aligned(real), nbytes, False)

    def pinned(self, shape, dtype):
        dtype = np.dtype(dtype)
        count = int(np.prod(shape))
        if not count:  # as cuMemHostGetDevicePointer
            raise _CudaError('invalid argument')
        memory = cuda_on_host._aligned(count * dtype.itemsize)
        return self._buffer(memory.view(dtype).reshape(shape), 0, True)

    def upload(self, array):
        buffer = self.allocate(array.nbytes)
        self.copy_in(buffer, array)
        return buffer

    def copy_in(self, target, array, stream=None, offset=0):
        target._memory.array.reshape(-1).view(np.uint8)[offset:offset + array.nbytes] = \
            np.ascontiguousarray(array).reshape(-1).view(np.uint8)

    def copy_out(self, array, source, stream=None):
        array.reshape(-1).view(np.uint8)[:] = \
            source._memory.array.reshape(-1).view(np.uint8)[:array.nbytes]

    def clear(self, target, nbytes):
        target._memory.array[:nbytes] = 0

    def stream(self):
        stream = Stream()
        self._streams.add(stream)
        return stream

    def event(self):
        return Event()

    def module(self, binary):
        self.binary = binary
        return types.SimpleNamespace(get_function=_function)

    def close(self):
        if self._context is not None:
            # What is alive now would be freed without a context.
            HostDevice.left_open = [*self._streams, *(
                item for item in trt_standin.living() if item not in self._before)]
        super().close()


def _function(name):
    """Return a prepared kernel that runs on the host."""
    library = HostDevice.library
    # What a kernel's grid says of how many images there are.
    axis = {'letterbox': 2, 'suppress': 0, 'paint': 2}.get(name.split('_')[0], 1)
    driver = getattr(library, f'host_{name}')

    def call(grid, block, stream, *arguments):
        assert np.prod(block) <= 1024
        driver(*(cuda_on_host.argument(value) for value in arguments),
               grid[axis])

    prepared = types.SimpleNamespace(prepared_async_call=call)
    prepared.prepare = lambda types_: prepared
    return prepared


class HostGraph:
    """Records the work and repeats it at every launch."""

    made = 0

    def __init__(self, stream, work):
        HostGraph.made += 1
        self._work = work

    def launch(self):
        self._work()

    def close(self):
        self._work = None


def install(monkeypatch, library):
    """Let the runtime use the host as its GPU."""
    monkeypatch.setattr(HostDevice, 'library', library)
    monkeypatch.setattr(HostDevice, 'fail_after', None)
    monkeypatch.setattr(HostDevice, 'left_open', None)
    monkeypatch.setattr(HostGraph, 'made', 0)
    for module in ('inference.tensorrt_backend', 'engine.workflow', 'engine.gpu_check'):
        monkeypatch.setattr(f'yolojet_ros.{module}.Device', HostDevice)
    for module in ('inference.cuda.frame', 'inference.tensorrt_session', 'engine.benchmark'):
        monkeypatch.setattr(f'yolojet_ros.{module}.Graph', HostGraph)
    monkeypatch.setattr('yolojet_ros.inference.cuda.kernels.cubin', lambda *_: b'')
