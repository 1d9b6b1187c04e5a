"""FP32, FP16 and INT8 beside each other: what each costs at several numbers of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from yolojet_ros.engine import benchmark, inspection, layers

PRECISIONS = ('fp32', 'fp16', 'int8')


@dataclass(frozen=True)
class Row:
    """
    One engine.

    ms: median of one run of `batch` images, as a CUDA graph
    images_per_second: of runs back to back
    engine_bytes: of the file; scratch_bytes: of GPU memory that one context works in
    layers: that TensorRT made of the network
    layer_ms: time of each, measured one by one
    """

    precision: str
    batch: int
    ms: float
    images_per_second: float
    engine_bytes: int
    scratch_bytes: int
    layers: int
    layer_ms: Dict[str, float]

    def line(self) -> str:
        """Return the row in Markdown."""
        return (
            f'| {self.batch} | {self.precision.upper()} | {self.ms:.3f} ms '
            f'| {self.images_per_second:,.0f} | {self.engine_bytes / 1e6:.1f} MB '
            f'| {self.scratch_bytes / 1e6:.1f} MB | {self.layers} |')


def measure(engine: Path, precision: str, batch: int, runs: int, device: int = 0) -> Row:
    """Measure an engine alone, with as many images as it takes at most."""
    with inspection.opened(engine, device) as opened:
        alone = benchmark.engine_alone(opened.session, runs)
        return Row(
            precision, batch, alone['median'], batch * alone['per_second'],
            engine.stat().st_size, opened.network.device_memory,
            len(layers.inspect(opened.network)), layers.layer_times(opened.session))


def table(rows: Sequence[Row]) -> str:
    """Return the rows as Markdown, those of the same batch together."""
    lines = ['| batch | precision | a run | images/s | engine | GPU scratch memory | layers |',
             '|---|---|---|---|---|---|---|']
    ordered = sorted(rows, key=lambda row: (row.batch, PRECISIONS.index(row.precision)))
    return '\n'.join([*lines, *(row.line() for row in ordered)])


def int8_gains(rows: Sequence[Row]) -> List[Tuple[int, float, float]]:
    """Return (batch, time, images/s) of INT8 for each batch, as multiples of FP16's."""
    found = {(row.precision, row.batch): row for row in rows}
    pairs = [(row, found.get(('fp16', row.batch))) for row in rows if row.precision == 'int8']
    return [(row.batch, row.ms / half.ms, row.images_per_second / half.images_per_second)
            for row, half in pairs if half is not None]
