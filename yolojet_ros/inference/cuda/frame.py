"""The GPU work of one run, for one or several images, in one slot."""

from __future__ import annotations

from collections import OrderedDict
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from yolojet_ros.core.decode import classify, keypoints_of
from yolojet_ros.core.detections import Detections
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.filters import MAX_BOXES, Selection
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.masks import LabelImage
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.core.nms import MAX_CANDIDATES
from yolojet_ros.inference.backend import BackendError
from yolojet_ros.inference.cuda import head_struct, kernels
from yolojet_ros.inference.cuda.device import Buffer, Device
from yolojet_ros.inference.cuda.graph import Graph
from yolojet_ros.inference.cuda.places import Room, Sampler, Tables
from yolojet_ros.inference.cuda.sampling import Sampling
from yolojet_ros.inference.tensorrt_network import Execution, Network, Tensor

_LETTERBOX_BLOCK = (32, 8, 1)
_DECODE_BLOCK = (32, 8, 1)
_DECODE_LABELLED_BLOCK = (128, 1, 1)
_GATHER_BLOCK = (64, 1, 1)
_PAINT_BLOCK = (32, 8, 1)
_RANK_THREADS = 256
_SUPPRESS_THREADS = 256
# Blocks and threads that look for overlaps of boxes, enough for a large GPU.
_OVERLAP_GRID, _OVERLAP_THREADS = 256, 128
# Numbers of images that a slot has contexts for at once, each with graphs of its own.
_MAX_SIZES = 8
_SUFFIX = {'float32': 'f32', 'float16': 'f16', 'uint8': 'u8', 'int8': 'i8'}


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
        self.rank = module.get_function('rank_candidates').prepare('PPPiPP')
        self.overlap_upright = module.get_function('overlap_upright').prepare('PPPP')
        self.overlap_rotated = module.get_function('overlap_rotated').prepare('PPPPP')
        self.suppress = module.get_function('suppress').prepare('PPPPPiPP')
        self.gather = module.get_function('gather').prepare('PPP')
        self.paint = module.get_function('paint_masks').prepare('PPPPiiP')


class Image(NamedTuple):
    """One image of a run: its encoding is one that the kernel reads."""

    view: ImageView
    sampler: Sampler
    selection: Selection


class _Sized:
    """A context that is set to one number of images, and the graphs recorded of it."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.graphs: Dict[bool, Optional[Graph]] = {}  # by whether it computes extras

    def forget(self) -> None:
        """Free the graphs, which are good only for the size that the context has."""
        for graph in self.graphs.values():
            if graph is not None:
                graph.close()
        self.graphs.clear()

    def close(self) -> None:
        """Free everything; safe to call twice."""
        self.forget()
        self.execution.close()


class Frame:
    """
    One slot: a stream, execution contexts and all buffers of a run.

    Everything but the copy of the images and the painting of masks is one CUDA graph for each
    number of images: what differs from image to image lies in tables.

    :param device: current
    :param network: the engine
    :param heads: its outputs that are decoded, in the order of the card's reading
    :param card: what the model says of itself
    :param batch: (least, most) images that a run computes
    :param mapped: let the kernel read host memory in place
    :param slots: (number of this slot, how many there are)
    """

    def __init__(
        self, device: Device, network: Network, heads: Sequence[Tensor], card: ModelCard,
        batch: Tuple[int, int], functions: Kernels, mapped: bool = False,
        slots: Tuple[int, int] = (0, 1),
    ) -> None:
        self.device = device
        self.stream = device.stream()
        self._card = card
        self._functions: Optional[Kernels] = functions
        self._network: Optional[Network] = network
        self._least, self._most = batch
        self._slots = slots
        self._sizes: OrderedDict = OrderedDict()  # number of images: _Sized
        self._buffers: List[Buffer] = []
        self._rooms = [Room(device, mapped) for _ in range(self._most)]
        self._tables: Optional[Tables] = None
        self._contexts: List[_Sized] = []
        self._samplings: List[Sampling] = []  # of the images in work
        self._extras = False
        self._scratch: Optional[Buffer] = None
        self.rows = max(card.head.rows, 1)
        try:
            self._prepare_network(network)
            self.input = self.addresses[network.inputs[0].name]
            self.outputs = [self.addresses[head.name] for head in heads]
            self._prepare_head(heads)
            self._prepare_results(heads, self._most)
        except BaseException:
            self.close()
            raise

    def _prepare_network(self, network: Network) -> None:
        if network.dynamic:  # the contexts of all sizes work in the same memory
            self._scratch = self._allocate(network.device_memory)
        self._sizes[self._most] = self._new_context()
        execution = self._sizes[self._most].execution
        execution.set_batch(self._most)
        self.addresses: Dict[str, Buffer] = {}
        for tensor in network.tensors:
            self.addresses[tensor.name] = self._allocate(execution.nbytes(tensor))
        self._bind(execution)
        for tensor in network.inputs[1:]:
            # Boxes are asked for in pixels of the input, whatever the image.
            self.device.copy_in(self.addresses[tensor.name], np.array(
                [self._card.input_size] * self._most, tensor.dtype))

    def _new_context(self) -> _Sized:
        scratch = None if self._scratch is None else self._scratch.pointer
        self._contexts.append(_Sized(self._network.create_execution(
            self.stream.handle, scratch, self._slots)))
        return self._contexts[-1]

    def _bind(self, execution: Execution) -> None:
        for tensor in self._network.tensors:
            execution.bind(tensor, self.addresses[tensor.name].pointer)

    def _sized(self, images: int) -> _Sized:
        """
        Return a context for so many images.

        Each number has its own: what a context keeps in GPU memory may depend on its shapes,
        so that only graphs recorded since it has them are good. Where the engine has no
        profile for another context, the one that was used least recently changes its size.
        """
        found = self._sizes.pop(images, None)
        if found is None:
            found = self._spare()
            found.execution.set_batch(images)
        self._sizes[images] = found
        return found

    def _spare(self) -> _Sized:
        idle = [size for size, sized in self._sizes.items() if not sized.graphs]
        if not idle and len(self._sizes) < _MAX_SIZES:
            try:
                context = self._new_context()
                self._bind(context.execution)
                return context
            except UserError:
                pass  # no profile is left
        found = self._sizes.pop(idle[0] if idle else next(iter(self._sizes)))
        found.forget()
        return found

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
        # A bit for each pair of candidates.
        self.overlaps = None if self._card.head.final else self._allocate(
            MAX_CANDIDATES * MAX_CANDIDATES // 8 * batch)
        reading = self._card.head
        columns = 4 + reading.extras if reading.extras and not reading.masks else 0
        self.gathered = self._pinned_or_none((batch, MAX_BOXES, columns), np.float32)
        # A classifier's scores are its result.
        classes = reading.classes if self._card.task == 'classify' else 0
        self.scores = self._pinned_or_none((batch, classes), heads[0].dtype)
        self._tables = Tables(self.device, batch, len(self._card.names))
        self.device.clear(self.tallies, kernels.TALLY.itemsize * batch)

    def start(self, images: Sequence[Image], extras: bool) -> Optional[str]:
        """
        Take the bytes of the images and enqueue all work on them.

        :param extras: compute keypoints and masks
        :returns: why it runs step by step, or None.
        """
        self.bring(images, extras)
        number = max(len(images), self._least)
        sized = self._sized(number)
        obstacle = None
        if extras not in sized.graphs:
            obstacle = self._record(sized, number)
        graph = sized.graphs[extras]
        if graph is not None:
            graph.launch()
        else:
            self._enqueue(sized, number)
        self.enqueue_paint()
        return obstacle

    def bring(self, images: Sequence[Image], extras: bool) -> None:
        """Take the bytes of the images, and tell the kernels of each."""
        self._samplings, self._extras = [image.sampler.sampling for image in images], extras
        described = [
            (image.sampler, room.take(image.view, image.sampler.sampling, self.stream),
             image.selection) for image, room in zip(images, self._rooms)]
        # An engine of a fixed batch runs whole: the first image fills the places left over.
        described += described[:1] * (self._least - len(described))
        self._tables.fill(described, self.stream)

    def _record(self, sized: _Sized, images: int) -> Optional[str]:
        """
        Record the work on so many images as a CUDA graph; return why it cannot be, or None.

        It runs once first, because TensorRT prepares itself in the first run of a shape.
        """
        self._enqueue(sized, images)
        self.stream.synchronize()
        try:
            sized.graphs[self._extras] = Graph(
                self.stream.handle, lambda: self._enqueue(sized, images))
        except BackendError as error:
            # Engines with data-dependent shapes synchronize inside: they run without a graph.
            sized.graphs[self._extras] = None
            return str(error)
        return None

    def _enqueue(self, sized: _Sized, images: int) -> None:
        """Enqueue letterbox, network, decode and NMS, and what the task gathers."""
        self.enqueue_letterbox(images)
        sized.execution.enqueue(self.stream.handle)
        if self.scores is not None:
            self.device.copy_out(self.scores.array, self.outputs[0], self.stream)
            return
        self.enqueue_decode(images)
        self.enqueue_gather(images)

    def enqueue_letterbox(self, images: int) -> None:
        """Enqueue the letterbox of all images."""
        width, height = self._card.input_size
        grid = (blocks(width, _LETTERBOX_BLOCK[0]), blocks(height, _LETTERBOX_BLOCK[1]), images)
        self._functions.letterbox.prepared_async_call(
            grid, _LETTERBOX_BLOCK, self.stream, self._tables.sources, self.takes.pointer,
            self.input.pointer, width, height)

    def enqueue_network(self, images: int) -> None:
        """Enqueue the engine."""
        self._sized(images).execution.enqueue(self.stream.handle)

    def enqueue_decode(self, images: int) -> None:
        """Enqueue decoding and NMS of all images."""
        functions, tables = self._functions, self._tables
        common = (self.tallies.pointer, self.keys.pointer, self.candidates.pointer)
        block = _DECODE_BLOCK if self._card.head.head.label is None else _DECODE_LABELLED_BLOCK
        functions.decode.prepared_async_call(
            (blocks(self.rows, block[0]), images, 1), block, self.stream, self.head.pointer,
            tables.geometries, tables.selections, *common)
        final, rotated = self.overlaps is None, self._card.task == 'obb'
        overlaps = 0 if final else self.overlaps.pointer
        functions.rank.prepared_async_call(
            (blocks(self.rows, _RANK_THREADS), images, 1), (_RANK_THREADS, 1, 1), self.stream,
            *common, self.rows, self.sorted.pointer, overlaps if rotated else 0)
        grid, threads = (_OVERLAP_GRID, images, 1), (_OVERLAP_THREADS, 1, 1)
        found = (self.tallies.pointer, self.sorted.pointer, tables.selections, overlaps)
        if rotated and not final:
            functions.overlap_rotated.prepared_async_call(
                grid, threads, self.stream, self.head.pointer, *found)
        elif not final:
            functions.overlap_upright.prepared_async_call(grid, threads, self.stream, *found)
        functions.suppress.prepared_async_call(
            (images, 1, 1), (_SUPPRESS_THREADS, 1, 1), self.stream, overlaps,
            self.tallies.pointer, self.sorted.pointer, tables.selections, tables.geometries,
            int(final), self.results.pointer, self.kept.pointer)

    def enqueue_gather(self, images: int) -> None:
        """Enqueue angles, and keypoints where they are wanted."""
        if self.gathered is not None and (self._extras or self._card.task == 'obb'):
            self._functions.gather.prepared_async_call(
                (MAX_BOXES, images, 1), _GATHER_BLOCK, self.stream, self.head.pointer,
                self.kept.pointer, self.gathered.pointer)

    def enqueue_paint(self) -> None:
        """Enqueue the masks where they are wanted; how many pixels depends on the images."""
        if not self._paints:
            return
        for index, (sampling, room) in enumerate(zip(self._samplings, self._rooms)):
            width, height = sampling.letterbox.source
            painted, labels = room.painted((height, width))
            self._functions.paint.prepared_async_call(
                (blocks(width, _PAINT_BLOCK[0]), blocks(height, _PAINT_BLOCK[1]), 1),
                _PAINT_BLOCK, self.stream, self.head.pointer, self.kept.pointer,
                self._tables.geometries, self._tables.selections, len(self._card.names), index,
                painted.pointer)
            if painted.array is None:
                self.device.copy_out(labels, painted, self.stream)

    @property
    def _paints(self) -> bool:
        return self._extras and self._card.head.masks > 0

    def finish(self) -> List[Detections]:
        """Wait for the run and return the detections of each image."""
        self.stream.synchronize()
        number = len(self._samplings)
        if self.scores is not None:
            return [classify([scores], self._card.head) for scores in self.scores.array[:number]]
        return [self._detections(index) for index in range(number)]

    def _detections(self, index: int) -> Detections:
        result = self.results.array[index]
        count = int(result['count'])
        letterbox = self._samplings[index].letterbox
        gathered = None if self.gathered is None else self.gathered.array[index, :count]
        rotated = keypoints = masks = None
        if self._card.task == 'obb':
            rotated = letterbox.inverse_rotated(gathered.copy())
        elif self._card.task == 'pose' and self._extras:
            keypoints = keypoints_of(gathered[:, 4:], self._card.head, letterbox)
        elif self._paints:
            labels = self._rooms[index].painted(letterbox.source[::-1])[1]
            masks = LabelImage(labels.copy(), count)
        return Detections(
            result['boxes'][:count].copy(), result['scores'][:count].copy(),
            result['labels'][:count].copy(), broken=int(result['broken']), rotated=rotated,
            keypoints=keypoints, masks=masks)

    def forget(self) -> None:
        """Free what is kept for the next run of the same kind: graphs and rooms."""
        for sized in self._contexts:
            sized.forget()
        for room in self._rooms:
            room.close()
        if self._tables is not None:
            self._tables.forget()

    def close(self) -> None:
        """Free everything; safe to call twice."""
        self.forget()
        for sized in self._contexts:
            sized.close()
        if self._tables is not None:
            self._tables.close()
        for buffer in self._buffers:
            buffer.free()
        self.stream = self._functions = self._network = None

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
