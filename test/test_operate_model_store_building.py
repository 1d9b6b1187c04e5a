"""Building an engine into the store: in the background, whole or not at all."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest
from store_samples import Samples, snapshot

from yolojet_ros.cli.main import main, make_parser
from yolojet_ros.core.errors import UserError
from yolojet_ros.operate.model_store import building

_ROOT = Path(__file__).resolve().parents[1]
# Stands for "engine build", which needs a GPU: what matters here is what becomes of its files.
_BUILDER = '''
import pathlib, sys, time
engine = pathlib.Path(sys.argv[1])
engine.with_suffix('.tmp').write_text('scratch')
engine.write_text('engine')
if sys.argv[2] == 'slow':
    time.sleep(60)
if sys.argv[2] != 'no card':
    engine.with_name(engine.name + '.json').write_text('card')
sys.exit(sys.argv[2] == 'fails')
'''


@pytest.fixture(scope='module')
def samples(tmp_path_factory):
    return Samples(tmp_path_factory.mktemp('samples'))


@pytest.fixture
def store(samples, tmp_path):
    return samples.store(tmp_path / 'store', (0, 1), ('1.0.0',))


@pytest.fixture
def builds(monkeypatch, tmp_path):
    """Return a function that says how the build goes: well, 'fails', 'no card' or 'slow'."""
    (tmp_path / 'tensorrt.py').write_text('raise AssertionError')  # only looked for
    monkeypatch.syspath_prepend(str(tmp_path))

    def builds(how):
        monkeypatch.setattr(building, 'command', lambda model, engine, profile: [
            sys.executable, '-c', _BUILDER, str(engine), how])
    return builds


def test_an_engine_lies_beside_its_model_once_it_is_whole(store, builds, capsys):
    line = ['model-store', 'activate', '1.1.0', '--build', '--store', str(store.folder)]
    before = snapshot(store.folder)
    for how in ('fails', 'no card'):
        builds(how)
        assert main(line) == 1
        assert 'could not be built' in capsys.readouterr().err
        assert snapshot(store.folder) == before
    builds('well')
    assert main(line) == 0
    model = store.active()
    assert (model.version, model.engine) == ('1.1.0', model.folder / 'crates.engine')
    assert model.engine.read_text() == 'engine' and model.model.suffix == '.onnx'
    assert model.folder.joinpath('crates.engine.json').read_text() == 'card'
    assert os.listdir(store.incoming) == []
    assert main(['model-store', 'list', '--store', str(store.folder)]) == 0
    assert ', engine' in capsys.readouterr().out
    store.check('1.1.0')


def test_an_interrupted_build_leaves_the_old_version_active(store, tmp_path):
    script = f'''
import sys
sys.path.insert(0, {str(tmp_path)!r})
from yolojet_ros.cli.main import main
from yolojet_ros.operate.model_store import building
building.command = lambda model, engine, profile: [
    sys.executable, '-c', {_BUILDER!r}, str(engine), 'slow']
sys.exit(main(['model-store', 'activate', '1.1.0', '--build', '--store', sys.argv[1]]))
'''
    (tmp_path / 'tensorrt.py').write_text('')
    before = snapshot(store.folder)
    process = subprocess.Popen(
        [sys.executable, '-c', script, str(store.folder)], cwd=_ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    _wait(lambda: list(store.incoming.glob('build-*/crates.engine')))
    store.start_trial()  # a node is not held up
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert snapshot(store.folder) == before


def test_without_tensorrt_it_is_one_sentence(store, monkeypatch):
    monkeypatch.setattr(building, 'find_spec', lambda name: None)
    before = snapshot(store.folder)
    with pytest.raises(UserError, match='TensorRT is not installed here'):
        building.build_engine(store, '1.1.0')
    with pytest.raises(UserError, match='there is no version'):
        building.build_engine(store, '9.9')
    assert snapshot(store.folder) == before


def test_the_command_is_one_that_there_is():
    words = building.command(Path('m.onnx'), Path('m.engine'), 'jetson_nano')
    arguments = make_parser().parse_args(words[words.index('engine'):])
    assert (arguments.onnx, arguments.out, arguments.profile) == (
        'm.onnx', 'm.engine', 'jetson_nano')
    assert words[:3] == ['nice', '-n', '19']


def test_a_build_ends_with_its_command(tmp_path):
    """The child that builds runs at the lowest priority, and is stopped with its parent."""
    script = '''
import sys
from yolojet_ros.operate.model_store import building
words = building.command('m.onnx', 'm.engine', None)
words = words[:words.index(sys.executable)]
building._run([*words, sys.executable, '-c', sys.argv[1]])
'''
    child = (f'import os, time; open({str(tmp_path / "new")!r}, "w").write(str(os.getpid())); '
             f'os.rename({str(tmp_path / "new")!r}, {str(tmp_path / "pid")!r}); time.sleep(60)')
    for number in (signal.SIGINT, signal.SIGKILL):
        parent = subprocess.Popen(
            [sys.executable, '-c', script, child], cwd=_ROOT, stderr=subprocess.DEVNULL,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
        _wait((tmp_path / 'pid').exists)
        pid = int((tmp_path / 'pid').read_text())
        (tmp_path / 'pid').unlink()
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19
        parent.send_signal(number)
        parent.wait(10)
        _wait(lambda: not _runs(pid))


def _runs(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def _wait(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
