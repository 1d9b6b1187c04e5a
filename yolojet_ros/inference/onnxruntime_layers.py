"""How long each layer of a model takes in ONNX Runtime, by its own profiling."""

from __future__ import annotations

import json
from pathlib import Path
import tempfile
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from yolojet_ros.core.image_input import ImageInput
from yolojet_ros.inference.onnxruntime_backend import OnnxRuntimeBackend

_NODE, _KERNEL = 'Node', '_kernel_time'


def layer_times(
    model: Path, runs: int = 50, input_size: Optional[Tuple[int, int]] = None,
) -> Dict[str, float]:
    """
    Return the median milliseconds of every layer that is left of a model, in order.

    Layers are those after ONNX Runtime has joined some of them. Measuring takes time, too, so
    that the sum is above the latency.

    :raises UserError: if the model cannot be run.
    """
    with tempfile.TemporaryDirectory(prefix='yolojet-') as folder:
        backend = OnnxRuntimeBackend(
            model, input_size=input_size, profile=str(Path(folder) / 'layers'))
        try:
            width, height = backend.card.input_size
            tensor = np.empty((backend.places, 3, height, width), backend.card.input.dtype)
            tensor[:] = ImageInput(dtype=backend.card.input.dtype).blank[0]
            for _ in range(runs):
                backend.run(tensor)
            events = json.loads(Path(backend.session.end_profiling()).read_text())
        finally:
            backend.close()
    return parse(events)


def parse(events: List[Dict[str, Any]]) -> Dict[str, float]:
    """Return the median milliseconds of each node of ONNX Runtime's trace, in order."""
    times: Dict[str, List[float]] = {}
    for event in events:
        name = event.get('name', '')
        if event.get('cat') == _NODE and name.endswith(_KERNEL):
            times.setdefault(name[:-len(_KERNEL)], []).append(event['dur'] * 1e-3)
    return {name: float(np.median(values)) for name, values in times.items()}
