"""The GPU work of one frame (or one batch of frames) in one slot."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence

import numpy as np

from yolojet_ros.core.decode import classify, keypoints_of
from yolojet_ros.core.detections import Detections
from yolojet_ros.core.filters import MAX_BOXES, Selection
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.masks import LabelImage
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.core.nms import MAX_CANDIDATES
from yolojet_ros.inference.backend import BackendError
from yolojet_ros.inference.cuda import head_struct, kernels
from yolojet_ros.inference.cuda.device import Buffer, Device
from yolojet_ros.inference.cuda.graph import Graph
from yolojet_ros.inference.cuda.sampling import Sampling
from yolojet_ros.inference.tensorrt_network import Execution, Network, Tensor

_LETTERBOX_BLOCK = (32, 8, 1)
_DECODE_BLOCK = (32, 8, 1)
_DECODE_LABELLED_BLOCK = (128, 1, 1)
_GATHER_BLOCK = (64, 1, 1)
_PAINT_BLOCK = (32, 8, 1)
_RANK_THREADS = 256
_SUPPRESS_THREADS = 512
# Blocks and threads that look for overlaps of rotated boxes, enough for a large GPU.
_OVERLAP_GRID, _OVERLAP_THREADS = 256, 128
_SUFFIX = {'float32': 'f32', 'float16': 'f16', 'uint8': 'u8'}


def blocks(size: int, block: int) -> int:
    """Return how many blocks cover `size`."""
    return -(-size // block)


class Kernels:
    """The loaded kernels that a model needs."""

    def __init__(self, device: Device, binary: bytes, card: ModelCard) -> None:
        module = device.module(binary)
        suffix = _SUFFIX[card.input.dtype]
        self.letterbox = module.get_function(f'letterbox_{suffix}').prepare('PPPii')
        rows = 'classes' if card.head.head.label is None else 'labelled'
        self.decode = module.get_function(f'decode_{rows}').prepare('PPPPPP')
        self.rank = module.get_function('rank_candidates').prepare('PPPiP')
        self.overlap = module.get_function('overlap_rotated').prepare('PPPPP')
        boxes = 'rotated' if card.task == 'obb' else 'upright'
        self.suppress = module.get_function(f'suppress_{boxes}').prepare('PPPPPiPP')
        self.gather = module.get_function('gather').prepare('PPP')
        self.paint = module.get_function('paint_masks').prepare('PPPPiiP')


class Recording:
    """
    Memory for images of certain geometries, and the CUDA graph for them, in one slot.

    Where GPU and CPU share their memory, the kernel reads the staged rows in place. Elsewhere
    an image that is needed whole goes to the GPU straight from the message: the driver's own
    staging beats a copy of ours by the time of one transfer. Of other images only the used rows
    are staged, and the graph begins with their copy.

    :param extras: whether the frame computes masks and keypoints
    :param masks: whether it has any masks: an image of labels for every image
    """

    def __init__(
        self, device: Device, samplings: Sequence[Sampling], mapped: bool, extras: bool = False,
        masks: bool = False,
    ) -> None:
        self.samplings = samplings
        self.extras = extras
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
        shapes = [sampling.letterbox.source[::-1] for sampling in samplings]
        self.labels: List[Buffer] = [
            device.pinned(shape, np.uint16) for shape in shapes if extras and masks]
        # Where the memory is shared the kernel paints in place.
        self.painted = self.labels if mapped else [
            device.allocate(buffer.array.nbytes) for buffer in self.labels]

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
        for buffer in (*self._tables, *self.images, *self.staging, *self.painted, *self.labels):
            if buffer is not None:
                buffer.free()


class Frame:
    """
    One slot: a stream, an execution context and all buffers of a frame.

    :param device: current
    :param network: the engine
    :param heads: its outputs that are decoded, in the order of the card's reading
    :param card: what the model says of itself
    :param batch: images it can take
    """

    def __init__(
        self, device: Device, network: Network, heads: Sequence[Tensor], card: ModelCard,
        batch: int, functions: Kernels,
    ) -> None:
        self.device = device
        self.stream = device.stream()
        self._card = card
        self._functions: Optional[Kernels] = functions
        self._execution: Optional[Execution] = None
        self._buffers: List[Buffer] = []
        self._selection: Optional[Selection] = None
        self.rows = max(card.head.rows, 1)
        try:
            self._prepare_network(network, batch)
            self.input = self.addresses[network.inputs[0].name]
            self.outputs = [self.addresses[head.name] for head in heads]
            self._prepare_head(heads)
            self._prepare_results(heads, batch)
        except BaseException:
            self.close()
            raise

    def _prepare_network(self, network: Network, batch: int) -> None:
        self._execution = network.create_execution(self.stream.handle)
        self._execution.set_batch(batch)
        self.addresses: Dict[str, Buffer] = {}
        for tensor in network.tensors:
            self.addresses[tensor.name] = self._allocate(self._execution.nbytes(tensor))
            self._execution.bind(tensor, self.addresses[tensor.name].pointer)
        for tensor in network.inputs[1:]:
            # Boxes are asked for in pixels of the input, whatever the image.
            self.device.copy_in(self.addresses[tensor.name], np.array(
                [self._card.input_size] * batch, tensor.dtype))

    def _prepare_head(self, heads: Sequence[Tensor]) -> None:
        self.takes = self._upload(head_struct.takes(self._card))
        self.head = self._upload(head_struct.describe(
            self._card, heads, [buffer.pointer for buffer in self.outputs]))

    def _prepare_results(self, heads: Sequence[Tensor], batch: int) -> None:
        self.tallies = self._allocate(kernels.TALLY.itemsize * batch)
        self.keys = self._allocate(8 * batch * self.rows)
        self.candidates = self._allocate(kernels.CANDIDATE_BYTES * batch * self.rows)
        self.sorted = self._allocate(kernels.CANDIDATE_BYTES * batch * MAX_CANDIDATES)
        # The GPU writes the few boxes straight into host memory: no copy to wait for.
        self.results = self._pinned(batch, kernels.RESULT)
        self.kept = self._allocate(kernels.KEPT.itemsize * batch)
        self.overlaps: Optional[Buffer] = None
        if self._card.task == 'obb' and not self._card.head.final:
            # A bit for each pair of candidates.
            nbytes = MAX_CANDIDATES * MAX_CANDIDATES // 8 * batch
            self.overlaps = self._allocate(nbytes)
            self.device.clear(self.overlaps, nbytes)
        reading = self._card.head
        columns = 4 + reading.extras if reading.extras and not reading.masks else 0
        self.gathered = self._pinned_or_none((batch, MAX_BOXES, columns), np.float32)
        # A classifier's scores are its result.
        classes = reading.classes if self._card.task == 'classify' else 0
        self.scores = self._pinned_or_none((batch, classes), heads[0].dtype)
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
        """Enqueue copy in, letterbox, network, decode and NMS, and what the task adds."""
        recording.enqueue_copy(self.stream)
        self.enqueue_letterbox(recording)
        self.enqueue_network()
        if self.scores is not None:
            self.device.copy_out(self.scores.array, self.outputs[0], self.stream)
            return
        self.enqueue_decode(recording)
        self.enqueue_extras(recording)

    def enqueue_letterbox(self, recording: Recording) -> None:
        """Enqueue the letterbox of all images."""
        width, height = self._card.input_size
        grid = (blocks(width, _LETTERBOX_BLOCK[0]), blocks(height, _LETTERBOX_BLOCK[1]),
                len(recording.samplings))
        self._functions.letterbox.prepared_async_call(
            grid, _LETTERBOX_BLOCK, self.stream, recording.sources.pointer, self.takes.pointer,
            self.input.pointer, width, height)

    def enqueue_network(self) -> None:
        """Enqueue the engine."""
        self._execution.enqueue(self.stream.handle)

    def enqueue_decode(self, recording: Recording) -> None:
        """Enqueue decoding and NMS of all images."""
        functions, images = self._functions, len(recording.samplings)
        common = (self.tallies.pointer, self.keys.pointer, self.candidates.pointer)
        block = _DECODE_BLOCK if self._card.head.head.label is None else _DECODE_LABELLED_BLOCK
        functions.decode.prepared_async_call(
            (blocks(self.rows, block[0]), images, 1), block, self.stream, self.head.pointer,
            recording.geometries.pointer, self.selection_buffer.pointer, *common)
        functions.rank.prepared_async_call(
            (blocks(self.rows, _RANK_THREADS), images, 1), (_RANK_THREADS, 1, 1), self.stream,
            *common, self.rows, self.sorted.pointer)
        overlaps = 0  # no address: nothing asks
        if self.overlaps is not None:
            overlaps = self.overlaps.pointer
            functions.overlap.prepared_async_call(
                (_OVERLAP_GRID, images, 1), (_OVERLAP_THREADS, 1, 1), self.stream,
                self.head.pointer, self.tallies.pointer, self.sorted.pointer,
                self.selection_buffer.pointer, overlaps)
        functions.suppress.prepared_async_call(
            (images, 1, 1), (_SUPPRESS_THREADS, 1, 1), self.stream, overlaps,
            self.tallies.pointer, self.sorted.pointer, self.selection_buffer.pointer,
            recording.geometries.pointer, int(self._card.head.final), self.results.pointer,
            self.kept.pointer)

    def enqueue_extras(self, recording: Recording) -> None:
        """Enqueue angles, keypoints and masks; the latter two only where they are wanted."""
        images = len(recording.samplings)
        if self.gathered is not None and (recording.extras or self._card.task == 'obb'):
            self._functions.gather.prepared_async_call(
                (MAX_BOXES, images, 1), _GATHER_BLOCK, self.stream, self.head.pointer,
                self.kept.pointer, self.gathered.pointer)
        for image, (painted, labels) in enumerate(zip(recording.painted, recording.labels)):
            height, width = labels.array.shape
            self._functions.paint.prepared_async_call(
                (blocks(width, _PAINT_BLOCK[0]), blocks(height, _PAINT_BLOCK[1]), 1),
                _PAINT_BLOCK, self.stream, self.head.pointer, self.kept.pointer,
                recording.geometries.pointer, self.selection_buffer.pointer,
                len(self._card.names), image, painted.pointer)
            if painted is not labels:
                self.device.copy_out(labels.array, painted, self.stream)

    def finish(self, recording: Recording, images: int) -> List[Detections]:
        """Wait for the frame and return the detections of each image."""
        self.stream.synchronize()
        if self.scores is not None:
            return [classify([scores], self._card.head) for scores in self.scores.array[:images]]
        return [self._detections(recording, image) for image in range(images)]

    def _detections(self, recording: Recording, image: int) -> Detections:
        result = self.results.array[image]
        count = int(result['count'])
        letterbox = recording.samplings[image].letterbox
        gathered = None if self.gathered is None else self.gathered.array[image, :count]
        rotated = keypoints = masks = None
        if self._card.task == 'obb':
            rotated = letterbox.inverse_rotated(gathered.copy())
        elif self._card.task == 'pose' and recording.extras:
            keypoints = keypoints_of(gathered[:, 4:], self._card.head, letterbox)
        elif recording.labels:
            masks = LabelImage(recording.labels[image].array.copy(), count)
        return Detections(
            result['boxes'][:count].copy(), result['scores'][:count].copy(),
            result['labels'][:count].copy(), broken=int(result['broken']), rotated=rotated,
            keypoints=keypoints, masks=masks)

    def close(self) -> None:
        """Free everything; safe to call twice."""
        if self._execution is not None:
            self._execution.close()
        for buffer in self._buffers:
            buffer.free()
        self.stream = self._functions = None

    def _allocate(self, nbytes: int) -> Buffer:
        self._buffers.append(self.device.allocate(nbytes))
        return self._buffers[-1]

    def _upload(self, array: np.ndarray) -> Buffer:
        self._buffers.append(self.device.upload(array))
        return self._buffers[-1]

    def _pinned_or_none(self, shape, dtype) -> Optional[Buffer]:
        # There is no memory of no bytes.
        return self._pinned(shape, dtype) if np.prod(shape) else None

    def _pinned(self, shape, dtype) -> Buffer:
        self._buffers.append(self.device.pinned(shape, dtype))
        return self._buffers[-1]
