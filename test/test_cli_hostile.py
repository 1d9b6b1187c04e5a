"""Command lines that nobody should type: an exit code and one sentence, never a traceback."""

import os
import signal

from image_samples import huge_png, jpeg
from model_samples import exported, trained_model
from mutations import count
import numpy as np
import pytest

from yolojet_ros.cli import main as command_line

pytest.importorskip('torch')

_SECONDS = 5  # a command that runs for longer has accepted its arguments

_LINES = """\
model info model.onnx
model info my.engine --input-size 64x64
model info weights.pt
model info --variant n --classes 3
model train new.pt --variant n --size 64x64 --steps 1 --stills 2 --batch 1 --validation-stills 1 \
--workers 0 --learning-rate 0.001 --seed 0 --validate-every 1 --max-minutes 1
model train new.pt --weights weights.pt --steps 1 --stills 2 --batch 1 --workers 0
model export weights.pt new.onnx --opset 17
model export weights.pt new.onnx --nms layer --score 0.25 --iou 0.7
model prune weights.pt new.pt --ratio 0.2 --images 0 --criterion l1
model prune weights.pt new.pt --parameters 2000000 --images 0
model quantize model.onnx new.onnx --data images --images 2 --method minmax --no-cache
model quantize model.onnx new.onnx --dynamic
model quantize model.onnx new.onnx --images 1 --keep-float conv --float-layers 1 --no-cache
model fp16 model.onnx new.onnx
model evaluate model.onnx --images 2 --threads 1
model evaluate model.onnx --against model.onnx --limit 1 --data coco.json images
engine build --onnx model.onnx --dry-run --json
engine build --onnx model.onnx --profile jetson_nano --precision fp16 --workspace 100 --batch 1 \
--optimization-level 3 --dry-run
engine build --onnx model.onnx --precision int8 --calib images --num-calib 2 --out new.engine
engine build --onnx model.onnx --dla 0 --profile jetson_agx_orin --nms plugin --nms-score 0.1 \
--nms-iou 0.5 --dry-run
engine inspect my.engine --json
engine profile my.engine --runs 1 --top 1 --json new.json --chart new.png
engine verify my.engine --onnx model.onnx --images images --count 1
engine reference --onnx model.onnx --out new.npz --images images --count 1
engine export-report my.engine --out new.md
detect images half.jpg --model model.onnx --json --set score_threshold=0.5 --save new
detect images --model model.onnx --input-size 96x64 --backend auto
track evaluate --scenes 1 --seconds 0.2 --rate 10 --camera-motion off --set lost_seconds=2
track evaluate mot --camera-motion off --plot new.png
bench --model model.onnx
bench --node --seconds 0 --model model.onnx
demo --model model.onnx --seconds 0 --source images --out new
gpu-check --model model.onnx --engines new --frames 1 --images 1
""".splitlines()

_NUMBERS = ('', '0', '-1', '-0.5', '1', '2', '1.5', '1e3', '1e30', '1e999', 'nan', 'inf', '-inf',
            '9' * 30, '-' + '9' * 30, '9' * 5000, '4096', '65536', '0x10', 'x', '\u0663')
_PATHS = (
    '', ' ', '-', '.', '/', 'ä\n', '\udcff', 'x' * 300, 'x' * 5000, 'x.onnx', 'none.pt', 'pipe',
    'model.onnx/x', '/proc/self/none/x', 'broken.onnx', 'text.onnx',
    'empty.onnx', 'folder.onnx', 'model.onnx', 'weights.pt', 'broken.pt', 'empty.pt', 'half.jpg',
    'huge.png', 'images', 'bad_images', 'bag', 'broken.mcap', 'broken.yaml', 'mot', 'bad_mot',
    'coco.json', 'broken.json', 'other.json', 'my.engine', 'scene', 'x=1', '=', 'lost_seconds=nan',
    'lost_seconds=-1', 'lost_seconds=1e400', 'low_score=x', '64x64', '0x0', '-64x64',
    '100000x100000', '33x64', '9' * 30 + 'x32', 'xx', 'synthetic', '9999', 'rtsp://127.0.0.1:1/x')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Return a folder with good and broken files of every kind."""
    folder, rng = tmp_path_factory.mktemp('files'), np.random.default_rng(0)
    from yolojet_ros.model import checkpoint
    files = {
        'model.onnx': exported(), 'broken.onnx': exported()[:5000], 'empty.onnx': b'',
        'text.onnx': b'no model at all\n' * 9, 'broken.pt': rng.bytes(999), 'empty.pt': b'',
        'half.jpg': jpeg()[:800], 'huge.png': huge_png(), 'my.engine': rng.bytes(999),
        'my.engine.json': b'{"onnx": 3}', 'broken.mcap': rng.bytes(99),
        'bag/metadata.yaml': b'rosbag2_bagfile_information: 3\n', 'broken.yaml': b'a: [',
        'images/a.jpg': jpeg(), 'images/b.jpg': jpeg(), 'bad_images/a.jpg': jpeg()[:500],
        'bad_images/b.png': huge_png(), 'broken.json': b'{', 'folder.onnx/x': b'',
        'coco.json': b'{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"id": 1, '
                     b'"image_id": 1, "category_id": 7, "bbox": [1, 2, 9, 9]}], "categories": '
                     b'[{"id": 7, "name": "cone"}]}',
        'other.json': b'{"images": [{"id": 1}], "annotations": [{"category_id": []}], '
                      b'"categories": [{"id": 7, "name": "cone"}, 3]}',
        'mot/seqinfo.ini': b'[Sequence]\nframeRate=10\nseqLength=2\nimWidth=64\nimHeight=64\n',
        'mot/gt/gt.txt': b'1,1,1,1,9,9,1,1,1\n', 'mot/det/det.txt': b'1,-1,1,1,9,9,0.9\n',
        'bad_mot/seqinfo.ini': b'[Sequence]\nframeRate=nan\nseqLength=99999999999\n',
        'bad_mot/gt/gt.txt': b'\xff\xfe\0', 'bad_mot/det/det.txt': b'nan,1\n'}
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    checkpoint.save(trained_model(), folder / 'weights.pt')
    os.mkfifo(folder / 'pipe')
    return folder


def _is_number(word):
    try:
        float(word)
        return True
    except ValueError:
        return False


def _mutate(rng, line):
    """Replace one or two values, mostly by others of their kind; leave out or repeat a word."""
    words = line.split()
    first = 2 if words[0] in ('model', 'engine', 'track') else 1
    for _ in range(int(rng.integers(1, 3))):
        values = [at for at in range(first, len(words)) if not words[at].startswith('--')]
        if not values:
            break
        at, kind = values[int(rng.integers(len(values)))], rng.integers(20)
        pool = _NUMBERS if _is_number(words[at]) == (kind != 1) else _PATHS
        if kind == 0:
            del words[at]
        else:
            words[at] = pool[int(rng.integers(len(pool)))]
    return words


def _run(words, capfd):
    """Run a command line in this process; return (exit code, last line said)."""
    def interrupt(*_):
        raise KeyboardInterrupt
    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(_SECONDS)
    try:
        code = command_line.main(words)
    except SystemExit as error:  # argparse
        code = error.code
    except BaseException as error:
        pytest.fail(f'{words}: {type(error).__name__}: {str(error)[:500]}')
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    said = capfd.readouterr().err.strip().splitlines()
    own = [line for line in said if line.startswith('yolojet')]
    return code, own[-1] if own else ''


def test_wrong_command_lines_end_in_one_sentence(folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    monkeypatch.setenv('XDG_CONFIG_HOME', str(folder / 'config'))
    monkeypatch.setenv('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
    rng, codes = np.random.default_rng(0), []
    for index in range(count(230)):
        words = _mutate(rng, _LINES[index % len(_LINES)])
        code, sentence = _run(words, capfd)
        codes.append(code)
        assert code in (0, 1, 2, 130), words
        if code == 2:
            assert 10 < len(sentence) < 6000, (words, sentence)
        left = [str(path) for path in folder.rglob('.*') if path.is_file()]
        assert not left, (words, left)
    assert codes.count(2) > len(codes) / 2
    with capfd.disabled():
        print({code: codes.count(code) for code in set(codes)}, end=' ')


@pytest.mark.parametrize('words, said', [
    (['track', 'evaluate', 'mot', '--camera-motion', 'off', '--plot', ''], '--plot'),
    (['model', 'info', '--classes', '9' * 30], '1 to 10000 classes'),
    (['model', 'evaluate', 'model.onnx', '--data', 'huge.png', 'images'], 'not a COCO'),
    (['model', 'evaluate', 'model.onnx', '--threads', '65536'], '0 to 256'),
    (['model', 'export', 'weights.pt', 'new.onnx', '--nms', 'layer', '--iou', 'nan'], '--iou'),
    (['model', 'train', 'new.pt', '--learning-rate', '-1'], 'learning_rate'),
    (['bench', '--node', '--seconds', 'nan'], '--seconds'),
    (['model', 'fp16', 'model.onnx', 'images'], 'cannot write'),
    (['model', 'fp16', '\udcff.onnx', 'new.onnx'], 'no model at'),
])
def test_what_was_found_stays_one_sentence(folder, monkeypatch, capfd, words, said):
    monkeypatch.chdir(folder)
    code, sentence = _run(words, capfd)
    assert code == 2 and said in sentence and len(sentence) < 400


def test_a_model_may_be_written_under_any_name(folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    assert _run(['model', 'quantize', 'model.onnx', 'any.json', '--dynamic'], capfd)[0] == 0
    assert sorted(path.name for path in folder.glob('*any*')) == ['any.json']
