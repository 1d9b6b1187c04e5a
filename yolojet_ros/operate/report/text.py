"""A report of `yolojet profile` as tables on a terminal."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

from yolojet_ros.core.text import aligned
from yolojet_ros.operate.report.format import present, shortened, stages, VALUES

_LAYERS = 10


def table(report: Dict[str, Any]) -> str:
    """Return everything but the samples, and what is missing and why."""
    blocks = [_head(report), _stages(report), _results(report), _use(report)]
    if 'layers' in report:
        blocks.append(_layers(report['layers']))
    if 'backends' in report:
        blocks.append(_backends(report['backends']))
    blocks += [f'note: {note}' for note in report['notes']]
    if report['skipped']:
        blocks.append('\n'.join(['not measured:'] + [
            f'  {name}: {why}' for name, why in report['skipped'].items()]))
    return '\n\n'.join(blocks)


def number(value: Optional[float], form: str = '.3f') -> str:
    """Return a figure as text; - of one that is not known."""
    return '-' if value is None else format(value, form)


def _head(report: Dict[str, Any]) -> str:
    machine, model, options = report['machine'], report['model'], report['options']
    width, height = options['size']
    size = 'x'.join(map(str, model['input_size']))
    return (f'{model["file"]} ({model["task"]}, {size}) on {model["description"]}\n'
            f'{machine["name"]}; {machine["cpu"]}, {machine["cores"]} cores; '
            f'images of {width}x{height}, {options["seconds"]:g} s a part')


def _stages(report: Dict[str, Any]) -> str:
    parts = present(report)
    found = {name: {label: (p50, p99) for label, p50, p99 in stages(report[name])}
             for name, _ in parts}
    labels = list(dict.fromkeys(label for name, _ in reversed(parts) for label in found[name]))
    lines = [['stage, ms'] + [text for name, _ in parts for text in (f'{name} p50', 'p99')]]
    for label in labels:
        lines.append([label] + [
            number(value) for name, _ in parts for value in found[name].get(label, (None, None))])
    lines.append(['all, image to result'] + [
        number(report[name]['latency_ms'][key]) for name, _ in parts for key in ('p50', 'p99')])
    text = aligned(lines, 1)
    for stage, value in report['pipeline'].get('gpu_stages_ms', {}).items():
        text += f'\n  on the GPU, median: {stage} {value:.3f}'
    return text


def _results(report: Dict[str, Any]) -> str:
    lines = [f'{name + ":":10} {report[name]["images_per_second"]:.1f} images/s'
             + _energy(report[name]) for name, _ in present(report)]
    node = report.get('node')
    if node:
        image, result = node['transport_ms']['image'], node['transport_ms']['result']
        lines[-1] += (f'; of {node["sent"]} sent {node["results"]} came out, '
                      f'{node["superseded"]} superseded and {node["lost"]} lost with those of '
                      'the warm-up')
        lines.append(f'transport: {number(image)} ms of the image and {number(result)} of its '
                     'result, medians, in the latency of the node')
    control = report.get('control')
    if control:
        p50, p99 = (number(value and 100 * value, '.0f') for value in control['share'].values())
        lines.append(f'control loop of {control["rate"]} Hz: {p50} % of its '
                     f'{control["period_ms"]:g} ms p50, {p99} % p99 ({control["of"]})')
    return '\n'.join(lines)


def _energy(part: Dict[str, Any]) -> str:
    joules = part.get('joules_per_image')
    if not joules:
        return ''
    above = joules.get('above_idle')
    return (f', {joules["all"]:.3f} J an image of the {joules["of"]}'
            + (f' ({above:.3f} above rest)' if above is not None else ''))


def use_rows(report: Dict[str, Any]) -> List[List[str]]:
    """Return the rows of what the machine told: heading, then mean and maximum of each part."""
    parts = [('idle', report['idle'])] + [(name, report[name]['use'])
                                          for name, _ in present(report)]
    rows = [['', ''] + [text for name, _ in parts for text in (f'{name} mean', 'max')]]
    for key, label, unit, factor in VALUES:
        if any(key in use for _, use in parts):
            rows.append([label, unit] + [
                number(use[key][kind] * factor if key in use else None, '.1f')
                for _, use in parts for kind in ('mean', 'max')])
    return rows


def throttling(report: Dict[str, Any]) -> List[str]:
    """Return the reasons of all parts."""
    return list(dict.fromkeys(
        reason for name, _ in present(report)
        for reason in report[name]['use'].get('throttling', ())))


def _use(report: Dict[str, Any]) -> str:
    text = aligned(use_rows(report), 2)
    reasons = throttling(report)
    return text + ('\nthrottled: ' + '; '.join(reasons) if reasons else '')


def _layers(layers: Dict[str, Any]) -> str:
    ranked = sorted(layers['ms'].items(), key=lambda item: -item[1])
    total = layers['total_ms'] or 1.0
    lines = [[number(value), f'{100 * value / total:.1f} %', shortened(name, 70)]
             for name, value in ranked[:_LAYERS]]
    rest = len(ranked) - _LAYERS
    return (f'layers of {layers["file"]}, ms ({layers["of"]} of {layers["runs"]} runs; '
            f'{layers["total_ms"]:.3f} in all)\n' + '\n'.join('  '.join(
                [line[0].rjust(9), line[1].rjust(7), line[2]]) for line in lines)
            + (f'\n          and {rest} more' if rest > 0 else ''))


def _backends(rows: Sequence[Dict[str, Any]]) -> str:
    return '\n'.join(['the same images by each backend, image to boxes:'] + [
        f'  {row["backend"]:12} ' + (f'skipped: {row["skipped"]}' if 'skipped' in row else (
            f'{row["latency_ms"]["p50"]:.3f} ms p50, {row["latency_ms"]["p99"]:.3f} p99'
            + agreement(row))) for row in rows])


def agreement(row: Dict[str, Any]) -> str:
    """Return what a backend sees beside the first, in words."""
    same = row.get('agreement')
    if not same:
        return ''
    return (f'; {same["matched"]} of the {same["expected"]} detections of {same["with"]} seen '
            f'again ({same["found"]} in all), IoU {number(same["iou_mean"], ".4f")} mean, '
            f'{number(same["iou_least"], ".4f")} least, scores within '
            f'{number(same["score_difference"], ".4f")}')
