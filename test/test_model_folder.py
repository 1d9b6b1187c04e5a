"""Training on a user's own data: real folders on disk, real commands, bad labels by line."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import yaml

torch = pytest.importorskip('torch')
pytest.importorskip('pycocotools')
torch.set_num_threads(1)  # small networks: more threads only wait for each other

from yolojet_ros.cli.main import main  # noqa: E402
from yolojet_ros.core.errors import UserError  # noqa: E402
from yolojet_ros.model import checkpoint  # noqa: E402
from yolojet_ros.model.data import scene_still  # noqa: E402
from yolojet_ros.model.export import export  # noqa: E402
from yolojet_ros.model.start_weights import read_weights, settle, take_over  # noqa: E402
from yolojet_ros.model.yolo_folder import label_file, YoloFolder  # noqa: E402
from yolojet_ros.model.yolov8 import Detector, Task, YOLOv8  # noqa: E402
from yolojet_ros.sim.frame import CLASS_NAMES, KEYPOINT_FLIP  # noqa: E402

_SIZE = (160, 96)
_SEED = 38
TASKS = ('detect', 'segment', 'pose', 'obb')


def _row(task, still, index):
    """Write one object of a still as a label, None where it cannot be written."""
    width, height = _SIZE
    x1, y1, x2, y2 = still.boxes[index]
    box = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
    if task == 'detect':
        return box
    if task == 'pose':
        points = still.keypoints[index].copy()
        points[:, :2] /= _SIZE
        points[points[:, 2] == 0] = 0
        return box + points.ravel().tolist()
    if task == 'segment':
        # Finer, since a contour goes through the middles of pixels.
        mask = np.kron(still.instances == index + 1, np.ones((8, 8))).astype(np.uint8)
        contours = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[-2]
        best = max(contours, key=len)
        if len(best) < 8 * 8:
            return None
        return ((best.reshape(-1, 2) + 0.5) / 8 / _SIZE).ravel().tolist()
    cx, cy, w, h, angle = still.rotated[index].tolist()
    along = np.array([math.cos(angle), math.sin(angle)]) * w / 2
    across = np.array([-math.sin(angle), math.cos(angle)]) * h / 2
    corners = np.array([cx, cy]) + [-along - across, along - across, along + across,
                                    across - along]
    corners /= _SIZE
    return corners.ravel().tolist() if 0 <= corners.min() and corners.max() <= 1 else None


def _folder(root, task, count=3):
    """Write a data set of scene stills; the last image is for validation."""
    for index in range(count + 1):
        part = 'val' if index == count else 'train'
        still = scene_still(_SEED + index, _SIZE, turned=task == 'obb')
        image = root / 'images' / part / f'{index}.png'
        labels = root / 'labels' / part / f'{index}.txt'
        image.parent.mkdir(parents=True, exist_ok=True)
        labels.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(cv2.imencode('.png', still.image)[1].tobytes())
        rows = [(c, _row(task, still, i)) for i, c in enumerate(still.classes)]
        labels.write_text(''.join(
            ' '.join(map(str, [label, *(f'{v:.6f}' for v in row)])) + '\n'
            for label, row in rows if row is not None))
    content = {'path': '.', 'train': 'images/train', 'val': 'images/val',
               'names': dict(enumerate(CLASS_NAMES)), 'nc': len(CLASS_NAMES)}
    if task == 'pose':
        content.update(kpt_shape=[4, 3], flip_idx=list(KEYPOINT_FLIP))
    (root / 'data.yaml').write_text(yaml.safe_dump(content))
    return root / 'data.yaml'


@pytest.mark.parametrize('task', TASKS)
def test_labels_mean_what_was_written(task, tmp_path):
    folder = YoloFolder.read(_folder(tmp_path, task), task)
    assert len(folder.train) == 3 and len(folder.val) == 1 and folder.names == CLASS_NAMES
    still = scene_still(_SEED, _SIZE, turned=task == 'obb')
    kept = [i for i in range(len(still.boxes)) if _row(task, still, i) is not None]
    found = folder.labelled(folder.train[0])
    assert len(kept) > 2 and np.array_equal(found.image, still.image)
    assert found.classes.tolist() == still.classes[kept].tolist()
    if task in ('detect', 'pose'):
        np.testing.assert_allclose(found.boxes, still.boxes[kept], atol=1e-2)
    if task == 'pose':
        shown = still.keypoints[kept][..., 2] > 0
        np.testing.assert_allclose(
            found.keypoints[shown], still.keypoints[kept][shown], atol=1e-2)
        assert (found.keypoints[~shown][:, 2] == 0).all()
        assert folder.keypoint_flip == KEYPOINT_FLIP
    if task == 'obb':
        np.testing.assert_allclose(found.rotated[:, :4], still.rotated[kept][:, :4], atol=1e-2)
        turn = found.rotated[:, 4] - still.rotated[kept][:, 4]
        np.testing.assert_allclose(np.cos(turn), 1, atol=1e-3)
    if task == 'segment':
        for place, index in enumerate(kept):
            mine, true = found.instances == place + 1, still.instances == index + 1
            assert (mine & true).sum() > 0.85 * (mine | true).sum()


def test_boxes_are_taken_around_polygons_and_corners(tmp_path):
    data = _folder(tmp_path, 'segment')
    folder = YoloFolder.read(data, 'detect')
    polygons = YoloFolder.read(data, 'segment')
    image = folder.train[0]
    assert np.array_equal(folder.labelled(image).boxes, polygons.labelled(image).boxes)


def _train(data, output, *words):
    return main(['model', 'train', str(output), '--data', str(data), '--size', '96x64',
                 '--device', 'cpu', '--workers', '0', '--batch', '2', *words])


@pytest.mark.parametrize('task', TASKS)
def test_a_training_leaves_weights_table_and_plot(task, tmp_path, capsys):
    data = _folder(tmp_path / 'set', task)
    output = tmp_path / 'mine.pt'
    assert _train(data, output, '--task', task, '--epochs', '2', '--validate-every', '2') == 0
    assert 'tensors from' in capsys.readouterr().out
    for path in (output, tmp_path / 'mine_best.pt'):
        model = checkpoint.load(path)
        assert model.network.task.name == task and model.names == CLASS_NAMES
    rows = list(csv.DictReader((tmp_path / 'mine_results.csv').open()))
    assert [int(row['step']) for row in rows] == [2, 4]
    assert all(math.isfinite(float(row['box_loss'])) for row in rows)
    assert {'segment': 'mask_loss', 'pose': 'kpt_loss'}.get(task, 'dfl_loss') in rows[0]
    plot = tmp_path / 'mine_results.png'
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        assert not plot.exists()
    else:
        assert cv2.imread(str(plot)).shape[1] > 500


@pytest.mark.parametrize('words, text', [
    (('--epochs', '2', '--steps', '3'), '--epochs counts'),
    (('--stills', '5'), '--stills is for the scene'),
    (('--validation-stills', '5'), '--validation-stills is for the scene'),
    (('--weights', 'nowhere.pt'), 'no weights at nowhere.pt')])
def test_options_that_would_do_nothing_are_refused(words, text, tmp_path, capsys):
    data = _folder(tmp_path / 'set', 'detect')
    assert _train(data, tmp_path / 'mine.pt', '--task', 'detect', *words) == 2
    assert text in capsys.readouterr().err and not list(tmp_path.glob('mine*'))


@pytest.mark.parametrize('task', ['segment', 'pose'])
def test_a_data_set_is_measured_by_its_task(task, tmp_path, capsys):
    data = _folder(tmp_path / 'set', task)
    model = checkpoint.TrainedModel(
        YOLOv8('n', 7, Task(task, (4, 3) if task == 'pose' else (0, 0))).eval(), CLASS_NAMES,
        (96, 64))
    export(model, tmp_path / 'm.onnx')
    assert main(['model', 'evaluate', str(tmp_path / 'm.onnx'), '--data', str(data)]) == 0
    said = capsys.readouterr().out
    assert {'segment': 'mAP of masks', 'pose': 'mAP of keypoints'}[task] in said
    assert '1 images' in said


def test_an_interrupted_training_goes_on_where_it_was(tmp_path, monkeypatch):
    from yolojet_ros.model import training

    data = _folder(tmp_path / 'set', 'segment')
    words = ('--task', 'segment', '--steps', '4', '--validate-every', '1', '--seed', '3')
    assert _train(data, tmp_path / 'whole.pt', *words) == 0
    with monkeypatch.context() as patch:
        step = training.Trainer._train_step

        def stopping(trainer, bank):
            if trainer.step == 2:
                checkpoint.save(trainer.snapshot(), tmp_path / 'part.pt')
                raise KeyboardInterrupt
            return step(trainer, bank)
        patch.setattr(training.Trainer, '_train_step', stopping)
        assert _train(data, tmp_path / 'part.pt', *words) != 0
    assert main(['model', 'train', str(tmp_path / 'part.pt'), '--resume', '--device', 'cpu',
                 '--workers', '0']) == 0
    tables = [[row['step'] for row in csv.DictReader((tmp_path / f'{name}_results.csv').open())]
              for name in ('whole', 'part')]
    assert tables[0] == tables[1] == ['1', '2', '3', '4']
    whole, part = (checkpoint.load(tmp_path / f'{name}.pt').network.state_dict()
                   for name in ('whole', 'part'))
    assert all(torch.equal(whole[name], part[name]) for name in whole)


@pytest.mark.parametrize('task, line, text', [
    ('detect', '0 0.5 0.5 0.1', '3 numbers behind the class; for the task detect'),
    ('detect', '9 0.5 0.5 0.1 0.1', 'class 9, but data.yaml names 7: 0 to 6'),
    ('detect', '0.5 0.5 0.5 0.1 0.1', 'class 0.5, but'),
    ('detect', '0 320 200 50 50', 'coordinate 320 is outside 0..1'),
    ('detect', '0 0.5 0.5 -0.1 0.1', 'coordinate -0.1 is outside 0..1'),
    ('detect', '0 0.5 0.5 0 0.1', 'a box of 0 x 0.1 is empty'),
    ('detect', '0 0.5 nan 0.1 0.1', 'not finite'),
    ('detect', 'crate 0.5 0.5 0.1 0.1', 'are not only numbers'),
    ('segment', '0 0.5 0.5 0.1 0.1', 'a polygon of 3 or more points'),
    ('segment', '0 0.1 0.1 0.2 0.1 0.3 0.1', 'the points enclose no area'),
    ('segment', '0 .1 .2 .15 .3 .2 .4', 'the points enclose no area'),
    ('obb', '0 .1 .2 .2 .4 .3 .6 .4 .8', 'the points enclose no area'),
    ('obb', '0 .1 .1 .3 .3 .3 .1 .1 .3', 'the points enclose no area'),
    ('detect', '0 .5 .5 1e-300 .1', 'is empty'),
    ('obb', '0 0.5 0.5 0.1 0.1 0.3', '4 corners'),
    ('pose', '0 0.5 0.5 0.1 0.1', 'there must be 16: cx cy w h, then the keypoints'),
    ('pose', '0 .5 .5 .1 .1' + ' .5 .5 7' * 4, '0 (not labelled), 1 (hidden) or 2'),
    ('pose', '0 .5 .5 .1 .1' + ' 1.5 .5 2' * 4, 'coordinate 1.5 is outside'),
    ('pose', '0 .5 .5 .1 .1 1e308 1e308 0' + ' .5 .5 2' * 3, 'coordinate 1e+308 is outside'),
    ('pose', '0 .5 .5 .1 .1 -1 -1 0' + ' .5 .5 2' * 3, 'coordinate -1 is outside')])
def test_a_bad_label_is_named_by_file_and_line_before_training(
        task, line, text, tmp_path, capsys):
    data = _folder(tmp_path / 'set', task)
    labels = tmp_path / 'set' / 'labels' / 'train' / '1.txt'
    good = labels.read_text()
    labels.write_text(good + '\n' + line + '\n')
    assert _train(data, tmp_path / 'mine.pt', '--task', task) == 2
    message = capsys.readouterr().err
    assert f'1.txt:{good.count(chr(10)) + 2}: ' in message and text in message
    assert message.count('\n') == 1 and not list(tmp_path.glob('mine*'))


@pytest.mark.parametrize('change, text', [
    ({'train': 'nowhere'}, '"train" names'), ({'val': None}, 'has no "val:"'),
    ({'names': []}, 'has no "names:"'), ({'nc': 3}, '"nc" is 3, but there are 7'),
    ({'names': {1: 'a', 2: 'b'}}, 'does not number its classes from 0'),
    ({'val': 'labels/val'}, '"val" has no image'), ({'kpt_shape': [4, 9]}, 'kpt_shape: [K, D]'),
    ({'flip_idx': [0, 0, 1, 2]}, '"flip_idx" must hold every number'),
    ({'flip_idx': ['1', '0', '2', '3']}, '"flip_idx" must hold every number'),
    ({'flip_idx': [True, False, 2, 3]}, '"flip_idx" must hold every number'),
    ({'kpt_shape': [True, 3]}, 'kpt_shape: [K, D]'), ({'path': [1]}, '"path" is no text'),
    ({'train': 'x' * 5000}, '"train" names'),
    ({'names': [True, False], 'nc': 2}, 'put quotes around'),
    ({'names': ['a', None], 'nc': 2}, 'put quotes around'),
    ({'names': [1.1], 'nc': 1}, 'put quotes around')])
def test_a_bad_data_yaml_is_refused_in_one_sentence(change, text, tmp_path):
    data = _folder(tmp_path, 'pose')
    data.write_text(yaml.safe_dump({**yaml.safe_load(data.read_text()), **change}))
    with pytest.raises(UserError) as error:
        YoloFolder.read(data, 'pose')
    assert text in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('text', ['', 'a: [', '- 1\n', '&a [*a]\n'])
def test_what_is_no_data_yaml_is_refused(text, tmp_path):
    (tmp_path / 'd.yaml').write_text(text)
    with pytest.raises(UserError):
        YoloFolder.read(tmp_path / 'd.yaml', 'detect')


_BOMB = 'a: &a [1]\n' + ''.join(
    f'{chr(98 + i)}: &{chr(98 + i)} [{", ".join(["*" + chr(97 + i)] * 9)}]\n' for i in range(12))
_MERGES = 'a: &a {x: 1}\n' + ''.join(
    f'{chr(98 + i)}: &{chr(98 + i)} {{<<: [{", ".join(["*" + chr(97 + i)] * 9)}]}}\n'
    for i in range(12))


@pytest.mark.parametrize('text', [
    f'{_BOMB}names: [x]\nnc: *m\n', f'{_BOMB}names: [x]\npath: *m\n', _MERGES,
    'names: [' + 'x, ' * 300_000 + 'x]'], ids=['nc', 'path', 'merge', 'long'])
def test_a_data_yaml_made_to_take_hours_is_refused_at_once(text, tmp_path):
    (tmp_path / 'd.yaml').write_text(text)
    # In a process of its own: what hangs in the parser cannot be interrupted from within.
    code = ('import sys; from pathlib import Path\n'
            'from yolojet_ros.core.errors import UserError\n'
            'from yolojet_ros.model.yolo_folder import YoloFolder\n'
            'try: YoloFolder.read(Path(sys.argv[1]), "detect")\n'
            'except UserError as error: print(error)')
    ended = subprocess.run([sys.executable, '-c', code, str(tmp_path / 'd.yaml')], timeout=60,
                           stdout=subprocess.PIPE, check=True)
    assert b'cannot be read' in ended.stdout and ended.stdout.count(b'\n') == 1


def test_numbers_name_classes(tmp_path):
    data = _folder(tmp_path, 'detect')
    data.write_text(yaml.safe_dump(
        {**yaml.safe_load(data.read_text()), 'names': list(range(7))}))
    assert YoloFolder.read(data, 'detect').names == tuple('0123456')


def test_only_files_are_images(tmp_path):
    data = _folder(tmp_path, 'detect')
    os.mkfifo(tmp_path / 'images' / 'train' / 'pipe.png')
    (tmp_path / 'images' / 'train' / 'folder.png').mkdir()
    assert [image.name for image in YoloFolder.read(data, 'detect').train] == [
        '0.png', '1.png', '2.png']
    (tmp_path / 'list.txt').write_text('images/train/0.png\nimages/train/pipe.png\n')
    data.write_text(data.read_text().replace('images/train', 'list.txt'))
    with pytest.raises(UserError, match='pipe.png", which is no file'):
        YoloFolder.read(data, 'detect')


def _with_keypoints(tmp_path, shape, line):
    data = _folder(tmp_path / 'set', 'detect')
    data.write_text(yaml.safe_dump({**yaml.safe_load(data.read_text()), 'kpt_shape': shape}))
    (tmp_path / 'set' / 'labels' / 'train' / '0.txt').write_text(line)
    return data


@pytest.mark.parametrize('shape, line', [
    ([2, 2], '0 .5 .5 .2 .3 .45 .4 .55 .6\n'), ([1, 3], '0 .5 .5 .2 .3 .45 .4 2\n'),
    ([2, 2], '0 .5 .5 .2 .3\n')])
def test_detection_takes_the_box_before_keypoints(shape, line, tmp_path):
    folder = YoloFolder.read(_with_keypoints(tmp_path, shape, line), 'detect')
    folder.check()
    np.testing.assert_allclose(
        folder.labelled(folder.train[0]).boxes / np.tile(_SIZE, 2), [[.4, .35, .6, .65]],
        rtol=1e-5)
    assert folder.keypoints == (0, 0)


@pytest.mark.parametrize('task, count, text', [
    ('detect', 10, 'there must be 4 (cx cy w h) or 8'),
    ('segment', 8, 'choose the task pose or detect'),
    ('obb', 8, 'choose the task pose or detect')])
def test_numbers_that_may_be_keypoints_or_a_polygon_are_refused(
        task, count, text, tmp_path, capsys):
    line = '0 .5 .5 .2 .3 .45 .4 .55 .6 .7 .7'
    data = _with_keypoints(tmp_path, [2, 2], ' '.join(line.split()[:1 + count]) + '\n')
    assert _train(data, tmp_path / 'mine.pt', '--task', task) == 2
    said = capsys.readouterr().err
    assert '0.txt:1: ' in said and text in said and said.count('\n') == 1


@pytest.mark.parametrize('part', ['train', 'val'])
def test_a_set_without_any_label_is_refused(part, tmp_path, capsys):
    data = _folder(tmp_path / 'set', 'detect')
    for labels in (tmp_path / 'set' / 'labels' / part).iterdir():
        labels.unlink()
    assert _train(data, tmp_path / 'mine.pt', '--task', 'detect') == 2
    said = capsys.readouterr().err
    assert f'of "{part}"; the labels of the first belong into' in said
    assert said.count('\n') == 1 and not list(tmp_path.glob('mine*'))


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(value, tmp_path, capsys):
    data = _folder(tmp_path / 'set', 'detect')
    network = _random('detect')
    network.stage1.conv.weight.data[0, 0, 0, 0] = value
    torch.save(network.state_dict(), tmp_path / 'w.pt')
    assert _train(data, tmp_path / 'mine.pt', '--task', 'detect', '--weights',
                  str(tmp_path / 'w.pt')) == 2
    assert 'stage1.conv.weight has numbers that are not finite' in capsys.readouterr().err
    assert not list(tmp_path.glob('mine*'))
    checkpoint.save(checkpoint.TrainedModel(network, CLASS_NAMES, (96, 64)), tmp_path / 'own.pt')
    with pytest.raises(UserError, match='not finite'):
        checkpoint.load(tmp_path / 'own.pt')


def _diverging(tmp_path, weights):
    """Train from weights that are finite, but too large to count with."""
    network = _random('detect')
    for name, parameter in network.named_parameters():
        if name.endswith('classes.2.bias'):
            parameter.data.fill_(3e38)
    torch.save(network.state_dict(), weights)
    return _folder(tmp_path / 'set', 'detect')


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path, capsys):
    data = _diverging(tmp_path, tmp_path / 'w.pt')
    assert _train(data, tmp_path / 'mine.pt', '--task', 'detect', '--weights',
                  str(tmp_path / 'w.pt')) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert 'not finite in step 1' in said and 'no weights were written' in said
    assert not list(tmp_path.glob('mine*'))


def test_the_last_good_weights_stay_when_the_loss_breaks_off(tmp_path, monkeypatch, capsys):
    from yolojet_ros.model import training

    data = _folder(tmp_path / 'set', 'detect')
    words = ('--task', 'detect', '--seed', '3')
    good = training.detection_loss
    calls = []

    def breaking(*given):
        loss, parts = good(*given)
        calls.append(loss)
        return (loss * math.nan if len(calls) == 3 else loss), parts

    monkeypatch.setattr(training, 'detection_loss', breaking)
    assert _train(data, tmp_path / 'mine.pt', *words, '--steps', '9') == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert 'in step 3' in said and 'mine.pt has the weights of step 2' in said
    kept = checkpoint.load(tmp_path / 'mine.pt')
    assert kept.recipe['training'].startswith('2 steps')
    assert all(torch.isfinite(value).all() for value in kept.network.state_dict().values())


@pytest.mark.parametrize('tensors, text', [
    ({0: torch.zeros(1)}, 'holds no state_dict'),
    ({'a': torch.eye(3).to_sparse()}, 'a is no plain tensor'),
    ({'a': torch.zeros(3, device='meta')}, 'a is no plain tensor'),
    ({'a': torch.zeros(3, dtype=torch.complex64)}, 'a is no plain tensor')])
def test_tensors_that_are_none_are_refused(tensors, text, tmp_path):
    torch.save(tensors, tmp_path / 'w.pt')
    with pytest.raises(UserError, match=text):
        read_weights(tmp_path / 'w.pt')


def test_an_image_without_labels_shows_nothing(tmp_path):
    data = _folder(tmp_path, 'segment')
    folder = YoloFolder.read(data, 'segment')
    label_file(folder.train[1]).unlink()
    found = folder.labelled(folder.train[1])
    assert len(found.boxes) == 0 and not found.instances.any()


def test_smaller_objects_lie_on_larger_ones(tmp_path):
    folder = YoloFolder.read(_folder(tmp_path, 'segment'), 'segment')
    labels = tmp_path / 'x.txt'
    labels.write_text('1 .25 .25 .5 .25 .5 .5 .25 .5\n0 .1 .1 .9 .1 .9 .9 .1 .9\n')
    found = folder.label(np.zeros((100, 200, 3), np.uint8), labels)
    assert found.instances[30, 60] == 1 and found.instances[70, 150] == 2
    assert (found.instances == 1).sum() == pytest.approx(50 * 25, rel=0.05)
    np.testing.assert_allclose(found.boxes[0], [50, 25, 100, 50])


def _random(task='segment', classes=7):
    torch.manual_seed(1)
    network = YOLOv8('n', classes, Task(task)).train()
    with torch.no_grad():
        network(torch.rand(4, 3, 64, 96))
        for name, parameter in network.named_parameters():
            if name.endswith(('norm.weight', 'norm.bias')):
                parameter.uniform_(0.5, 1.5)
    return network.eval()


def test_an_export_gives_its_weights_back(tmp_path):
    network = _random()
    export(checkpoint.TrainedModel(network, CLASS_NAMES, (96, 64)), tmp_path / 'm.onnx')
    other = YOLOv8('n', 7, Task('segment'))
    weights = read_weights(tmp_path / 'm.onnx')
    taken = take_over(other, weights, tmp_path / 'm.onnx')
    # All but the fixed bins of the distances.
    assert taken == sum(not n.endswith('tracked') for n in other.state_dict()) - 1
    images = torch.rand(4, 3, 64, 96)

    def seen(model):
        with torch.no_grad():
            return Detector(model)(images)

    for a, b in zip(seen(other.eval()), seen(network)):
        assert torch.allclose(a, b, atol=2e-2)
    # With the statistics of images it computes the same, also while it is trained.
    settle(other, images)
    for a, b in zip(seen(other.train()), seen(network)):
        assert torch.allclose(a, b, atol=5e-2)


def _published_names(network):
    """Name the tensors the way state_dicts in the field do."""
    from yolojet_ros.model import start_weights as own

    numbers = {name: index for index, name in own._NUMBERED.items()}
    result = {}
    for name, value in network.state_dict().items():
        parts = name.split('.')
        if name == 'bins':
            key = 'model.22.dfl.conv.weight'
        elif parts[0] == 'heads':
            branch = {'box': 'cv2', 'classes': 'cv3', 'extra': 'cv4'}[parts[2]]
            key = '.'.join(['model.22', branch, parts[1], *parts[3:]])
        elif parts[0] == 'prototypes':
            part = {v: k for k, v in own._PROTOTYPES.items()}[parts[1]]
            key = '.'.join(['model.22.proto', part, *parts[2:]])
        else:
            head = 2 if '.'.join(parts[:2]) in numbers else 1
            rest = '.'.join(parts[head:])
            rest = rest.replace('enter.', 'cv1.').replace('merge.', 'cv2.')
            rest = rest.replace('blocks.', 'm.').replace('first.', 'cv1.')
            key = f'model.{numbers[".".join(parts[:head])]}.' + rest.replace('second.', 'cv2.')
        result[key.replace('norm.', 'bn.')] = value
    return result


def _safetensors(tensors):
    header, data = {}, b''
    for name, value in tensors.items():
        kind = {torch.float32: 'F32', torch.int64: 'I64'}[value.dtype]
        raw = value.contiguous().numpy().tobytes()
        header[name] = {'dtype': kind, 'shape': list(value.shape),
                        'data_offsets': [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, 'little') + text + data


@pytest.mark.parametrize('form', ['own.pt', 'published.pt', 'nested.pt', 'published.safetensors'])
def test_state_dicts_of_the_same_shape_are_taken(form, tmp_path):
    network = _random()
    tensors = network.state_dict() if form == 'own.pt' else _published_names(network)
    path = tmp_path / form
    if form.endswith('.safetensors'):
        path.write_bytes(_safetensors(tensors))
    else:
        torch.save({'state_dict': tensors} if form == 'nested.pt' else tensors, path)
    other = YOLOv8('n', 7, Task('segment'))
    take_over(other, read_weights(path), path)
    assert all(torch.equal(a, b) for a, b in zip(
        other.state_dict().values(), network.state_dict().values()))


def test_other_classes_and_tasks_begin_with_what_fits(tmp_path):
    torch.save(_random('detect').state_dict(), tmp_path / 'w.pt')
    other = YOLOv8('n', 3, Task('pose', (4, 3)))
    before = other.heads[0].classes[-1].weight.clone()
    taken = take_over(other, read_weights(tmp_path / 'w.pt'), tmp_path / 'w.pt')
    assert taken > 250 and torch.equal(other.heads[0].classes[-1].weight, before)
    with pytest.raises(UserError, match='fits .* tensors of a YOLOv8s'):
        take_over(YOLOv8('s', 7), read_weights(tmp_path / 'w.pt'), tmp_path / 'w.pt')


@pytest.mark.parametrize('name, data, text', [
    ('w.safetensors', b'', 'no complete .safetensors'),
    ('w.safetensors', (1 << 60).to_bytes(8, 'little') + b'{}', 'no complete .safetensors'),
    ('w.safetensors', b'\x02' + bytes(7) + b'[]', 'no complete .safetensors'),
    ('w.pt', b'abc', 'is not a weight file'), ('w.onnx', b'abc', 'not a complete ONNX model')])
def test_damaged_weights_are_refused(name, data, text, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=text):
        read_weights(tmp_path / name)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ('run',))

    torch.save({'weights': Evil()}, tmp_path / 'w.pt')
    with pytest.raises(UserError, match='no weights-only file'):
        read_weights(tmp_path / 'w.pt')
