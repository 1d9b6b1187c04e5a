"""The one interface of all backends, and what the CPU backends share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Deque, List, Sequence, Tuple

import numpy as np

from yolojet_ros.core.detections import Detections
from yolojet_ros.core.filters import Selection
from yolojet_ros.core.decode import detect
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.letterbox import Letterbox, Letterboxer
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.core.stage_times import StageTimes


class BackendError(RuntimeError):
    """A loaded backend stopped working (out of memory, lost device, failed enqueue)."""


class Backend(ABC):
    """
    A loaded model that turns images into detections.

    name: 'onnxruntime' or 'tensorrt'
    description: what runs where, one line for diagnostics
    card: what the model says of itself
    file: path of the model, links followed, '' where nobody told
    depth: how many runs may be submitted before one must be collected
    max_batch: most images of one run
    places: images that every run computes, however few are given (a fixed batch)
    blocks: whether `submit` returns only when the network has run
    extras: compute masks and keypoints, where the model has them; may be set between frames
    warnings: what the user should know of how it runs, a sentence each; it may grow while it runs
    """

    name: str
    description: str
    card: ModelCard
    file: str = ''
    depth: int = 1
    max_batch: int = 1
    places: int = 1
    blocks: bool = False
    extras: bool = True

    def __init__(self) -> None:
        self.warnings: List[str] = []

    def warn(self, text: str) -> None:
        """Let the user know `text`, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    @abstractmethod
    def submit(
        self, views: Sequence[ImageView], selections: Sequence[Selection],
        times: Sequence[StageTimes],
    ) -> None:
        """
        Start one run of one or several images.

        :param views: 1 to `max_batch` images of any sizes and encodings; their bytes may be
            reused once this returns
        :param selections: of each image; what an image gives does not depend on the others
        :param times: of each image; gets its laps by the time the run is collected
        :raises ImageError: if an image cannot be used; nothing was submitted then.
        :raises BackendError: if the device failed, or there are too many images.
        """

    @abstractmethod
    def collect(self) -> List[Detections]:
        """
        Return the detections of each image of the oldest submitted run, best score first.

        :raises BackendError: if the device failed.
        """

    def detect(self, view: ImageView, selection: Selection, times: StageTimes) -> Detections:
        """Run one image from its bytes to its detections."""
        self.submit([view], [selection], [times])
        return self.collect()[0]

    def check_number(self, images: int) -> None:
        """:raises BackendError: if one run does not take so many images."""
        if not 0 < images <= self.max_batch:
            raise BackendError(
                f'{images} images for {self.card.source}, which takes 1 to {self.max_batch} in '
                'one run; export or build it for more')

    @abstractmethod
    def look(self, view: ImageView) -> List[np.ndarray]:
        """
        Return the outputs of the head for one image, as core.decode.Table takes them.

        :raises BackendError: if the network does not run.
        """

    @abstractmethod
    def close(self) -> None:
        """Free everything; safe to call twice."""


class HostBackend(Backend):
    """
    A backend whose network runs on the CPU, between the NumPy steps of core.

    A run has as many images as the batch is fixed to. Where it is open they run one at a time: on
    a CPU several at once take as long (YOLOv8n on two cores, an image of four in ONNX Runtime:
    1.05 times as long as alone with 640x640, 0.87 times with 320x192), and each would wait for
    all of them.
    """

    blocks = True

    def __init__(self, card: ModelCard) -> None:
        super().__init__()
        self.card = card
        self.places = self.max_batch = max(card.batch, 1)
        self._letterboxer = Letterboxer(card.input_size, card.input)
        if self.places > 1:
            one = self._letterboxer.tensor
            self._batch = np.empty((self.places, *one.shape[1:]), one.dtype)
        self._done: Deque[List[Detections]] = deque()

    @abstractmethod
    def run(self, tensor: np.ndarray) -> List[List[np.ndarray]]:
        """
        Run the network; return the head's outputs of each image.

        :param tensor: [places, 3, H, W], or [1, 3, H, W] for an image that fills all places
        """

    def submit(
        self, views: Sequence[ImageView], selections: Sequence[Selection],
        times: Sequence[StageTimes],
    ) -> None:
        self.check_number(len(views))
        tensor, letterboxes = self._tensor(views)
        for image in times:
            image.lap('letterbox')
        outputs = self.run(tensor)
        for image in times:
            image.lap('network')
        self._done.append([
            self._detect(*image) for image in zip(outputs, letterboxes, selections, times)])

    def _tensor(self, views: Sequence[ImageView]) -> Tuple[np.ndarray, List[Letterbox]]:
        """Return the input of a run; the first image fills the places left over."""
        if self.places == 1:
            tensor, letterbox = self._letterboxer(views[0])
            return tensor, [letterbox]
        letterboxes = []
        for index, view in enumerate(views):
            tensor, letterbox = self._letterboxer(view)
            self._batch[index] = tensor[0]
            letterboxes.append(letterbox)
        self._batch[len(views):] = self._batch[0]
        return self._batch, letterboxes

    def _detect(
        self, outputs: List[np.ndarray], letterbox: Letterbox, selection: Selection,
        times: StageTimes,
    ) -> Detections:
        try:
            found = detect(outputs, self.card.head, letterbox, selection, self.extras)
        except (IndexError, ValueError) as error:
            shapes = ', '.join(str(list(output.shape)) for output in outputs)
            raise BackendError(
                f'{self.card.source} gave outputs of shapes {shapes} that do not belong together '
                f'({error}); export it with fixed sizes') from error
        times.lap('decode_nms')
        return found

    def collect(self) -> List[Detections]:
        return self._done.popleft()

    def look(self, view: ImageView) -> List[np.ndarray]:
        return self.run(self._tensor([view])[0])[0]

    def close(self) -> None:
        self._done.clear()
