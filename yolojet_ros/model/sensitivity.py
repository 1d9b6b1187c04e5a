"""Find out which layers INT8 costs most: each convolution quantized alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Mapping, Sequence, TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from yolojet_ros.model.quantization import insert_qdq

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class LayerCost:
    """
    What quantizing one convolution alone does to the output.

    score: largest change of a class score of an image, mean over the images
    box: mean change of the box sides in pixels, where an object is seen
    """

    name: str
    score: float
    box: float


def layer_costs(
    model: onnx.ModelProto, nodes: Sequence, inputs: Sequence[np.ndarray],
    thresholds: Mapping[str, float],
) -> List[LayerCost]:
    """
    Measure convolutions of a raw-head model, the costliest first.

    :param nodes: Conv nodes to measure, as quantization.quantizable() returns them.
    :param inputs: a few network inputs float32[1, 3, h, w].
    :param thresholds: as calibration.calibrate() returns them.
    """
    expected = _outputs(model, inputs)
    costs = []
    for node in tqdm(nodes, 'sensitivity', unit='layer'):
        found = _outputs(insert_qdq(model, [node], thresholds), inputs)
        changes = [_change(a, b) for a, b in zip(expected, found)]
        score, box = np.mean(changes, axis=0)
        costs.append(LayerCost(node.name, float(score), float(box)))
    return sorted(costs, key=lambda cost: -(cost.score + cost.box))


def _outputs(model: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> List[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider'])
    name = session.get_inputs()[0].name
    return [session.run(None, {name: tensor})[0][0] for tensor in inputs]


def _change(expected: np.ndarray, found: np.ndarray):
    difference = np.abs(found - expected)
    seen = expected[4:].max(0) > 0.25
    box = difference[:4, seen].mean() if seen.any() else 0.0
    return difference[4:].max(), box
