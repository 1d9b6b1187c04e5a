"""The network of a model in PyTorch, as a backend: to hold the others against it."""

from __future__ import annotations

from pathlib import Path
from typing import List

import numpy as np
import torch

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.decode import of_image
from yolojet_ros.inference.backend import HostBackend
from yolojet_ros.model import onnx_file
from yolojet_ros.model.start_weights import read_weights, take_over
from yolojet_ros.model.yolov8 import Detector, Task, VARIANTS, YOLOv8


class TorchBackend(HostBackend):
    """
    YOLOv8 in PyTorch on the CPU, or on a GPU that PyTorch knows, with the weights of an export.

    :param model: .onnx of "yolojet model export", FP32 and not pruned
    :raises UserError: if not every weight of the network is in the file: another network would
        be compared.
    """

    name = 'torch'

    def __init__(self, model: Path) -> None:
        card = onnx_file.fixed_card(onnx_file.load(model), model.name)
        super().__init__(card)
        network = _network(model, card.task, len(card.names))
        self._device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self._detector = Detector(network).eval().to(self._device)
        self.description = f'PyTorch {torch.__version__} on {self._device}'

    def run(self, tensor: np.ndarray) -> List[List[np.ndarray]]:
        with torch.inference_mode():
            found = self._detector(torch.from_numpy(tensor).to(self._device))
        outputs = [item.cpu().numpy() for item in (
            found if isinstance(found, tuple) else (found,))]
        return [of_image(outputs, self.card.head, index) for index in range(len(tensor))]


def _network(model: Path, task: str, classes: int) -> YOLOv8:
    weights = read_weights(model)
    for variant in VARIANTS:
        if task not in ('detect', 'segment', 'obb'):
            break  # how many keypoints there are is not in the weights' names
        network = YOLOv8(variant, classes, Task(task))
        own = {name for name in network.state_dict()
               if name != 'bins' and not name.endswith('num_batches_tracked')}
        if own <= set(weights) and all(
                weights[name].shape == network.state_dict()[name].shape for name in own):
            take_over(network, weights, model)
            return network
    raise UserError(
        f'{model.name} is no unpruned YOLOv8{" or ".join(VARIANTS)} for detect, segment or obb, '
        'exported by "yolojet model export"; PyTorch has no network for it here')
