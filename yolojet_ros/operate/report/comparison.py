"""Two reports of `yolojet profile`: what the second is as a multiple of the first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import read_text
from yolojet_ros.core.text import aligned
from yolojet_ros.operate.report.format import FORMAT

_MOST = 64 << 20  # bytes
_PARTS = ('pipeline', 'node', 'idle', 'control', 'layers')
_NO_FIGURES = ('latencies_ms', 'ms', 'runs', 'rate', 'period_ms', 'sent', 'results', 'images')


def load(path: Path) -> Dict[str, Any]:
    """
    Read the JSON of a report.

    :raises UserError: if it is none.
    """
    try:
        report = json.loads(read_text(path, _MOST))
        if report['format'] != FORMAT:
            raise ValueError(f'its format is {str(report["format"])[:40]}')
        for key in ('machine', 'model', 'options'):
            report[key].keys()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f'it has no {error}' if isinstance(error, KeyError) else str(error)[:200]
        raise UserError(f'{path} is no report of "yolojet profile --json" ({reason}); give two of '
                        'them') from error
    return report


def ratios(
    before: Dict[str, Any], after: Dict[str, Any],
) -> List[Tuple[str, float, float, float]]:
    """Return name, both figures and the second as a multiple of the first, of all in both."""
    old, new = dict(_figures(before)), dict(_figures(after))
    return [(name, value, new[name], new[name] / value) for name, value in old.items()
            if name in new and value]


def table(before: Dict[str, Any], after: Dict[str, Any]) -> str:
    """Return the ratios as text, below what else is different."""
    lines = [f'A: {_title(before)}', f'B: {_title(after)}']
    for name in ('size', 'rate', 'seconds'):
        values = before['options'].get(name), after['options'].get(name)
        if values[0] != values[1]:
            lines.append(f'they were not measured alike: {name} {values[0]} and {values[1]}')
    rows = [['', 'A', 'B', 'B/A']] + [
        [name, f'{old:.4g}', f'{new:.4g}', f'{ratio:.2f}']
        for name, old, new, ratio in ratios(before, after)]
    for name in _PARTS:
        if (name in before) != (name in after):
            lines.append(f'{name}: only in {"A" if name in before else "B"}')
    return '\n'.join(lines) + '\n\n' + aligned(rows, 1)


def _title(report: Dict[str, Any]) -> str:
    model, machine = report['model'], report['machine']
    return (f'{model.get("file")} on {model.get("description")}, {machine.get("name")}, '
            f'{report.get("date")}')


def _figures(report: Dict[str, Any]) -> Iterator[Tuple[str, float]]:
    for part in _PARTS:
        yield from _leaves(part, report.get(part))
    for row in report.get('backends', ()):
        if 'latency_ms' in row:
            yield from _leaves(f'backend {row.get("backend")}', {'latency_ms': row['latency_ms']})


def _leaves(name: str, value: Any) -> Iterator[Tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in _NO_FIGURES:
                yield from _leaves(f'{name} {key}', inner)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name, float(value)
