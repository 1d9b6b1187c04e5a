"""`yolojet detect` as people start it: real files in, JSON, copies and sentences out."""

import fcntl
import json
import os
from pathlib import Path
import pty
import signal
import struct
import subprocess
import sys
import termios
import time

import cv2
from image_samples import jpeg, picture
from models import raw_output, write_model
import numpy as np
import pytest

from yolojet_ros.cli.main import main

_ROOT = Path(__file__).resolve().parents[1]
_SIZE = (320, 192)
# In network pixels cx, cy, w, h; an image of 640x480 lies 256x192 in the middle of 320x192.
_BOXES = [[160, 96, 64, 48], [80, 40, 32, 16]]
_SCORES = [[0.9, 0, 0], [0, 0, 0.6]]
_IN_IMAGE = [[240, 180, 400, 300], [80, 80, 160, 120]]


def _start(*words, cwd=None, **options):
    return subprocess.Popen(
        [sys.executable, '-m', 'yolojet_ros', 'detect', *map(os.fspath, words)], cwd=cwd,
        env={**os.environ, 'PYTHONPATH': str(_ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options)


def _run(*words, code=0, cwd=None):
    """Return (stdout, lines of stderr)."""
    process = _start(*words, cwd=cwd)
    out, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert 'Traceback' not in said
    return out, said.splitlines()


def _seen(*words, code=0, cwd=None):
    """Return (what the JSON says, lines of stderr)."""
    out, said = _run(*words, '--json', code=code, cwd=cwd)
    return json.loads(out), said


def _refused(capfd, *words):
    """Return the sentence of a run in this process, which ends with 2 and prints nothing else."""
    code = main(['detect', *map(os.fspath, words)])
    out, said = capfd.readouterr()
    assert code == 2 and out == '' and len(said.splitlines()) == 1, (words, said)
    return said


def _image(path, size=(640, 480), value=90):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(cv2.imencode(path.suffix, np.full((size[1], size[0], 3), value, np.uint8))[1])
    return path


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / 'model.onnx', raw_output(_BOXES, _SCORES, _SIZE))


@pytest.fixture
def film(tmp_path):
    path = tmp_path / 'film.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 12.5, (64, 48))
    for index in range(5):
        writer.write(np.full((48, 64, 3), 40 + 40 * index, np.uint8))
    writer.release()
    return path


def test_json_of_an_image_is_in_its_pixels(tmp_path, model):
    image = _image(tmp_path / 'a.png')
    (entry,), said = _seen(image, '--model', model)
    assert said == []
    assert (entry['image'], entry['width'], entry['height']) == (str(image), 640, 480)
    assert 'frame' not in entry
    for found, box, (score, index, name) in zip(
            entry['detections'], _IN_IMAGE, [(0.9, 0, 'crate'), (0.6, 2, 'cone')]):
        assert set(found) == {'box', 'score', 'class_id', 'class'}
        np.testing.assert_allclose(found['box'], box, atol=0.01)
        assert found['score'] == pytest.approx(score, abs=1e-5)
        assert (found['class_id'], found['class']) == (index, name)


def test_settings_act_as_the_parameters_of_the_node(tmp_path, model, capfd):
    image = _image(tmp_path / 'a.png')
    for settings, names in (
            (['score_threshold=0.7'], ['crate']), (['classes=[cone]'], ['cone']),
            (['classes=cone'], ['cone']), (['class_thresholds=[crate:0.95]'], ['cone']),
            (['roi=[0, 0, 0.3, 0, 0.3, 1, 0, 1]'], ['cone']),
            (['score_threshold=0.95'], []),
            (['score_threshold=0.5', 'max_detections=1'], ['crate'])):
        words = [word for setting in settings for word in ('--set', setting)]
        assert main(['detect', str(image), '--json', '--model', str(model), *words]) == 0
        (entry,) = json.loads(capfd.readouterr().out)
        assert [found['class'] for found in entry['detections']] == names, settings


def test_masks_are_coco_rle(tmp_path):
    coco = pytest.importorskip('pycocotools.mask')
    prototypes = np.full((1, 32, 48, 80), -1, np.float32)
    prototypes[0, 0, :, 40:] = 1  # the right half of the input
    rows = raw_output([[*_BOXES[0]]], [[0.9, 0, 0] + [1] + [0] * 31], _SIZE, classes=35)
    model = write_model(tmp_path / 'm.onnx', rows, more=[prototypes], metadata={'task': 'segment'})
    (entry,), said = _seen(_image(tmp_path / 'a.png'), '--model', model)
    rle = entry['detections'][0]['mask_rle']
    mask = coco.decode(rle)
    assert mask.shape == (480, 640) and isinstance(rle['counts'], str)
    expected = np.zeros((480, 640), np.uint8)
    expected[180:300, 320:400] = 1
    assert (mask & expected).sum() / (mask | expected).sum() > 0.98 and said == []


def test_masks_without_pycocotools_are_refused_in_a_sentence(tmp_path):
    rows = raw_output([], [], _SIZE, classes=35)
    prototypes = np.zeros((1, 32, 48, 80), np.float32)
    model = write_model(tmp_path / 'm.onnx', rows, more=[prototypes], metadata={'task': 'segment'})
    (tmp_path / 'pycocotools').mkdir()
    (tmp_path / 'pycocotools' / '__init__.py').write_text('raise ImportError("none")')
    image = _image(tmp_path / 'a.png')
    out, said = _run(image, '--model', model, '--json', code=2, cwd=tmp_path)
    assert out == '' and len(said) == 1 and 'pycocotools' in said[0]
    assert 'a.png: 640x480, nothing' in _run(image, '--model', model, cwd=tmp_path)[0]


def test_keypoints_are_in_pixels_of_the_image(tmp_path):
    rows = raw_output([_BOXES[0]], [[0.9, 150, 90, 0.8, 170, 100, 0.2]], _SIZE, classes=7)
    model = write_model(tmp_path / 'm.onnx', rows, names=['person'],
                        metadata={'task': 'pose', 'kpt_shape': '[2, 3]'})
    (entry,), _ = _seen(_image(tmp_path / 'a.png'), '--model', model)
    np.testing.assert_allclose(
        entry['detections'][0]['keypoints'], [[295, 225, 0.8], [345, 250, 0.2]], atol=0.01)


def test_rotated_boxes_have_angle_polygon_and_the_box_around(tmp_path):
    rows = raw_output([[160, 96, 64, 32]], [[0.9, 0, 0, 0.5]], _SIZE, classes=4)
    model = write_model(tmp_path / 'm.onnx', rows, metadata={'task': 'obb'})
    (entry,), _ = _seen(_image(tmp_path / 'a.png'), '--model', model)
    found = entry['detections'][0]
    assert found['angle'] == pytest.approx(0.5, abs=1e-5)
    turned = cv2.boxPoints(((320, 240), (160, 80), np.degrees(0.5)))
    polygon = np.array(found['polygon'])
    assert max(np.linalg.norm(polygon - corner, axis=1).min() for corner in turned) < 0.01
    np.testing.assert_allclose(
        found['box'], [*polygon.min(axis=0), *polygon.max(axis=0)], atol=0.01)


def test_a_classifier_tells_its_best_classes(tmp_path):
    names = [f'kind {index}' for index in range(9)]
    model = write_model(tmp_path / 'm.onnx', np.arange(9)[None] / 36, names=names,
                        metadata={'task': 'classify'})
    image = _image(tmp_path / 'a.png')
    (entry,), _ = _seen(image, '--model', model)
    assert entry['detections'] == []
    assert [found['class'] for found in entry['classification']] == names[:3:-1]
    assert entry['classification'][0] == {
        'score': pytest.approx(8 / 36, abs=1e-5), 'class_id': 8, 'class': 'kind 8'}
    out, _ = _run(image, '--model', model, '--save', tmp_path / 'out')
    assert 'kind 8 0.22, kind 7 0.19' in out
    assert (cv2.imread(str(tmp_path / 'out' / 'a.png')) != 90).any()


def test_images_of_every_kind_in_a_folder_with_other_files(tmp_path, model):
    folder = tmp_path / 'bilder ä\u0308 日本 ²'
    _image(folder / '10.png')
    _image(folder / '2.jpg', (300, 200))
    cv2.imwrite(str(tmp_path / 'gray.png'), np.full((48, 64), 77, np.uint8))
    (tmp_path / 'gray.png').rename(folder / '²1.png')
    deep = np.full((60, 80, 3), 40000, np.uint16)
    (folder / 'deep.tif').write_bytes(cv2.imencode('.tif', deep)[1])
    # 6: the camera was turned; shown it is 45 wide and 61 high.
    exif = b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0'
    data = jpeg()
    (folder / 'turned.JPG').write_bytes(
        data[:2] + b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif + data[2:])
    (folder / 'notes.txt').write_text('no image')
    (folder / 'folder.png').mkdir()
    os.mkfifo(folder / 'pipe.png')
    seen, said = _seen(folder, '--model', model, '--save', tmp_path / 'out')
    sizes = {Path(entry['image']).name: (entry['width'], entry['height']) for entry in seen}
    assert said == [] and list(sizes)[:2] == ['2.jpg', '10.png']
    assert sizes == {'2.jpg': (300, 200), '10.png': (640, 480), 'deep.tif': (80, 60),
                     'turned.JPG': (45, 61), '²1.png': (64, 48)}
    for name, (width, height) in sizes.items():
        copy = cv2.imdecode(np.frombuffer((tmp_path / 'out' / name).read_bytes(), np.uint8), 1)
        assert copy.shape == (height, width, 3)


def test_names_that_are_not_utf8_can_be_read_back_from_the_json(tmp_path, model):
    name = os.fsdecode(b'\xff\n.png')
    _image(tmp_path / 'a.png').rename(tmp_path / name)
    (entry,), said = _seen(tmp_path / name, '--model', model, '--save', tmp_path / 'out')
    assert os.fsencode(entry['image']) == os.fsencode(tmp_path / name) and said == []
    assert (tmp_path / 'out' / name).is_file()
    assert len(_run(tmp_path / name, '--model', model)[0].splitlines()) == 1


def test_videos_whose_names_are_not_utf8_are_refused(tmp_path, model, film):
    named = film.rename(tmp_path / os.fsdecode(b'\xff.avi'))
    out, said = _run(named, '--model', model, code=2)
    assert out == '' and len(said) == 1 and 'is not UTF-8; rename it' in said[0]
    film = named.rename(tmp_path / 'film.avi')
    _, said = _run(film, '--model', model, '--save', tmp_path / os.fsdecode(b'\xff'), code=2)
    assert len(said) == 1 and 'is not UTF-8; rename it' in said[0]


def test_progress_is_shown_on_a_terminal_only(tmp_path, model, film):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, '-m', 'yolojet_ros', 'detect', film, '--model', model, '--json'],
        env={**os.environ, 'PYTHONPATH': str(_ROOT)}, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    assert len(json.loads(process.stdout.read())) == 5 and process.wait(30) == 0
    shown = b''
    while b'5/5' not in shown:  # at its end it fails
        shown += os.read(ours, 1 << 16)
    os.close(ours)


def test_a_broken_input_is_named_and_the_others_are_processed(tmp_path, model):
    folder = tmp_path / 'images'
    _image(folder / 'a.png')
    _image(folder / 'c.png')
    (folder / 'b.jpg').write_bytes(jpeg()[:500])
    (folder / 'b.tif').write_bytes(cv2.imencode('.tif', picture())[1].tobytes()[:99])
    (tmp_path / 'broken.mp4').write_bytes(b'no film' * 99)
    seen, said = _seen(folder, tmp_path / 'broken.mp4', '--model', model,
                       '--save', tmp_path / 'out', code=2)
    assert [Path(entry['image']).name for entry in seen] == ['a.png', 'c.png']
    # An older OpenCV lets FFmpeg say something, too.
    own = [line for line in said if line.startswith('yolojet: ')]
    assert len(own) == 3 and len(said) <= 4, said
    assert all(name in line for line, name in zip(own, ('b.jpg', 'b.tif', 'broken.mp4')))
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['a.png', 'c.png']


def test_an_absent_input_is_named_and_the_others_are_processed(tmp_path, model, capfd):
    image, absent, empty = _image(tmp_path / 'a.png'), tmp_path / 'none.png', tmp_path / 'empty'
    empty.mkdir()
    seen, said = _seen(absent, image, empty, '--model', model, '--save', tmp_path / 'out', code=2)
    assert [entry['image'] for entry in seen] == [str(image)]
    assert len(said) == 2 and all(line.startswith('yolojet: ') for line in said)
    assert 'none.png is neither a file' in said[0] and 'empty holds no images' in said[1]
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['a.png']
    sentence = _refused(capfd, absent, empty, '--model', model, '--json')
    assert 'none.png' in sentence and 'empty' in sentence


def test_a_video_is_told_by_frames_and_saved_whole(tmp_path, model, film):
    seen, said = _seen(film, '--model', model, '--save', tmp_path / 'out')
    assert [entry['frame'] for entry in seen] == [0, 1, 2, 3, 4] and said == []
    assert {(entry['image'], entry['width'], entry['height']) for entry in seen} == {
        (str(film), 64, 48)}
    assert all(len(entry['detections']) == 2 for entry in seen)
    capture = cv2.VideoCapture(str(tmp_path / 'out' / 'film.mp4'))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    levels = [capture.read()[1].mean() for _ in range(5)]
    assert not capture.read()[0] and levels == sorted(levels)
    out, _ = _run(film, '--model', model)
    assert out == f'{film}: 5 pictures of 64x48, 5 crate, 5 cone\n'


def test_a_video_that_is_cut_off_is_told_as_far_as_it_goes(tmp_path, model, film):
    data = film.read_bytes()
    film.write_bytes(data[:data.rindex(b'00dc', 0, data.rindex(b'idx1'))])  # the last picture
    seen, said = _seen(film, '--model', model)
    assert [entry['frame'] for entry in seen] == [0, 1, 2, 3]
    assert 'ends after 4 pictures, though it promises 5' in said[-1]


def test_copies_never_replace_an_input_or_each_other(tmp_path, model, capfd):
    first, second = _image(tmp_path / 'a' / 'x.png'), _image(tmp_path / 'b' / 'x.png', (64, 48))
    before = first.read_bytes(), second.read_bytes()
    _run(first, second, first, '--model', model, '--save', tmp_path / 'out')
    widths = {path.name: cv2.imread(str(path)).shape[1] for path in (tmp_path / 'out').iterdir()}
    assert widths == {'x.png': 640, 'x_2.png': 64, 'x_3.png': 640}
    (tmp_path / 'link').mkdir()
    os.link(second, tmp_path / 'link' / 'x.png')
    (tmp_path / 'soft').symlink_to('b')
    for folder in ('a', 'b', 'link', 'soft', 'a/../b'):
        assert 'is one of the inputs' in _refused(
            capfd, first, second, '--model', model, '--save', tmp_path / folder)
    assert (first.read_bytes(), second.read_bytes()) == before
    assert 'is no folder' in _refused(capfd, first, '--model', model, '--save', second)


def test_class_names_of_strangers(tmp_path):
    names = ['a\nb\x1b[31m', '"]}, {', '\U0001f600' * 200]
    model = write_model(
        tmp_path / 'm.onnx', raw_output(_BOXES, _SCORES, _SIZE), names=names)
    image = _image(tmp_path / 'a.png')
    (entry,), said = _seen(image, '--model', model, '--save', tmp_path / 'out')
    assert [found['class'] for found in entry['detections']] == [names[0], names[2]]
    out, more = _run(image, '--model', model)
    assert len(out.splitlines()) == 1 and '\x1b' not in out and said == more == []


def test_a_network_that_fails_on_an_image_is_named_with_it(tmp_path):
    model = write_model(tmp_path / 'm.onnx', raw_output(_BOXES, _SCORES, _SIZE), fragile=True)
    images = [_image(tmp_path / 'a.png'), _image(tmp_path / 'white.png', value=255),
              _image(tmp_path / 'z.png')]
    seen, said = _seen(*images, '--model', model, code=2)
    assert [Path(entry['image']).name for entry in seen] == ['a.png', 'z.png']
    assert len(said) == 1 and 'm.onnx cannot run on' in said[0] and 'white.png' in said[0]


def test_what_makes_no_sense_is_refused_before_anything_is_printed(tmp_path, model, capfd):
    image = _image(tmp_path / 'a.png')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'text.onnx').write_text('no model')
    for words, expected in (
            ([image, '--model', tmp_path / 'none.onnx'], 'no model file at'),
            ([image, '--model', tmp_path / 'text.onnx'], 'is not an ONNX file'),
            ([image, '--model', image], 'ends in ".png"'),
            ([tmp_path / 'none.png'], 'neither a file nor a folder'),
            ([tmp_path / 'empty'], 'holds no images'),
            ([image, '--set', 'score_treshold=1'], 'did you mean score_threshold'),
            ([image, '--set', 'score_threshold=2'], 'score_threshold is 2'),
            ([image, '--set', 'score_threshold'], 'write NAME=VALUE'),
            ([image, '--set', 'classes=[lion]', '--model', model], 'names "lion"'),
            ([image, '--input-size', '640'], 'such as 640x384'),
            ([image, '--device', '1', '--model', model], 'device is 1, but'),
            ([image, '--input-size', '640x640', '--model', model], 'of 320x192 only'),
            ([image, '--backend', 'tensorrt', '--model', model], 'TensorRT needs an engine')):
        assert expected in _refused(capfd, *words, '--json'), words


def test_an_input_size_for_a_model_that_leaves_it_open(tmp_path):
    model = write_model(tmp_path / 'm.onnx', raw_output(_BOXES, _SCORES, _SIZE), dynamic=True,
                        metadata={'imgsz': None})
    image = _image(tmp_path / 'a.png')
    assert 'set input_size' in _run(image, '--model', model, code=2)[1][0]
    (entry,), _ = _seen(image, '--model', model, '--input-size', '320x192')
    np.testing.assert_allclose(entry['detections'][0]['box'], _IN_IMAGE[0], atol=0.01)


def test_without_a_model_the_demo_runs_and_says_so():
    (entry,), said = _seen(_ROOT / 'docs' / 'demo.jpg')
    assert len(entry['detections']) > 5 and len(said) == 1 and 'the demo model' in said[0]


@pytest.mark.parametrize('number, code', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_whole_json_and_no_half_copy(tmp_path, film, number, code):
    model = write_model(tmp_path / 'm.onnx', raw_output(_BOXES, _SCORES, _SIZE), slow=20)
    out = tmp_path / 'out'
    process = _start(*[film] * 40, '--model', model, '--save', out, '--json')
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(number)
    rest, said = process.stdout.read(), process.stderr.read()
    assert process.wait(30) == code and said == ''
    assert 2 <= len(json.loads(''.join(lines) + rest)) < 200
    assert all(not path.name.startswith('.') for path in out.iterdir())


def test_a_reader_who_has_enough_ends_the_work(tmp_path, film):
    model = write_model(tmp_path / 'm.onnx', raw_output(_BOXES, _SCORES, _SIZE), slow=5)
    start = time.monotonic()
    process = _start(*[film] * 200, '--model', model, '--json')
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 1 and said == '' and time.monotonic() - start < 20
