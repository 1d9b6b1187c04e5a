"""A report of `yolojet profile` as one HTML file that needs no other."""

from __future__ import annotations

import base64
from html import escape
from typing import Any, Dict, List, Sequence, Tuple

from yolojet_ros.operate.report.format import present, stages
from yolojet_ros.operate.report.text import agreement, number, throttling, use_rows

_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 1040px; padding: 28px 24px 60px; background: #fff;
  color: #333a44; font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 24px; margin: 0 0 2px; } h2 { font-size: 17px; margin: 36px 0 10px; }
.sub { color: #6b7785; margin: 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 22px 0 4px; }
.card { border: 1px solid #e3e7ee; border-radius: 10px; padding: 12px 14px; }
.card b { display: block; font-size: 22px; line-height: 1.25; } .card span { color: #6b7785;
  font-size: 13px; }
.warn { background: #fff4e5; border-radius: 10px; padding: 10px 14px; margin-top: 16px; }
img { width: 100%; height: auto; display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px; border-bottom: 1px solid #e3e7ee; text-align: right;
  white-space: nowrap; } th { color: #6b7785; font-weight: 600; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.words td { text-align: left; white-space: normal; }
"""


def page(report: Dict[str, Any]) -> str:
    """Return the page; without matplotlib it has tables only, and says so."""
    missing = dict(report['skipped'])
    try:
        from yolojet_ros.operate.report.charts import charts
        drawn = charts(report)
    except ImportError as error:
        drawn, gone = [], isinstance(error, ModuleNotFoundError)
        missing['charts'] = 'matplotlib is not installed' if gone else str(error)
    model, machine, options = report['model'], report['machine'], report['options']
    width, height = options['size']
    size = 'x'.join(map(str, model['input_size']))
    body = [
        f'<h1>{escape(model["file"])}</h1>',
        _paragraph(f'{model["task"]}, input {size}, {model["description"]}'),
        _paragraph(f'{machine["name"]}; {machine["cpu"]}, {machine["cores"]} cores; '
                   f'{machine["system"]}, Python {machine["python"]}; '
                   + ', '.join(f'{name} {text}' for name, text in machine['packages'].items())),
        _paragraph(f'{report["date"]}; images of {width}x{height}, {options["seconds"]:g} s a '
                   f'part, node at {options["rate"]} Hz'),
        '<div class="cards">' + ''.join(
            f'<div class="card"><b>{escape(figure)}</b><span>{escape(what)}</span></div>'
            for figure, what in _cards(report)) + '</div>']
    reasons = throttling(report) + list(model['warnings']) + list(report['notes'])
    if reasons:
        body.append(f'<div class="warn">{escape("; ".join(reasons))}</div>')
    for title, svg in drawn:
        data = base64.b64encode(svg.encode('utf-8')).decode('ascii')
        body.append(f'<h2>{escape(title)}</h2>\n<img alt="{escape(title)}" '
                    f'src="data:image/svg+xml;base64,{data}">')
    body += _tables(report)
    if missing:
        body.append('<h2>Not measured</h2>' + _table(
            [['what', 'why']] + [[name, why] for name, why in missing.items()], 'words'))
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<title>yolojet profile: {escape(model["file"])}</title>\n'
            f'<style>{_STYLE}</style></head>\n<body>\n' + '\n'.join(body) + '\n</body></html>\n')


def _cards(report: Dict[str, Any]) -> List[Tuple[str, str]]:
    """Return the figures that matter most, and what they are."""
    pipeline, node = report['pipeline'], report.get('node')
    found = [(f'{pipeline["images_per_second"]:.1f} /s', 'images, one process')]
    for name, _ in present(report):
        latency = report[name]['latency_ms']
        found.append((f'{number(latency["p50"], ".1f")} ms',
                      f'{name} latency p50 (p99 {number(latency["p99"], ".1f")})'))
    if node and node['transport_ms']['image'] is not None:
        transport = node['transport_ms']
        found.append((f'{transport["image"] + transport["result"]:.1f} ms',
                      'of that in transport (DDS)'))
    busiest = node or pipeline
    power = busiest['use'].get('power_w')
    if power:
        found.append((f'{power["mean"]:.1f} W', f'power of the {busiest["use"]["power_of"]}'))
    joules = pipeline.get('joules_per_image')
    if joules:
        found.append((f'{joules["all"]:.3f} J', 'an image, at full speed'))
    load = busiest['use'].get('process_cpu_percent')
    if load:
        found.append((f'{load["mean"]:.0f} %', 'of a core, mean'))
    control = report.get('control')
    if control and control['share']['p99'] is not None:
        found.append((f'{100 * control["share"]["p99"]:.0f} %',
                      f'of a {control["rate"]} Hz period, p99'))
    return found


def _tables(report: Dict[str, Any]) -> List[str]:
    body = []
    for name, title in present(report):
        rows = [['ms', 'median', 'p99']] + [
            [label, number(p50), number(p99)] for label, p50, p99 in stages(report[name])]
        latency = report[name]['latency_ms']
        rows.append(['all, image to result', number(latency['p50']), number(latency['p99'])])
        body.append(f'<h2>Stages: {escape(title)}</h2>' + _table(rows))
    node = report.get('node')
    if node:
        body.append(_paragraph(
            f'{node["sent"]} images sent, {node["results"]} results, {node["superseded"]} '
            f'superseded by newer ones and {node["lost"]} lost, those of the warm-up included. '
            'Transport, medians: '
            f'{number(node["transport_ms"]["image"])} ms of the image, '
            f'{number(node["transport_ms"]["result"])} ms of its result.'))
    stages_on_gpu = report['pipeline'].get('gpu_stages_ms')
    if stages_on_gpu:
        body.append('<h2>Steps on the GPU</h2>' + _table(
            [['ms', 'median']] + [[name, number(value)] for name, value in stages_on_gpu.items()]))
    body.append('<h2>Load, power, heat and memory</h2>' + _table(use_rows(report)))
    if 'backends' in report:
        body.append('<h2>Backends on the same images</h2>' + _table(
            [['backend', 'result']] + [[
                row['backend'], f'skipped: {row["skipped"]}' if 'skipped' in row else
                f'{row["description"]}: {row["latency_ms"]["p50"]:.3f} ms p50, '
                f'{row["latency_ms"]["p99"]:.3f} p99{agreement(row)}']
                for row in report['backends']], 'words'))
    return body


def _paragraph(text: str) -> str:
    return f'<p class="sub">{escape(text)}</p>'


def _table(rows: Sequence[Sequence[str]], kind: str = '') -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return '<tr>' + ''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells) + '</tr>'
    return (f'<div class="wide"><table class="{kind}">' + line(rows[0], 'th')
            + ''.join(line(row, 'td') for row in rows[1:]) + '</table></div>')
