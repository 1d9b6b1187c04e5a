"""Small networks and files that several tests of the model layer share."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
import tempfile

import pytest

from yolojet_ros.model.data import scene_stills

NAMES = ('crate', 'barrel', 'cone', 'ball', 'robot', 'sign', 'pallet')
SIZE = (96, 64)


def trained_model(seed: int = 0):
    """Return a YOLOv8n with random weights and batch-norm statistics that suit them."""
    torch = pytest.importorskip('torch')
    from yolojet_ros.model.checkpoint import TrainedModel
    from yolojet_ros.model.yolov8 import YOLOv8

    # The images are tiny: more threads only wait for each other.
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    network = YOLOv8('n', len(NAMES)).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(4, 3, SIZE[1], SIZE[0]))
        for name, parameter in network.named_parameters():
            if name.endswith('norm.weight'):
                parameter.uniform_(0.5, 1.5)
        for head in network.heads:
            head.classes[-1].bias.uniform_(-3, 1)
    return TrainedModel(network.eval(), NAMES, SIZE, {'training': 'none'})


@lru_cache(maxsize=None)
def exported(opset: int = 17) -> bytes:
    """Return the ONNX file of trained_model() as bytes."""
    pytest.importorskip('torch')
    from yolojet_ros.model.export import export

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'model.onnx')
        export(trained_model(), path, opset=opset)
        return path.read_bytes()


@lru_cache(maxsize=None)
def stills(count: int = 4):
    """Return a few small stills of the scene."""
    return tuple(scene_stills(count, 123, (160, 96)))
