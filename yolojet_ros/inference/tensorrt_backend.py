"""Run a TensorRT engine with everything around it on the GPU."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import replace
import hashlib
from pathlib import Path
from typing import Deque, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from yolojet_ros.core.card_file import CardFile
from yolojet_ros.core.detections import Detections
from yolojet_ros.core.engine_card import EngineCard
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.filters import FilterParams, Selection
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.core.stage_times import StageTimes
from yolojet_ros.core.tensors import TensorSpec
from yolojet_ros.inference.backend import Backend, BackendError
from yolojet_ros.inference.cuda import kernels, sampling
from yolojet_ros.inference.cuda.device import Device
from yolojet_ros.inference.cuda.frame import Frame, Image, Kernels
from yolojet_ros.inference.cuda.places import Sampler
from yolojet_ros.inference.cuda.sampling import Sampling
from yolojet_ros.inference.tensorrt_network import (
    import_tensorrt, load_plugins, Network, Tensor)

# Geometries whose tables are kept; a camera has one, a changed resolution brings another.
_MAX_GEOMETRIES = 32


class _Slot:
    """A run's buffers, and the times of the images that it is busy with."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.times: Sequence[StageTimes] = ()


class TensorRTBackend(Backend):
    """
    TensorRT on an NVIDIA GPU: copy in, letterbox, network, decoding and NMS as one CUDA graph.

    :param model: path of an engine built by `yolojet engine build`
    :param device: index of the GPU
    :param depth: 1, or 2 to let the copy of the next frame overlap the network of this one
    :param zero_copy: let the letterbox read host memory instead of a copy; None does so where
        GPU and CPU share their memory
    :param plugins: libraries of the user's own TensorRT plugins, which run as part of this process
    :raises UserError: if the engine is missing, broken, or built for another machine.
    :raises BackendError: if the GPU has not enough memory, or failed.
    """

    name = 'tensorrt'

    def __init__(
        self, model: Union[str, Path], device: int = 0, depth: int = 1,
        zero_copy: Optional[bool] = None, plugins: Sequence[str] = (),
    ) -> None:
        super().__init__()
        path = Path(model)
        if depth not in (1, 2):
            raise UserError(f'pipeline depth is {depth}; it must be 1 or 2')
        if not path.is_file():
            raise UserError(
                f'no engine at {path}; build one with "yolojet engine build --onnx MODEL.onnx '
                f'--out {path}"')
        engine_card = EngineCard.load(path)
        trt = import_tensorrt()
        self.device = Device(device)
        self.depth = depth
        self._slots: List[_Slot] = []
        self._free: Deque[_Slot] = deque()
        self._busy: Deque[_Slot] = deque()
        self._samplers: OrderedDict = OrderedDict()  # Sampler by sampling.Key
        self.network: Optional[Network] = None
        try:
            content = path.read_bytes()  # once: what is checked is what is loaded
            if engine_card is not None:
                engine_card.check(path.name, trt.__version__, self.device.name,
                                  self.device.capability, hashlib.sha256(content).hexdigest())
            self._mapped = self.device.integrated if zero_copy is None else zero_copy
            with self.device.current():
                self._load(path, content, engine_card, plugins)
        except BaseException:
            self.close()
            raise
        precision = f' {engine_card.precision}' if engine_card else ''
        self.description = (
            f'TensorRT {trt.__version__}{precision} on {self.device.name}, depth {depth}, '
            f'{self.device_memory >> 20} MiB of GPU memory')

    @property
    def device_memory(self) -> int:
        """Return the bytes of GPU memory in use for buffers and scratch memory."""
        # A dynamic batch works in memory that counts as allocated.
        scratch = self.network.device_memory if self.network and not self.network.dynamic else 0
        return self.device.allocated + scratch * len(self._slots)

    def submit(
        self, views: Sequence[ImageView], selections: Sequence[Selection],
        times: Sequence[StageTimes],
    ) -> None:
        if not self._free:
            raise BackendError(
                f'{len(self._busy)} frames are in flight already; collect one first'
                if self._slots else 'the engine is closed; load it again')
        self.check_number(len(views))
        slot = self._free.popleft()
        try:
            with self.device.current():
                obstacle = slot.frame.start(
                    [self._image(*image) for image in zip(views, selections)], self.extras)
        except BaseException:
            self._free.append(slot)
            raise
        if obstacle is not None:
            self.warn(f'every frame is launched step by step, which takes longer: {obstacle}')
        for image in times:
            image.lap('copy_in')
        slot.times = times
        self._busy.append(slot)

    def collect(self) -> List[Detections]:
        if not self._busy:
            raise BackendError('no frame is in flight; submit one first')
        slot = self._busy.popleft()
        try:
            with self.device.current():
                found = slot.frame.finish()
        finally:
            self._free.append(slot)
        for image in slot.times:
            image.lap('gpu')
        return found

    def look(self, view: ImageView) -> List[np.ndarray]:
        slot = self._free[0]
        self.detect(view, FilterParams().resolve(self.card.names), StageTimes())
        outputs = [np.empty(head.shape[1:], head.dtype) for head in self.heads]
        with self.device.current():
            for output, buffer in zip(outputs, slot.frame.outputs):
                self.device.copy_out(output, buffer)
            slot.frame.forget()
            if not self._busy:
                self._forget_geometries()
        return outputs

    def prepare(self, views: Sequence[ImageView], selection: Selection) -> Frame:
        """Run images and return where they ran; the steps can then be measured."""
        slot = self._free[0]
        self.submit(views, [selection] * len(views), [StageTimes() for _ in views])
        self.collect()
        return slot.frame

    def close(self) -> None:
        network, self.network = self.network, None
        try:
            with self.device.current():
                self.free_slots()
                if network is not None:
                    network.close()
        except BackendError:
            pass  # closed before, or the device is lost: nothing is left to free
        self.device.close()

    def free_slots(self) -> None:
        """Free what frames need, and leave the engine loaded; the device must be current."""
        self._busy.clear()
        self._free.clear()
        slots, self._slots = self._slots, []
        for slot in slots:
            slot.frame.close()
        self._forget_geometries()

    def _forget_geometries(self) -> None:
        samplers, self._samplers = self._samplers, OrderedDict()
        for sampler in samplers.values():
            sampler.close()

    def _load(
        self, path: Path, content: bytes, engine_card: Optional[EngineCard],
        plugins: Sequence[str],
    ) -> None:
        # A card comes with the engine, from whomever: what it names is not loaded.
        if engine_card is not None and engine_card.plugins and not plugins:
            raise UserError(
                f'{path.name} needs the plugin libraries {", ".join(engine_card.plugins)}; they '
                'run as part of this process, so name those that you trust: the parameter '
                '"plugins" of the node, --plugin of the commands')
        load_plugins(plugins)
        self.network = network = Network(
            content, path.name, engine_card is not None and engine_card.shared_profile)
        metadata = {**(engine_card.metadata if engine_card else {}), **CardFile.metadata(path)}
        self.heads, self.card = read_card(network, metadata)
        self.min_batch, self.max_batch = network.batch_range()
        self.places = self.min_batch
        binary = kernels.cubin(self.device.capability, self.warn)
        functions = Kernels(self.device, binary, self.card)
        for number in range(self.depth):
            slot = _Slot(Frame(
                self.device, network, self.heads, self.card, (self.min_batch, self.max_batch),
                functions, self._mapped, (number, self.depth)))
            self._slots.append(slot)
            self._free.append(slot)

    def _image(self, view: ImageView, selection: Selection) -> Image:
        """Bring the view into a form that the kernel reads, and look up how to sample it."""
        key = sampling.key(view)
        sampler = self._samplers.get(key)
        plan = None if sampler is None else sampler.sampling
        if plan is None or view.data.size != plan.total_rows * plan.step:
            view = sampling.for_kernel(view)
            key = sampling.key(view)
            sampler = self._samplers.get(key)
        if sampler is None:
            sampler = Sampler(self.device, Sampling.plan(
                view, self.card.input_size, self.card.input))
            # Those of images in work are among the latest.
            most = max(_MAX_GEOMETRIES, (self.depth + 1) * self.max_batch)
            while len(self._samplers) >= most:
                self._samplers.popitem(last=False)[1].close()
            self._samplers[key] = sampler
        else:
            self._samplers.move_to_end(key)
        return Image(view, sampler, selection)


def read_card(
    network: Network, metadata: Mapping[str, str],
) -> Tuple[List[Tensor], ModelCard]:
    """
    Return the outputs that are the head, and the model card.

    :param metadata: of the ONNX file; empty if it is not known
    :raises UserError: if it has no head that is known.
    """
    def specs(tensors: Sequence[Tensor]) -> List[TensorSpec]:
        return [TensorSpec(item.name, item.dtype.name, item.shape) for item in tensors]

    card = ModelCard.read(
        network.source, metadata, specs(network.inputs), specs(network.outputs))
    heads = [network.outputs[index] for index in card.head.outputs]
    for head in heads:
        if min(head.shape[1:]) <= 0 or card.head.head.batch is not None:
            raise UserError(
                f'{network.source} gives an output of shape {list(head.shape)}, which is as '
                'large as each image makes it; a GPU buffer has a fixed size: export the model '
                'with a fixed number of rows')
    return heads, replace(card, batch=network.batch_range()[1])
