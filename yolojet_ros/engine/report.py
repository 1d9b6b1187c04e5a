"""All that is known of an engine as a Markdown file, with a chart beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Sequence, Union

from yolojet_ros.core.compressed_images import write_image
from yolojet_ros.core.engine_card import EngineCard
from yolojet_ros.core.files import atomic_path
from yolojet_ros.engine import layers
from yolojet_ros.engine.inspection import OpenEngine
from yolojet_ros.engine.layers import Layer

_TOP_LAYERS = 30


def headline(engine: Union[str, Path], card: EngineCard) -> str:
    """Return what a finished build says."""
    latency = card.latency_ms
    found = card.verification
    verified = (
        f'not verified ({found["skipped"]})' if 'skipped' in found else
        f'verified on {found["images"]} images (scores {found["score_error"]:.5f}, boxes '
        f'{found["box_error_px"]:.3f} px mean error)')
    text = (
        f'{engine}: {card.precision}, TensorRT {card.tensorrt}, {card.gpu}, built in '
        f'{card.build_seconds:.0f} s, {latency["median"]:.3f} ms a run (p99 '
        f'{latency["p99"]:.3f}), {card.device_memory_bytes / 2**20:.1f} MiB of scratch memory, '
        f'{verified}')
    if card.other_precision:
        text += f'\nlayers with weights in another precision: {len(card.other_precision)}'
        # TensorRT names a fused layer by all its parts; the first is the convolution.
        text += ''.join(f'\n  {name.split(" + ")[0].split(" (")[0]} ({name.rsplit("(", 1)[-1]}'
                        for name in card.other_precision)
    return text


def write(
    path: Union[str, Path], name: Union[str, Path], engine: OpenEngine, found: Sequence[Layer],
    times: Dict[str, float],
) -> None:
    """Write the report, and the chart of the slowest layers as .png beside it."""
    path = Path(path)
    chart = path.with_suffix('.png')
    write_image(chart, layers.times_chart(times, Path(name).name))
    lines = [f'# {Path(name).name}', '']
    lines += _card_lines(engine.card) if engine.card is not None else [
        'No .json lies beside this engine, so its origin is not known.', '']
    counts = ', '.join(f'{count} {kind}' for kind, count in layers.summary(found).items())
    lines += [
        '## Layers', '',
        f'{len(found)} layers ({counts}), '
        f'{engine.network.device_memory / 2**20:.1f} MiB of scratch memory.', '',
        f'![time per layer]({chart.name})', '', '```', layers.times_table(times, _TOP_LAYERS),
        '```', '', '```', layers.table(found), '```', '']
    with atomic_path(path) as temporary:
        temporary.write_text('\n'.join(lines), encoding='utf-8')


def _card_lines(card: EngineCard) -> List[str]:
    rows = {
        'model': f'{card.onnx} (SHA-256 {card.onnx_sha256[:16]})',
        'classes': card.metadata.get('names', ''),
        'TensorRT': card.tensorrt, 'GPU': f'{card.gpu} ({card.compute_capability})',
        'driver (CUDA)': card.driver, 'Jetson Linux': card.l4t or '-',
        'precision': card.precision, 'profile': card.profile,
        'workspace': f'{card.workspace_bytes / 2**20:.0f} MiB', 'batch': card.batch,
        'calibration data': card.calibration_sha256 or '-',
        'built': f'{card.built_at}, {card.build_seconds:.0f} s',
        'latency': f'{card.latency_ms.get("median")} ms median, '
                   f'{card.latency_ms.get("p99")} ms p99',
        'verification': ', '.join(f'{key} {value}' for key, value in card.verification.items()),
        'other precision': ', '.join(card.other_precision) or '-',
        'rebuild': f'`{card.rebuild_command}`'}
    tensors = [
        f'| {tensor.name} | {"input" if tensor.input else "output"} | {tensor.dtype} | '
        f'{tensor.shape} |' for tensor in card.tensors]
    return ['| | |', '|---|---|', *(f'| {key} | {value} |' for key, value in rows.items()), '',
            '| tensor | | type | shape |', '|---|---|---|---|', *tensors, '']
