"""Run an engine alone, arrays in and arrays out: for verification and measurements."""

from __future__ import annotations

import time
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from yolojet_ros.inference.backend import BackendError
from yolojet_ros.inference.cuda.device import Buffer, Device
from yolojet_ros.inference.cuda.graph import Graph
from yolojet_ros.inference.tensorrt_network import Execution, Network, Tensor


class Session:
    """
    One execution context with buffers for every tensor; its device must be current.

    :param heads: the outputs that are read back
    :raises UserError: if the engine cannot run in as many contexts at once.
    :raises BackendError: if there is too little memory.

    obstacle: why runs are measured without a CUDA graph; None while nothing hinders one
    """

    def __init__(self, device: Device, network: Network, heads: Sequence[Tensor]) -> None:
        self._device = device
        self.network = network
        self.heads = list(heads)
        self.obstacle: Optional[str] = None
        self.batch = network.batch_range()[1]
        self.stream = device.stream()
        self.execution: Optional[Execution] = None
        self._buffers: Dict[str, Buffer] = {}
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        self.execution = self.network.create_execution(self.stream.handle)
        self.execution.set_batch(self.batch)
        for tensor in self.network.tensors:
            buffer = self._device.allocate(self.execution.nbytes(tensor))
            self._buffers[tensor.name] = buffer
            self.execution.bind(tensor, buffer.pointer)
        for tensor in self.network.inputs[1:]:
            height, width = self.network.inputs[0].shape[2:]
            self._device.copy_in(self._buffers[tensor.name], np.array(
                [(width, height)] * self.batch, tensor.dtype))

    def run_all(self, images: np.ndarray) -> List[np.ndarray]:
        """Return the outputs of the head, [n, ...] each, for images [n, 3, H, W]."""
        entry = self.network.inputs[0]
        outputs = [np.empty((self.batch, *head.shape[1:]), head.dtype) for head in self.heads]
        found: List[List[np.ndarray]] = [[] for _ in self.heads]
        for start in range(0, len(images), self.batch):
            part = images[start:start + self.batch]
            # A fixed batch that is not full repeats its last image.
            full = part[np.minimum(np.arange(self.batch), len(part) - 1)]
            self._device.copy_in(self._buffers[entry.name],
                                 np.ascontiguousarray(full, entry.dtype))
            self.execution.enqueue(self.stream.handle)
            self.stream.synchronize()
            for parts, output, head in zip(found, outputs, self.heads):
                self._device.copy_out(output, self._buffers[head.name])
                # NumPy compares halves slowly.
                kind = np.float32 if output.dtype == np.float16 else output.dtype
                parts.append(output[:len(part)].astype(kind))
        return [np.concatenate(parts) for parts in found]

    def latency_ms(self, runs: int = 200) -> Dict[str, float]:
        """Return median and p99 of one run, as launched by the runtime (CUDA graph)."""
        for _ in range(10):
            self.execution.enqueue(self.stream.handle)
        self.stream.synchronize()
        launch, close = self._launcher()
        times = []
        try:
            for _ in range(runs):
                start = time.perf_counter()
                launch()
                self.stream.synchronize()
                times.append((time.perf_counter() - start) * 1e3)
        finally:
            close()
        return {'median': round(float(np.median(times)), 4),
                'p99': round(float(np.percentile(times, 99)), 4)}

    def _launcher(self) -> Tuple[Callable[[], None], Callable[[], None]]:
        """Return what starts a run, and what frees it: a graph where the engine allows it."""
        def enqueue() -> None:
            self.execution.enqueue(self.stream.handle)
        try:
            graph = Graph(self.stream.handle, enqueue)
        except BackendError as error:  # it synchronizes inside, for shapes that depend on the data
            self.obstacle = str(error)
            return enqueue, lambda: None
        return graph.launch, graph.close

    def close(self) -> None:
        """Free the buffers and the context; safe to call twice."""
        if self.execution is not None:
            self.execution.close()
        for buffer in self._buffers.values():
            buffer.free()
        self.stream = None
