"""What is inside an engine: its layers, their precisions and formats, their times."""

from __future__ import annotations

from dataclasses import asdict, dataclass
import json
import re
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.inference.tensorrt_network import Network
from yolojet_ros.inference.tensorrt_session import Session

_TYPES = {
    'fp32': 'fp32', 'float': 'fp32', 'fp16': 'fp16', 'half': 'fp16', 'bf16': 'bf16',
    'int8': 'int8', 'fp8': 'fp8', 'int32': 'int32', 'int64': 'int64', 'bool': 'bool',
    'uint8': 'uint8'}
_TYPE = re.compile(r'\b(' + '|'.join(_TYPES) + r')\b', re.IGNORECASE)
_WEIGHTED = ('conv', 'gemm', 'matrix', 'fullyconnected')


@dataclass(frozen=True)
class Layer:
    """
    One layer of an engine.

    precision: of its input data, '' where TensorRT does not tell
    formats: of its outputs, in TensorRT's words
    """

    name: str
    kind: str
    precision: str
    output_precision: str
    formats: Tuple[str, ...]
    tactic: str


def inspect(network: Network) -> List[Layer]:
    """
    Return the layers of an engine.

    Only engines built with detailed profiling verbosity, as ours are, tell more than names.
    """
    inspector = network.engine.create_engine_inspector()
    text = inspector.get_engine_information(network.trt.LayerInformationFormat.JSON)
    return parse(text)


def parse(text: str) -> List[Layer]:
    """
    Read the JSON of trt.EngineInspector.

    :raises UserError: if it is not that.
    """
    try:
        entries = json.loads(text, strict=False)['Layers']  # kernel names hold control characters
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'TensorRT describes this engine in no known form ({error}); build it with '
            '"yolojet engine build"') from error
    return [_layer(entry) for entry in entries]


def _layer(entry: Any) -> Layer:
    if not isinstance(entry, dict):  # names only
        return Layer(str(entry), '', '', '', (), '')
    inputs, outputs = entry.get('Inputs') or [], entry.get('Outputs') or []
    return Layer(
        name=entry.get('Name', ''), kind=entry.get('LayerType', ''),
        precision=_precision(inputs), output_precision=_precision(outputs),
        formats=tuple(item.get('Format/Datatype', '') for item in outputs),
        tactic=str(entry.get('TacticName', entry.get('TacticValue', ''))))


def _precision(tensors: Sequence[Dict[str, Any]]) -> str:
    for tensor in tensors:
        match = _TYPE.search(tensor.get('Format/Datatype', ''))
        if match:
            return _TYPES[match.group().lower()]
    return ''


def other_precision(layers: Sequence[Layer], precision: str) -> List[str]:
    """Return the layers with weights that do not run in the asked precision."""
    return [f'{layer.name} ({layer.precision})' for layer in layers
            if any(word in layer.kind.lower() for word in _WEIGHTED)
            and layer.precision and layer.precision != precision]


def summary(layers: Sequence[Layer]) -> Dict[str, int]:
    """Return how many layers run in each precision."""
    counts: Dict[str, int] = {}
    for layer in layers:
        key = layer.precision or 'unknown'
        counts[key] = counts.get(key, 0) + 1
    return counts


def table(layers: Sequence[Layer]) -> str:
    """Return the layers as text, one a line."""
    rows = [('precision', 'output', 'type', 'layer')] + [
        (layer.precision, layer.output_precision, layer.kind, layer.name) for layer in layers]
    widths = [min(max(len(row[i]) for row in rows), 24) for i in range(3)]
    return '\n'.join(
        '  '.join(cell.ljust(width) for cell, width in zip(row, widths)) + '  ' + row[3]
        for row in rows)


def as_dicts(layers: Sequence[Layer]) -> List[Dict[str, Any]]:
    """Return the layers for JSON."""
    return [asdict(layer) for layer in layers]


def layer_times(session: Session, runs: int = 50) -> Dict[str, float]:
    """
    Return the mean milliseconds of every layer, in order.

    TensorRT waits after every layer while it profiles, so the sum is above the latency.
    """
    trt = session.network.trt

    class Profiler(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times: Dict[str, List[float]] = {}

        def report_layer_time(self, layer_name, ms) -> None:
            self.times.setdefault(layer_name, []).append(ms)

    profiler = Profiler()
    for _ in range(5):
        session.execution.enqueue(session.stream.handle)
    session.stream.synchronize()
    session.execution.profile(profiler)
    for _ in range(runs):
        session.execution.enqueue(session.stream.handle)
        session.stream.synchronize()
    return {name: float(np.mean(values)) for name, values in profiler.times.items()}


def times_table(times: Dict[str, float], top: int = 0) -> str:
    """Return the times as text, slowest first; top = 0 for all."""
    total = sum(times.values()) or 1.0
    ranked = sorted(times.items(), key=lambda item: -item[1])[:top or None]
    lines = [f'{"ms":>9}  {"share":>6}  layer']
    lines += [f'{ms:9.4f}  {100 * ms / total:5.1f}%  {name}' for name, ms in ranked]
    return '\n'.join(lines + [f'{total:9.4f}  100.0%  all {len(times)} layers'])


def times_chart(times: Dict[str, float], title: str, top: int = 25) -> np.ndarray:
    """Return a bar chart of the slowest layers, uint8 BGR [H, W, 3]."""
    import cv2
    ranked = sorted(times.items(), key=lambda item: -item[1])[:top]
    row, left, width = 22, 430, 980
    image = np.full((60 + row * len(ranked), width, 3), 255, np.uint8)
    font, black = cv2.FONT_HERSHEY_SIMPLEX, (40, 40, 40)
    cv2.putText(image, title[:110], (10, 26), font, 0.5, black, 1, cv2.LINE_AA)
    scale = (width - left - 90) / max(max(times.values(), default=1.0), 1e-9)
    for index, (name, ms) in enumerate(ranked):
        y = 48 + index * row
        text = name if len(name) <= 58 else name[:28] + '..' + name[-28:]
        cv2.putText(image, text, (10, y + 13), font, 0.36, black, 1, cv2.LINE_AA)
        end = left + max(int(ms * scale), 1)
        cv2.rectangle(image, (left, y + 2), (end, y + row - 5), (180, 110, 40), -1)
        cv2.putText(image, f'{ms:.4f} ms', (end + 6, y + 13), font, 0.36, black, 1, cv2.LINE_AA)
    return image
