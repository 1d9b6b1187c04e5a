"""The GPU work of one frame (or one batch of frames) in one slot."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from yolojet_ros.core.detections import Detections
from yolojet_ros.core.filters import Selection
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.model_card import HeadLayout, ModelCard
from yolojet_ros.core.nms import MAX_CANDIDATES
from yolojet_ros.inference.backend import BackendError
from yolojet_ros.inference.cuda import kernels
from yolojet_ros.inference.cuda.device import Buffer, Device
from yolojet_ros.inference.cuda.graph import Graph
from yolojet_ros.inference.cuda.sampling import Sampling
from yolojet_ros.inference.tensorrt_network import Execution, Network, Tensor

_LETTERBOX_BLOCK = (32, 8, 1)
_DECODE_BLOCK = (32, 8, 1)
_DECODE_FINAL_BLOCK = (128, 1, 1)
_RANK_THREADS = 256
_SUPPRESS_THREADS = 512
_SUFFIX = {np.dtype(np.float32): 'f32', np.dtype(np.float16): 'f16'}


def blocks(size: int, block: int) -> int:
    """Return how many blocks cover `size`."""
    return -(-size // block)


class Kernels:
    """The loaded kernels for one engine's types."""

    def __init__(self, device: Device, binary: bytes, image: np.dtype, head: np.dtype) -> None:
        module = device.module(binary)
        self.letterbox = module.get_function(f'letterbox_{_SUFFIX[image]}').prepare('PPii')
        self.decode = module.get_function(f'decode_{_SUFFIX[head]}').prepare('PPPiiiiPPP')
        self.decode_final = module.get_function(
            f'decode_final_{_SUFFIX[head]}').prepare('PPPiiPPP')
        self.rank = module.get_function('rank_candidates').prepare('PPPiP')
        self.suppress = module.get_function('suppress').prepare('PPPPiP')


class Recording:
    """
    Memory for images of certain geometries, and the CUDA graph for them, in one slot.

    Where GPU and CPU share their memory, the kernel reads the staged rows in place. Elsewhere
    an image that is needed whole goes to the GPU straight from the message: the driver's own
    staging beats a copy of ours by the time of one transfer. Of other images only the used rows
    are staged, and the graph begins with their copy.
    """

    def __init__(self, device: Device, samplings: Sequence[Sampling], mapped: bool) -> None:
        self.samplings = samplings
        self.graph: Optional[Graph] = None
        self._device = device
        self.staging: List[Optional[Buffer]] = [
            device.pinned(sampling.staged_shape, np.uint8)
            if mapped or sampling.used_rows is not None else None for sampling in samplings]
        self.images = self.staging if mapped else [
            device.allocate(sampling.staged_bytes) for sampling in samplings]
        self.mapped = mapped
        self._tables: List[Buffer] = []
        sources = np.zeros(len(samplings), kernels.SOURCE)
        for index, sampling in enumerate(samplings):
            columns, rows = device.upload(sampling.columns), device.upload(sampling.rows)
            self._tables += [columns, rows]
            sources[index] = sampling.describe(
                self.images[index].pointer, columns.pointer, rows.pointer)
        self.sources = device.upload(sources)
        self.geometries = device.upload(np.array([s.geometry() for s in samplings]))
        self._tables += [self.sources, self.geometries]

    def bring(self, views: Sequence[ImageView], stream) -> None:
        """Take the bytes of the images; they may be reused when this returns."""
        for view, sampling, staging, image in zip(
                views, self.samplings, self.staging, self.images):
            if staging is not None:
                sampling.stage(view.data, staging.array)
            else:
                self._device.copy_in(image, view.data[:sampling.staged_bytes], stream)

    def enqueue_copy(self, stream) -> None:
        """Enqueue the copy of the staged rows to the GPU."""
        if not self.mapped:
            for staging, image in zip(self.staging, self.images):
                if staging is not None:
                    self._device.copy_in(image, staging.array, stream)

    def close(self) -> None:
        """Free everything; safe to call twice."""
        if self.graph is not None:
            self.graph.close()
            self.graph = None
        for buffer in (*self._tables, *self.images, *self.staging):
            if buffer is not None:
                buffer.free()


class Frame:
    """
    One slot: a stream, an execution context and all buffers of a frame.

    :param device: current
    :param network: the engine
    :param head: its output that is decoded
    :param card: what the model says of itself
    :param batch: images it can take
    """

    def __init__(
        self, device: Device, network: Network, head: Tensor, card: ModelCard, batch: int,
        functions: Kernels,
    ) -> None:
        self.device = device
        self.stream = device.stream()
        self._card = card
        self._functions: Optional[Kernels] = functions
        self._execution: Optional[Execution] = None
        self._buffers: List[Buffer] = []
        self._selection: Optional[Selection] = None
        self.rows = int(head.shape[2] if card.layout is HeadLayout.RAW else head.shape[1])
        try:
            self._prepare_network(network, batch)
            self._prepare_results(batch)
        except BaseException:
            self.close()
            raise
        self.input = self.addresses[network.inputs[0].name]
        self.output = self.addresses[head.name]

    def _prepare_network(self, network: Network, batch: int) -> None:
        self._execution = network.create_execution(self.stream.handle)
        self._execution.set_batch(batch)
        self.addresses: Dict[str, Buffer] = {}
        for tensor in network.tensors:
            self.addresses[tensor.name] = self._allocate(self._execution.nbytes(tensor))
            self._execution.bind(tensor, self.addresses[tensor.name].pointer)

    def _prepare_results(self, batch: int) -> None:
        self.tallies = self._allocate(kernels.TALLY.itemsize * batch)
        self.keys = self._allocate(8 * batch * self.rows)
        self.candidates = self._allocate(kernels.CANDIDATE_BYTES * batch * self.rows)
        self.sorted = self._allocate(kernels.CANDIDATE_BYTES * batch * MAX_CANDIDATES)
        # The GPU writes the few boxes straight into host memory: no copy to wait for.
        self.results = self._pinned(batch, kernels.RESULT)
        dtype = kernels.selection_dtype(len(self._card.names))
        self._host_selection = self._pinned(1, dtype)
        self.selection_buffer = self._allocate(dtype.itemsize)
        self.device.clear(self.tallies, kernels.TALLY.itemsize * batch)

    def select(self, selection: Selection) -> None:
        """
        Let the coming frames use `selection`; nothing is recorded again.

        Pass the same object as long as nothing changes: another one is uploaded.
        """
        if selection is self._selection:
            return
        self.stream.synchronize()  # the pinned struct may still be on its way
        kernels.fill_selection(self._host_selection.array[0], selection)
        self.device.copy_in(self.selection_buffer, self._host_selection.array, self.stream)
        self._selection = selection

    def record(self, recording: Recording) -> Optional[str]:
        """
        Record the frame's work as a CUDA graph; return why it cannot be, or None.

        It runs once first, because TensorRT prepares itself in the first run of a shape.
        """
        self._execution.set_batch(len(recording.samplings))
        self.enqueue(recording)
        self.stream.synchronize()
        try:
            recording.graph = Graph(self.stream.handle, lambda: self.enqueue(recording))
        except BackendError as error:
            # Engines with data-dependent shapes synchronize inside: they run without a graph.
            return str(error)
        return None

    def start(self, recording: Recording, views: Sequence[ImageView]) -> None:
        """Take the bytes of the images and enqueue all work on them."""
        recording.bring(views, self.stream)
        if recording.graph is not None:
            recording.graph.launch()
        else:
            self._execution.set_batch(len(recording.samplings))
            self.enqueue(recording)

    def enqueue(self, recording: Recording) -> None:
        """Enqueue copy in, letterbox, network, decode and NMS."""
        recording.enqueue_copy(self.stream)
        self.enqueue_letterbox(recording)
        self.enqueue_network()
        self.enqueue_decode(recording)

    def enqueue_letterbox(self, recording: Recording) -> None:
        """Enqueue the letterbox of all images."""
        width, height = self._card.input_size
        grid = (blocks(width, _LETTERBOX_BLOCK[0]), blocks(height, _LETTERBOX_BLOCK[1]),
                len(recording.samplings))
        self._functions.letterbox.prepared_async_call(
            grid, _LETTERBOX_BLOCK, self.stream, recording.sources.pointer, self.input.pointer,
            width, height)

    def enqueue_network(self) -> None:
        """Enqueue the engine."""
        self._execution.enqueue(self.stream.handle)

    def enqueue_decode(self, recording: Recording) -> None:
        """Enqueue decoding and NMS of all images."""
        functions, images = self._functions, len(recording.samplings)
        common = (self.tallies.pointer, self.keys.pointer, self.candidates.pointer)
        head = (self.output.pointer, recording.geometries.pointer, self.selection_buffer.pointer,
                len(self._card.names), self.rows)
        if self._card.layout is HeadLayout.NMS:
            functions.decode_final.prepared_async_call(
                (blocks(self.rows, _DECODE_FINAL_BLOCK[0]), images, 1), _DECODE_FINAL_BLOCK,
                self.stream, *head, *common)
        else:
            functions.decode.prepared_async_call(
                (blocks(self.rows, _DECODE_BLOCK[0]), images, 1), _DECODE_BLOCK, self.stream,
                *head, *self._strides(), *common)
        functions.rank.prepared_async_call(
            (blocks(self.rows, _RANK_THREADS), images, 1), (_RANK_THREADS, 1, 1), self.stream,
            *common, self.rows, self.sorted.pointer)
        functions.suppress.prepared_async_call(
            (images, 1, 1), (_SUPPRESS_THREADS, 1, 1), self.stream, self.tallies.pointer,
            self.sorted.pointer, self.selection_buffer.pointer, recording.geometries.pointer,
            int(self._card.layout.final), self.results.pointer)

    def finish(self, images: int) -> List[Detections]:
        """Wait for the frame and return the detections of each image."""
        self.stream.synchronize()
        found = []
        for result in self.results.array[:images]:
            count = int(result['count'])
            found.append(Detections(
                result['boxes'][:count].copy(), result['scores'][:count].copy(),
                result['labels'][:count].copy(), broken=int(result['broken'])))
        return found

    def close(self) -> None:
        """Free everything; safe to call twice."""
        if self._execution is not None:
            self._execution.close()
        for buffer in self._buffers:
            buffer.free()
        self.stream = self._functions = None

    def _strides(self) -> Tuple[int, int]:
        """Return the distance of two rows, and of two anchor points, in the output."""
        if self._card.layout is HeadLayout.RAW:
            return self.rows, 1
        return 1, 4 + len(self._card.names)

    def _allocate(self, nbytes: int) -> Buffer:
        self._buffers.append(self.device.allocate(nbytes))
        return self._buffers[-1]

    def _pinned(self, count: int, dtype: np.dtype) -> Buffer:
        self._buffers.append(self.device.pinned(count, dtype))
        return self._buffers[-1]
