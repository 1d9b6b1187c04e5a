"""Every command that writes, on a disk that is full: one sentence, and nothing half written."""

import os
from pathlib import Path
import subprocess
import sys

from image_samples import jpeg
from model_samples import exported, trained_model
import numpy as np
import pytest

from yolojet_ros.core.compressed_images import write_image
from yolojet_ros.core.video import video_file

_ROOT = Path(__file__).resolve().parents[1]
_DEMO = _ROOT / 'engines' / 'demo' / 'yolojet_demo.onnx'
_OWN_MOUNTS = ('unshare', '--user', '--map-root-user', '--mount')
# A disk of 256 KiB with 4 KiB left, in a mount namespace of its own.
_SCRIPT = """
mount -t tmpfs -o size=256k none "$DISK" || exit 99
echo 'the old file' > "$DISK/$OLD"
head -c 253952 /dev/zero > "$DISK/filler"
"$@"
code=$?
(cd "$DISK" && find . -type f ! -name filler ! -name "*.log" ! -name "$OLD" > "$LEFT")
cp "$DISK/$OLD" "$LEFT.old"
exit $code
"""


def _can_mount():
    return subprocess.run(
        [*_OWN_MOUNTS, 'mount', '-t', 'tmpfs', 'none', '/mnt'],
        stderr=subprocess.DEVNULL).returncode == 0


pytestmark = pytest.mark.skipif(not _can_mount(), reason='no namespaces of one\'s own here')


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Return a folder with a model, weights and images."""
    folder = tmp_path_factory.mktemp('files')
    (folder / 'model.onnx').write_bytes(exported())
    (folder / 'images').mkdir()
    for name in 'ab':
        (folder / 'images' / f'{name}.jpg').write_bytes(jpeg())
    from yolojet_ros.model import checkpoint
    checkpoint.save(trained_model(), folder / 'weights.pt')
    return folder


def _run(files, tmp_path, line, old, **environment):
    """Run a command line on a full disk; return (exit code, stderr, files left, old file)."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    words = [word.replace('DISK', str(disk)) for word in line.split()]
    result = subprocess.run(
        [*_OWN_MOUNTS, 'bash', '-c', _SCRIPT, 'bash', sys.executable, '-m', 'yolojet_ros', *words],
        cwd=files, capture_output=True, text=True, timeout=200, env={
            **os.environ, 'PYTHONPATH': str(_ROOT), 'DISK': str(disk), 'OLD': old,
            'LEFT': str(tmp_path / 'left'), 'XDG_CACHE_HOME': str(tmp_path / 'cache'),
            'ROS_DOMAIN_ID': str(1 + os.getpid() % 100),
            **{name: value.replace('DISK', str(disk)) for name, value in environment.items()}})
    return (result.returncode, result.stderr, (tmp_path / 'left').read_text().split(),
            (tmp_path / 'left.old').read_text())


def _check(result, left=()):
    code, said, files_left, old = result
    assert code == 2, said
    assert 'Traceback' not in said, said
    sentences = [line for line in said.splitlines() if line.startswith('yolojet: ')]
    assert len(sentences) == 1 and 'cannot write' in sentences[0], said
    assert [name for name in files_left if Path(name).name not in left] == []
    assert old == 'the old file\n'


@pytest.mark.parametrize('line, old', [
    ('model export weights.pt DISK/new.onnx', 'new.onnx'),
    ('model fp16 model.onnx DISK/new.onnx', 'new.onnx'),
    ('model quantize model.onnx DISK/new.onnx --data images --images 2 --no-cache', 'new.onnx'),
    ('model quantize model.onnx DISK/new.onnx --dynamic', 'new.onnx'),
    ('model prune weights.pt DISK/new.pt --ratio 0.2 --images 0', 'new.pt'),
    ('model train DISK/new.pt --size 64x64 --steps 1 --stills 2 --batch 1 --validation-stills 1 '
     '--workers 0', 'new.pt'),
    ('engine reference --onnx model.onnx --out DISK/new.npz --count 2', 'new.npz'),
    ('track evaluate --scenes 1 --seconds 1 --rate 10 --camera-motion off --plot DISK/new.png',
     'new-scene-1.png'),
])
def test_a_command_that_cannot_write_says_so_and_keeps_the_old_file(files, tmp_path, line, old):
    _check(_run(files, tmp_path, line, old))


def test_the_demo_and_the_bench_say_it_too(files, tmp_path):
    for name, line, variables in (
            ('demo', f'demo --seconds 2 --model {_DEMO} --out DISK', {}),
            ('bench', f'bench --node --seconds 1 --model {_DEMO}', {'TMPDIR': 'DISK'})):
        (tmp_path / name).mkdir()
        _check(_run(files, tmp_path / name, line, 'other', **variables))


def test_output_to_a_full_device_is_no_traceback(files):
    for line in ('model info model.onnx', 'engine build --onnx model.onnx --dry-run --json'):
        with open('/dev/full', 'w') as full:
            result = subprocess.run(
                [sys.executable, '-m', 'yolojet_ros', *line.split()], cwd=files, stdout=full,
                stderr=subprocess.PIPE, text=True, env={**os.environ, 'PYTHONPATH': str(_ROOT)})
        assert result.returncode == 2
        assert 'No space left' in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_reader_who_has_enough_is_no_error(files):
    command = f'{sys.executable} -m yolojet_ros engine build --onnx model.onnx --dry-run | true'
    result = subprocess.run(
        ['bash', '-c', command], cwd=files, stderr=subprocess.PIPE, text=True,
        env={**os.environ, 'PYTHONPATH': str(_ROOT)})
    assert result.stderr == ''


def test_a_device_or_a_folder_is_not_replaced(files, tmp_path):
    os.mkfifo(tmp_path / 'pipe.onnx')
    (tmp_path / 'folder.onnx').mkdir()
    for name in ('pipe.onnx', 'folder.onnx'):
        result = subprocess.run(
            [sys.executable, '-m', 'yolojet_ros', 'model', 'fp16', 'model.onnx',
             str(tmp_path / name)], cwd=files, stderr=subprocess.PIPE, text=True,
            env={**os.environ, 'PYTHONPATH': str(_ROOT)})
        assert result.returncode == 2 and 'is no file' in result.stderr
    assert (tmp_path / 'pipe.onnx').is_fifo() and (tmp_path / 'folder.onnx').is_dir()


@pytest.mark.parametrize('source, old', [('big', 'a.png'), ('film.avi', 'film.mp4')])
def test_copies_of_what_was_detected(files, tmp_path, source, old):
    noise = np.random.default_rng(0).integers(0, 256, (8, 256, 256, 3), np.uint8)
    (files / 'big').mkdir(exist_ok=True)
    write_image(files / 'big' / 'a.png', noise[0])
    with video_file(files / 'film.avi') as add:
        for picture in noise:
            add(picture)
    _check(_run(files, tmp_path, f'detect {source} --model model.onnx --save DISK', old))
