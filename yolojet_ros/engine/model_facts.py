"""What an ONNX file carries that decides how it can be built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Union

from yolojet_ros.core.engine_card import sha256
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.model import onnx_file

_FLOAT16 = 10


@dataclass(frozen=True)
class ModelFacts:
    """
    An ONNX detector.

    quantized: whether it carries Q/DQ pairs
    half: whether its weights are FP16
    """

    card: ModelCard
    metadata: Dict[str, str]
    sha256: str
    nbytes: int
    quantized: bool
    half: bool


def read(path: Union[str, Path]) -> ModelFacts:
    """
    Read the facts of an ONNX file.

    :raises UserError: if it is missing, broken or not a YOLOv8 detector.
    """
    path = Path(path)
    model = onnx_file.load(path)
    return ModelFacts(
        card=onnx_file.fixed_card(model, path.name),
        metadata=onnx_file.metadata(model),
        sha256=sha256(path),
        nbytes=path.stat().st_size,
        quantized=any(node.op_type == 'QuantizeLinear' for node in model.graph.node),
        half=any(tensor.data_type == _FLOAT16 for tensor in model.graph.initializer
                 if len(tensor.dims) == 4))
