"""The charts of a report, as SVG, by matplotlib."""

from __future__ import annotations

import io
from typing import Any, Dict, List, Optional, Tuple

from yolojet_ros.operate.report.format import present, shortened, stages, VALUES

_WIDTH = 9.6  # inches; the page scales it
_MAIN, _LIGHT, _SECOND, _INK, _GRID = '#2f6fde', '#b9d0f7', '#e07b39', '#333a44', '#e3e7ee'
_PHASES = {'idle': '#f4f5f7', 'pipeline': '#e9f0fd', 'node': '#fdf0e7'}
_TOP = 20  # layers
_OLDEST = (3, 5)  # Ubuntu 22.04's
_STYLE = {
    'font.size': 9.5, 'font.family': 'sans-serif', 'axes.spines.top': False,
    'axes.spines.right': False, 'axes.edgecolor': '#9aa3b0', 'axes.labelcolor': _INK,
    'axes.titlesize': 10.5, 'axes.titlelocation': 'left', 'axes.titleweight': 'bold',
    'axes.titlecolor': _INK, 'axes.axisbelow': True, 'xtick.color': _INK, 'ytick.color': _INK,
    'text.color': _INK, 'grid.color': _GRID, 'grid.linewidth': 0.8, 'svg.hashsalt': 'yolojet',
    'legend.frameon': False}


def charts(report: Dict[str, Any]) -> List[Tuple[str, str]]:
    """
    Return (title, SVG) of each chart that there are figures for.

    :raises ImportError: if matplotlib is not installed, or too old.
    """
    from matplotlib import __version__, rc_context
    if tuple(map(int, __version__.split('.')[:2])) < _OLDEST:
        raise ImportError(f'matplotlib {__version__} is older than {_OLDEST[0]}.{_OLDEST[1]}')
    found: List[Tuple[str, Optional[str]]] = []
    with rc_context(_STYLE):
        found.append(('Time of each stage', _stages(report)))
        found.append(('Latency, image to result', _latencies(report)))
        found.append(('The machine all along', _samples(report)))
        found.append(('Backends side by side', _backends(report)))
        found.append(('Slowest layers', _layers(report)))
    return [(title, svg) for title, svg in found if svg]


def _figure(height: float, rows: int = 1, columns: int = 1, **options: Any) -> Tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    figure = Figure((_WIDTH, height), layout='constrained')
    FigureCanvasSVG(figure)  # whatever backend the user has set
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _legend_above(axis: Any) -> None:
    axis.legend(loc='lower right', bbox_to_anchor=(1.0, 1.0), ncol=2, borderaxespad=0.2)


def _svg(figure: Any) -> str:
    text = io.StringIO()
    figure.savefig(text, format='svg', metadata={'Date': None})
    return text.getvalue()


def _stages(report: Dict[str, Any]) -> str:
    parts = present(report)
    rows = {name: list(stages(report[name])) for name, _ in parts}
    most = max(len(found) for found in rows.values())
    figure, axes = _figure(1.0 + 0.3 * most, 1, len(parts))
    for axis, (name, title) in zip(axes[0], parts):
        labels, medians, tails = zip(*rows[name])
        places = range(len(labels))
        axis.barh(places, [tail or 0 for tail in tails], color=_LIGHT, height=0.66, label='p99')
        axis.barh(places, medians, color=_MAIN, height=0.66, label='median')
        for place, median, tail in zip(places, medians, tails):
            axis.text(max(median, tail or 0), place, f'  {median:.2f}', va='center', fontsize=8.5)
        axis.set_yticks(places, labels)
        axis.invert_yaxis()
        axis.set_xlim(0, 1.16 * max(max(tail or 0, median)
                                    for median, tail in zip(medians, tails)))
        axis.set_xlabel('ms (the figure is the median)')
        axis.set_title(title)
        axis.grid(axis='x')
        axis.tick_params(axis='y', length=0)
    _legend_above(axes[0][-1])
    return _svg(figure)


def _latencies(report: Dict[str, Any]) -> Optional[str]:
    import numpy as np
    parts = [(name, title) for name, title in present(report) if report[name]['latencies_ms']]
    control = report.get('control')
    figure, axes = _figure(2.7, 1, len(parts))
    for axis, (name, title) in zip(axes[0], parts):
        values = np.array(report[name]['latencies_ms'])
        # A single image that took ten times as long would press all others into one bar.
        edge = max(np.percentile(values, 99.5) * 1.1, values.min() * 1.01)
        axis.hist(np.minimum(values, edge), bins=40, color=_MAIN)
        for key in ('p50', 'p99'):
            latency = report[name]['latency_ms'][key]
            axis.axvline(min(latency, edge), color=_INK, linestyle='--', linewidth=1)
            axis.annotate(f'{key} {latency:.1f}', (min(latency, edge), 1), (3, -2), va='top',
                          xycoords=('data', 'axes fraction'), textcoords='offset points',
                          fontsize=8.5)
        if control and control['of'] == name and control['period_ms'] < 2 * edge:
            axis.axvline(control['period_ms'], color=_SECOND, linewidth=1.6)
            axis.annotate(f'period {control["period_ms"]:g} ms', (control['period_ms'], 0.74),
                          (3, 0), va='top', xycoords=('data', 'axes fraction'),
                          textcoords='offset points', color=_SECOND, fontsize=8.5)
        axis.set_xlabel('ms')
        axis.set_ylabel('images')
        axis.set_title(title)
        axis.grid(axis='y')
        axis.margins(y=0.2)
    return _svg(figure)


# Panels of the samples: title, unit, the values in it.
_PANELS = (
    ('Power', 'W', ('power_w',)),
    ('Temperature', '°C', ('gpu_temperature_c', 'cpu_temperature_c', 'temperature_c')),
    ('GPU and CPU', '%', ('gpu_percent', 'cpu_percent')),
    ('The process', '% of a core', ('process_cpu_percent',)),
    ('Memory', 'MiB', ('rss_bytes', 'gpu_memory_bytes')),
    ('Clocks', 'MHz', ('gpu_clock_mhz', 'cpu_clock_mhz')))
_ALONE = ('gpu_percent', 'cpu_percent', 'rss_bytes', 'gpu_memory_bytes', 'gpu_clock_mhz',
          'cpu_clock_mhz')  # which say more than their panel's title


def _samples(report: Dict[str, Any]) -> Optional[str]:
    samples = report['samples']
    panels = [(title, unit, [key for key in keys if key in samples])
              for title, unit, keys in _PANELS]
    panels = [panel for panel in panels if panel[2]]
    if not panels or len(samples['seconds']) < 2:
        return None
    names = {key: (label, factor) for key, label, _, factor in VALUES}
    figure, axes = _figure(0.6 + 1.25 * len(panels), len(panels), 1, sharex=True)
    for axis, (title, unit, keys) in zip(axes[:, 0], panels):
        for phase, start, end in samples['phases']:
            axis.axvspan(start, end, color=_PHASES.get(phase, '#eef4ee'), linewidth=0)
        for key, color in zip(keys, (_MAIN, _SECOND, '#6b7785')):
            label, factor = names[key]
            values = [None if value is None else value * factor for value in samples[key]]
            axis.plot(samples['seconds'], [float('nan') if value is None else value
                                           for value in values],
                      color=color, linewidth=1.4, label=label)
        axis.set_title(title if len(keys) > 1 or keys[0] not in _ALONE else names[keys[0]][0])
        axis.set_ylabel(unit)
        axis.set_ylim(0, axis.get_ylim()[1] * (1.35 if axis is axes[0, 0] else 1.08))
        axis.margins(x=0)
        axis.grid(axis='y')
        if len(keys) > 1:
            axis.legend(loc='center left', bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
    for phase, start, end in samples['phases']:
        axes[0, 0].annotate(
            phase, (start, 1), (2, -3), xycoords=('data', 'axes fraction'),
            textcoords='offset points', va='top', fontsize=8.5, color='#6b7785')
    axes[-1, 0].set_xlabel('seconds')
    return _svg(figure)


def _backends(report: Dict[str, Any]) -> Optional[str]:
    rows = [row for row in report.get('backends', ()) if 'latency_ms' in row]
    if len(rows) < 2:
        return None
    figure, axes = _figure(0.9 + 0.36 * len(rows))
    axis, places = axes[0, 0], range(len(rows))
    axis.barh(places, [row['latency_ms']['p99'] for row in rows], color=_LIGHT, label='p99')
    axis.barh(places, [row['latency_ms']['p50'] for row in rows], color=_MAIN, label='median')
    for place, row in zip(places, rows):
        axis.text(row['latency_ms']['p99'], place, f'  {row["latency_ms"]["p50"]:.2f} ms',
                  va='center', fontsize=8.5)
    axis.set_yticks(places, [row['description'] for row in rows])
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set_xlabel('ms, image to boxes (the figure is the median)')
    axis.grid(axis='x')
    _legend_above(axis)
    return _svg(figure)


def _layers(report: Dict[str, Any]) -> Optional[str]:
    layers = report.get('layers')
    if not layers or not layers['ms']:
        return None
    ranked = sorted(layers['ms'].items(), key=lambda item: -item[1])[:_TOP]
    figure, axes = _figure(0.8 + 0.23 * len(ranked))
    axis, places = axes[0, 0], range(len(ranked))
    total = layers['total_ms'] or 1.0
    axis.barh(places, [value for _, value in ranked], color=_MAIN, height=0.7)
    for place, (_, value) in zip(places, ranked):
        axis.text(value, place, f'  {value:.3f}  ({100 * value / total:.1f} %)', va='center',
                  fontsize=8)
    axis.set_yticks(places, [shortened(name, 52) for name, _ in ranked], fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.18)
    axis.set_xlabel(f'ms ({layers["of"]} of {layers["runs"]} runs; {len(layers["ms"])} layers, '
                    f'{layers["total_ms"]:.2f} ms in all)')
    axis.grid(axis='x')
    axis.tick_params(axis='y', length=0)
    return _svg(figure)
