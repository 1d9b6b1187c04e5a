"""Does a model load, and what is it?"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Tuple


class ModelFacts(NamedTuple):
    """Task and classes of a model, and what could not be checked, '' if all was."""

    task: str
    classes: Tuple[str, ...]
    note: str


def load_model(path: Path) -> ModelFacts:
    """
    Load an .onnx file and let it run on two images, as a node does.

    Without ONNX Runtime, as on a robot with TensorRT alone, the file is only read.

    :raises UserError: if it cannot be used.
    """
    if find_spec('onnxruntime') is not None:
        from yolojet_ros.inference.load import load_backend
        backend = load_backend(path, 'onnxruntime')
        backend.close()
        return ModelFacts(backend.card.task, tuple(backend.card.names), '')
    if find_spec('onnx') is not None:
        from yolojet_ros.model import onnx_file
        card = onnx_file.card(onnx_file.load(path), path.name)
        return ModelFacts(card.task, tuple(card.names), (
            f'{path.name} was read, but not run, because ONNX Runtime is not installed'))
    return ModelFacts('', (), (f'{path.name} was not looked into, because neither ONNX Runtime '
                               'nor onnx is installed'))
