"""`profile`: the time of every layer, of an engine or in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

from yolojet_ros.core.errors import UserError

_RUNS = 50


def measure(model: Path, backend: str, device: int) -> Dict[str, Any]:
    """
    Return `layers` of the report.

    :param backend: what the model ran on
    :raises UserError: if that cannot tell.
    """
    if backend == 'tensorrt':
        from yolojet_ros.engine import inspection, layers
        path = model if model.suffix != '.onnx' else model.with_suffix('.engine')
        with inspection.opened(path, device) as engine:
            times, of = layers.layer_times(engine.session, _RUNS), 'TensorRT, mean'
    else:
        from yolojet_ros.inference.onnxruntime_layers import layer_times
        path, times, of = model, layer_times(model, _RUNS), 'ONNX Runtime, median'
    if not times:
        raise UserError(f'{path.name} tells of no layer; build it with "yolojet engine build"')
    return {'file': path.name, 'of': of, 'runs': _RUNS, 'total_ms': round(sum(times.values()), 4),
            'ms': {name: round(value, 5) for name, value in times.items()}}
