"""Reports of `yolojet profile`: tables, page and ratios, of machines that tell much or little."""

import copy
import json
import subprocess
import sys

import pytest

from yolojet_ros.core.errors import UserError
from yolojet_ros.operate.report import comparison, page, text
from yolojet_ros.operate.report.format import FORMAT


def _times(p50, p99):
    return {'p50': p50, 'p99': p99}


REPORT = {
    'format': FORMAT, 'yolojet': '0', 'date': '2026-01-01T00:00:00+00:00',
    'machine': {'name': 'A <Jetson>', 'cpu': 'ARM', 'cores': 8, 'system': 'Linux 5',
                'python': '3.8', 'ros': None, 'packages': {'tensorrt': '8.5'}},
    'options': {'seconds': 2.0, 'size': [1280, 720], 'rate': 30, 'control_rate': 50},
    'model': {'file': 'my<model>.engine', 'task': 'detect', 'classes': 3,
              'input_size': [640, 640], 'backend': 'tensorrt', 'description': 'TensorRT 8.5',
              'warnings': []},
    'idle': {'power_w': {'mean': 5.0, 'max': 5.5}, 'power_of': 'board'},
    'pipeline': {
        'images': 200, 'images_per_second': 100.0, 'latency_ms': _times(10.0, 20.0),
        'latencies_ms': [9.0, 10.0, 11.0, 20.0],
        'stages_ms': {
            'copy_in': _times(1.0, 2.0), 'gpu': _times(8.0, 15.0), 'track': _times(1, 2)},
        'gpu_stages_ms': {'letterbox': 0.1, 'network': 7.5},
        'joules_per_image': {'all': 0.15, 'above_idle': 0.1, 'of': 'board'},
        'use': {'power_w': {'mean': 15.0, 'max': 16.0}, 'power_of': 'board',
                'gpu_memory_bytes': {'mean': 2**30, 'max': 2**30},
                'throttling': ['the GPU is too hot & slow']}},
    'layers': {'file': 'my.engine', 'of': 'TensorRT, mean', 'runs': 50, 'total_ms': 4.0,
               'ms': {f'conv{index} <x>': 0.2 for index in range(20)}},
    'backends': [{'backend': 'torch', 'skipped': 'torch is not installed'}],
    'control': {'rate': 50, 'period_ms': 20.0, 'of': 'pipeline', 'share': _times(0.5, 1.0)},
    'samples': {'seconds': [0.2, 0.4, 0.6], 'power_w': [None, 15.0, 16.0],
                'phases': [['idle', 0, 0.3], ['pipeline', 0.3, 0.6]]},
    'notes': ['others were busy'], 'skipped': {'node': 'ROS 2 is not here'}, 'failed': []}


def test_a_table_tells_figures_and_what_is_missing():
    found = text.table(REPORT)
    lines = found.splitlines()
    rows = {line[:25].strip(): line[25:].split() for line in lines}
    assert rows['copy to the GPU'] == ['1.000', '2.000']
    assert rows['all, image to result'] == ['10.000', '20.000']
    assert '  on the GPU, median: network 7.500' in lines
    assert 'pipeline:  100.0 images/s, 0.150 J an image of the board (0.100 above rest)' in lines
    assert 'control loop of 50 Hz: 50 % of its 20 ms p50, 100 % p99 (pipeline)' in lines
    assert 'throttled: the GPU is too hot & slow' in lines
    power, = [line.split() for line in lines if line.startswith('power ')]
    assert power == ['power', 'W', '5.0', '5.5', '15.0', '16.0']
    memory, = [line.split() for line in lines if line.startswith('GPU memory')]
    assert memory[3:] == ['-', '-', '1024.0', '1024.0'], 'unknown is not zero'
    assert 'note: others were busy' in lines
    assert '  node: ROS 2 is not here' in lines and '          and 10 more' in lines


def test_a_page_escapes_what_it_is_told():
    found = page.page(REPORT)
    assert 'my&lt;model&gt;.engine' in found and '<model>' not in found
    assert 'A &lt;Jetson&gt;' in found and 'too hot &amp; slow' in found
    assert '0.150 J' in found and 'ROS 2 is not here' in found and 'others were busy' in found


def test_a_page_without_matplotlib_says_so():
    script = ('import sys, json; sys.modules["matplotlib"] = None\n'
              'from yolojet_ros.operate.report import page\n'
              'print(page.page(json.loads(sys.stdin.read())))')
    done = subprocess.run([sys.executable, '-c', script], input=json.dumps(REPORT), text=True,
                          stdout=subprocess.PIPE, check=True)
    assert 'matplotlib is not installed' in done.stdout and '<img' not in done.stdout
    assert 'copy to the GPU' in done.stdout


def test_charts_are_drawn_of_what_there_is():
    pytest.importorskip('matplotlib')
    from yolojet_ros.operate.report.charts import charts
    titles = [title for title, svg in charts(REPORT)]
    assert titles == ['Time of each stage', 'Latency, image to result', 'The machine all along',
                      'Slowest layers']
    poor = copy.deepcopy(REPORT)
    del poor['layers'], poor['control'], poor['samples']['power_w']
    poor['pipeline'].update(use={}, joules_per_image=None)
    assert [title for title, _ in charts(poor)] == titles[:2]
    assert 'J an image' not in text.table(poor)


def test_ratios_are_those_of_b_to_a(tmp_path):
    other = copy.deepcopy(REPORT)
    other['pipeline']['latency_ms']['p50'] = 5.0
    other['pipeline']['use']['power_w']['mean'] = 22.5
    other['options']['rate'] = 60
    del other['control']
    found = {name: ratio for name, _, _, ratio in comparison.ratios(REPORT, other)}
    assert found['pipeline latency_ms p50'] == 0.5
    assert found['pipeline use power_w mean'] == 1.5
    assert found['layers total_ms'] == 1.0
    assert not any(name.startswith(('control', 'layers ms')) for name in found)
    said = comparison.table(REPORT, other)
    assert 'not measured alike: rate 30 and 60' in said and 'control: only in A' in said
    line, = [line for line in said.splitlines() if line.startswith('pipeline latency_ms p50')]
    assert line.split()[-3:] == ['10', '5', '0.50']


@pytest.mark.parametrize('content', [
    '', '[]', '{}', '{"format": "other"}', f'{{"format": "{FORMAT}"}}', '{"format": 1e999}',
    f'{{"format": "{FORMAT}", "machine": 1, "model": 2, "options": 3}}', '[' * 5000])
def test_what_is_no_report_is_refused(tmp_path, content):
    path = tmp_path / 'a.json'
    path.write_text(content)
    with pytest.raises(UserError, match='a.json is no report'):
        comparison.load(path)
