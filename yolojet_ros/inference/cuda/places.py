"""The images of a run: their bytes, and what the kernels must know of each of them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Dict, List, Sequence, Tuple

import numpy as np

from yolojet_ros.core.filters import Selection
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.inference.cuda import kernels
from yolojet_ros.inference.cuda.device import Buffer, Device
from yolojet_ros.inference.cuda.sampling import Sampling


class Sampler:
    """A sampling whose tables lie in GPU memory; one serves all images of a geometry."""

    def __init__(self, device: Device, sampling: Sampling) -> None:
        self.sampling = sampling
        self._tables: List[Buffer] = []
        try:
            for table in (sampling.columns, sampling.rows):
                self._tables.append(device.upload(table))
        except BaseException:
            self.close()
            raise

    def source(self, data: int) -> np.ndarray:
        """Return the kernel's struct Source of an image whose bytes lie at a device address."""
        return self.sampling.describe(data, *(table.pointer for table in self._tables))

    def close(self) -> None:
        """Free the tables; safe to call twice."""
        for table in self._tables:
            table.free()


class Room:
    """
    Memory for one image of a run, as large as the largest it has held.

    Where GPU and CPU share their memory, the kernel reads the staged rows in place. Elsewhere
    an image that is needed whole goes to the GPU straight from the message: the driver's own
    staging beats a copy of ours by the time of one transfer. Of other images only the used rows
    are staged and copied.
    """

    def __init__(self, device: Device, mapped: bool) -> None:
        self._device = device
        self._mapped = mapped
        self._held: Dict[str, Tuple[int, Buffer]] = {}

    def take(self, view: ImageView, sampling: Sampling, stream) -> int:
        """Bring the bytes of an image, which may be reused then; return their device address."""
        nbytes = sampling.staged_bytes
        if self._mapped or sampling.used_rows is not None:
            staging = self._buffer('staging', nbytes, pinned=True)
            staged = staging.array[:nbytes]
            sampling.stage(view.data, staged.reshape(sampling.staged_shape))
            if self._mapped:
                return staging.pointer
        else:
            staged = view.data[:nbytes]
        image = self._buffer('image', nbytes)
        self._device.copy_in(image, staged, stream)
        return image.pointer

    def painted(self, shape: Tuple[int, int]) -> Tuple[Buffer, np.ndarray]:
        """
        Return where masks of an image of (height, width) are painted, and where the host reads.

        :returns: GPU memory, and uint16[height, width], which is the same memory where it is
            shared.
        """
        nbytes = 2 * shape[0] * shape[1]
        labels = self._buffer('labels', nbytes, pinned=True)
        found = labels.array[:nbytes].view(np.uint16).reshape(shape)
        return (labels if self._mapped else self._buffer('painted', nbytes)), found

    def close(self) -> None:
        """Free everything; the room can be used again."""
        held, self._held = self._held, {}
        for _, buffer in held.values():
            buffer.free()

    def _buffer(self, name: str, nbytes: int, pinned: bool = False) -> Buffer:
        size, buffer = self._held.get(name, (0, None))
        if buffer is None or size < nbytes:
            if buffer is not None:
                self._held.pop(name)[1].free()
            buffer = self._device.pinned(nbytes, np.uint8) if pinned \
                else self._device.allocate(nbytes)
            self._held[name] = nbytes, buffer
        return buffer


class Selections:
    """
    The wishes of the latest images in GPU memory; one that is there already is not uploaded.

    Pass the same object as long as nothing changes: another one is taken for new.

    :param count: how many are kept, at least as many as a run has images
    """

    def __init__(self, device: Device, count: int, classes: int) -> None:
        self._device = device
        dtype = kernels.selection_dtype(classes)
        self._host = device.pinned(count, dtype)
        self._buffer = device.allocate(count * dtype.itemsize)
        # The object is kept, so that its id stays its own.
        self._known: OrderedDict = OrderedDict()  # id: (selection, index)

    def address(self, selection: Selection, stream) -> int:
        """Return where a selection lies; the oldest one makes room for a new one."""
        array = self._host.array
        if id(selection) in self._known:
            self._known.move_to_end(id(selection))
            index = self._known[id(selection)][1]
        else:
            full = len(self._known) == len(array)
            index = self._known.popitem(last=False)[1][1] if full else len(self._known)
            self._known[id(selection)] = selection, index
            stream.synchronize()  # the pinned struct may still be on its way
            kernels.fill_selection(array[index], selection)
            self._device.copy_in(
                self._buffer, array[index:index + 1], stream, index * array.itemsize)
        return self._buffer.pointer + index * array.itemsize

    def close(self) -> None:
        """Free the memory; safe to call twice."""
        self._host.free()
        self._buffer.free()


class Tables:
    """
    What the kernels read of each image of a run; uploaded only where it changes.

    A graph knows the addresses of these tables, not those of the images: so it serves images of
    any geometry.

    sources, geometries, selections: device addresses of arrays with an entry for each image
    """

    def __init__(self, device: Device, batch: int, classes: int) -> None:
        self._device = device
        dtype = np.dtype([('sources', kernels.SOURCE, (batch,)),
                          ('geometries', kernels.GEOMETRY, (batch,)),
                          ('selections', 'u8', (batch,))])
        self._known_selections = Selections(device, max(2 * batch, 8), classes)
        self._host = device.pinned(1, dtype)
        self._buffer = device.allocate(dtype.itemsize)
        self.sources, self.geometries, self.selections = (
            self._buffer.pointer + dtype.fields[name][1]
            for name in ('sources', 'geometries', 'selections'))
        self._filled: List[Tuple[Sampler, int, int]] = []

    def fill(self, images: Sequence[Tuple[Sampler, int, Selection]], stream) -> None:
        """Describe each image by its sampler, the address of its bytes, and its selection."""
        wanted = [(sampler, data, self._known_selections.address(selection, stream))
                  for sampler, data, selection in images]
        if wanted == self._filled:
            return
        stream.synchronize()  # the pinned table may still be on its way
        table = self._host.array[0]
        for index, (sampler, data, selection) in enumerate(wanted):
            table['sources'][index] = sampler.source(data)
            table['geometries'][index] = sampler.sampling.geometry()
            table['selections'][index] = selection
        self._device.copy_in(self._buffer, self._host.array, stream)
        self._filled = wanted

    def forget(self) -> None:
        """Let the next run fill the tables anew: images or samplers were freed."""
        self._filled = []

    def close(self) -> None:
        """Free the memory; safe to call twice."""
        self._known_selections.close()
        self._host.free()
        self._buffer.free()
