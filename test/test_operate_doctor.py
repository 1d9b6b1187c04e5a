"""The doctor's frame: whatever one check does, the others run, and what is printed is readable."""

import json
import os
import subprocess
import sys
import time

from doctor_machines import check, Machine, ORIN
import pytest

from yolojet_ros.core.errors import UserError
from yolojet_ros.operate.doctor import report, runner
from yolojet_ros.operate.doctor.check import Check, Options
from yolojet_ros.operate.doctor.finding import exit_code, fail, ok, skipped, warn
from yolojet_ros.operate.doctor.table import CHECKS, chosen


def test_what_hangs_crashes_or_fails_stops_no_other_check(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, '_GRACE', 2.0)  # for what hangs though it is killed
    nap = f'sleep 60.{os.getpid()}'
    system = Machine(tmp_path, {
        **ORIN, '/var/lib/nvpmodel/status': None}, {'nvpmodel': f'{nap} & {nap}'}, {
        'onnxruntime.py': 'import time; time.sleep(60)',
        'numpy.py': 'import os; os.abort()'})
    names = {item.name: item for item in CHECKS}

    def sleeps(machine, options):
        time.sleep(60)

    def raises(machine, options):
        raise RecursionError('deep')

    checks = [Check('thread', 'x', sleeps, '', 0.01), Check('error', 'x', raises, ''),
              *(names[name] for name in ('power_mode', 'onnxruntime', 'libraries', 'memory'))]
    begin = time.monotonic()
    results = list(runner.run(checks, system, Options(), 0.5))
    assert time.monotonic() - begin < 12
    found = {result.check.name: result.finding for result in results}
    assert list(found) == ['thread', 'error', 'power_mode', 'onnxruntime', 'libraries', 'memory']
    assert found['thread'].found == 'it gave no answer within 0.5 s'
    assert 'RecursionError: deep' in found['error'].found
    assert found['power_mode'].found == 'nvpmodel gave no answer within 0.5 s'
    assert found['onnxruntime'].found == '"import onnxruntime" gave no answer within 0.5 s'
    assert 'SIGABRT at "import numpy"' in found['libraries'].found
    assert [found[name].status for name in found] == ['fail'] * 5 + ['ok']
    # What a program left behind in its session is gone with it.
    assert not _processes_of(nap)


def _processes_of(text):
    listed = subprocess.run(['ps', '-eo', 'args'], stdout=subprocess.PIPE).stdout.decode()
    return [line for line in listed.splitlines() if text in line and 'ps -eo' not in line]


def test_a_program_that_floods_or_leaves_a_child_with_its_output_is_no_problem(tmp_path):
    system = Machine(tmp_path, programs={
        'flood': 'yes flood | head -c 9000000', 'child': 'setsid sleep 30 & echo told'})
    assert len(system.run(['flood']).output) <= 1 << 20
    begin = time.monotonic()
    assert system.run(['child']).output == 'told' and time.monotonic() - begin < 5
    assert system.run(['nowhere']) is None


def test_a_probe_of_the_same_arguments_runs_once(tmp_path):
    log = tmp_path / 'log'
    system = Machine(tmp_path, packages={
        'onnxruntime.py': f'open({str(log)!r}, "a").write("x")\nprint("no line feed", end="")\n'
                          '__version__ = "1"\n'
                          'get_available_providers = lambda: ["CPUExecutionProvider"]'})
    for _ in range(2):
        assert check(system, 'onnxruntime').found == 'ONNX Runtime 1: CPUExecutionProvider'
    assert log.read_text() == 'x'


@pytest.mark.parametrize('findings, code', [
    ((), 0), ((ok('a'), skipped('b')), 0), ((ok('a'), warn('b', 'c')), 1),
    ((warn('b', 'c'), fail('d', 'e')), 2)])
def test_exit_code_is_that_of_the_worst(findings, code):
    assert exit_code(findings) == code


def _results():
    return [runner.Result(Check(name, area, None, ''), finding, 0.5) for name, area, finding in (
        ('first', 'one', ok('well')),
        ('second_one', 'one', warn('w' + ' long words' * 20, 'm ' * 60, 'sudo ' + 'x' * 100)),
        ('third', 'two', fail('bad\x1b[31m\n', 'it means', 'mend')))]


def test_table_is_aligned_wrapped_and_readable_without_colour():
    results = _results()
    table = report.Table([result.check.name for result in results], 60)
    lines = [line for result in results for line in table.lines(result)]
    assert lines[:2] == ['one', '  ok   first       well']
    assert lines[2].startswith('  WARN second_one  w long words')
    column = lines[1].index('well')
    for line in lines:
        if line[:1] == ' ' and line[2:3] == ' ':  # a continuation
            assert len(line) - len(line.lstrip()) >= column
        assert len(line) <= 60 or '$  sudo' in line, line
    assert sum('$  sudo ' + 'x' * 100 in line for line in lines) == 1, 'a command is one piece'
    assert '\x1b' not in ''.join(lines)
    assert lines[lines.index('two') - 1] == '' and '  FAIL third       bad?[31m' in lines
    coloured = report.Table(['first'], 60, colour=True).lines(results[0])
    assert coloured[1] == '  \x1b[32mok   \x1b[0mfirst  well'
    assert report.summary(results) == '3 checks: 1 ok, 1 warning, 1 failure'


def test_record_has_all_that_the_table_has():
    record = json.loads(json.dumps(report.as_record(_results())))
    assert record['exit_code'] == 2 and len(record['checks']) == 3
    assert record['checks'][2] == {
        'name': 'third', 'area': 'two', 'status': 'fail', 'found': 'bad\x1b[31m\n',
        'meaning': 'it means', 'command': 'mend', 'seconds': 0.5}


def test_checks_are_chosen_by_name_and_area():
    assert [item.name for item in chosen(['python', 'swap'], ['libraries'])] == [
        'interpreter', 'onnxruntime', 'swap']
    names, areas = {item.name for item in CHECKS}, {item.area for item in CHECKS}
    assert len(names) == len(CHECKS) == len(chosen([], [])) and not names & areas
    with pytest.raises(UserError, match='no check or area "memroy"; did you mean memory'):
        chosen(['memroy'], [])
    with pytest.raises(UserError, match='leave no check'):
        chosen(['swap'], ['machine'])


def test_every_check_ends_in_a_finding_where_there_is_nothing(tmp_path):
    system = Machine(tmp_path, {}, disks={'/dev/shm': None}, packages={
        f'{name}.py': f'raise ModuleNotFoundError("No module named {name!r}", name={name!r})'
        for name in ('numpy', 'cv2', 'yaml', 'scipy', 'onnxruntime', 'tensorrt')})
    results = list(runner.run(CHECKS, system, Options()))
    assert [result.finding.found for result in results
            if 'check itself failed' in result.finding.found] == []
    failed = {result.check.name for result in results if result.finding.status == 'fail'}
    assert failed == {'libraries', 'shared_memory'}
    for result in results:
        finding = result.finding
        assert finding.status in ('ok', 'skipped') or finding.meaning and finding.command, finding


def test_modules_need_the_standard_library_only():
    code = ('import sys\n'
            'import yolojet_ros.cli.main, yolojet_ros.operate.doctor.table\n'
            'import yolojet_ros.operate.doctor.report, yolojet_ros.cli.image_test\n'
            'import yolojet_ros.operate.doctor.probes.graph\n'
            'print(sorted(name for name in sys.modules if "site-packages" in str(getattr('
            'sys.modules[name], "__file__", ""))))')
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run(
        [os.path.realpath(sys.executable), '-S', '-c', code], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env={'PYTHONPATH': root, 'PATH': os.environ['PATH']})
    assert done.stdout.decode().strip() == '[]'
