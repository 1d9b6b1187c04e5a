"""The evaluation: known ids give known scores, files are read as the format says."""

from __future__ import annotations

import argparse
from dataclasses import replace
import os
import sys

import cv2
import numpy as np
import pytest

from yolojet_ros.cli import track as command
from yolojet_ros.core.errors import UserError
from yolojet_ros.tracking import create_tracker
from yolojet_ros.tracking.evaluation import (
    Evaluator, gaps, plot_ids, Sequence, table, track, TruthFrame)
from yolojet_ros.tracking.mot_format import find_sequences, read_sequence
from yolojet_ros.tracking.simulated_detector import SimulatedDetector

RATE = 30.0


def parade(frames=60, objects=3, hidden=()):
    """Return objects side by side, all detected but object 0 in the frames of `hidden`."""
    result = []
    for k in range(frames):
        x = 100.0 * np.arange(objects) + 2 * k
        boxes = np.stack((x, 0 * x, x + 40, 0 * x + 80), 1)
        seen = slice(1 if k in hidden else 0, None)
        classes = np.arange(objects) % 2
        result.append(TruthFrame(
            stamp=k / RATE, boxes=boxes[seen], scores=np.full(len(boxes[seen]), 0.8),
            classes=classes[seen], truth_boxes=boxes, truth_ids=np.arange(objects) + 70,
            truth_classes=classes))
    return Sequence('parade', (640, 480), result)


def score(sequence, ids):
    pytest.importorskip('trackeval')
    return Evaluator().score(sequence, ids)


def test_perfect_ids_score_a_hundred():
    sequence = parade()
    result = score(sequence, [frame.truth_ids for frame in sequence.frames])
    assert (result.hota, result.idf1, result.mota) == (100, 100, 100)
    assert result.switches == 0


def test_one_switch_in_the_middle_costs_half_an_identity():
    sequence = parade(objects=2)
    ids = [np.array([0 if k < 30 else 5, 1]) for k in range(60)]
    result = score(sequence, ids)
    assert result.switches == 1
    assert result.idf1 == pytest.approx(75)
    assert result.mota == pytest.approx(100 * (1 - 1 / 120))


def test_unpublished_detections_and_other_classes_do_not_count_as_found():
    sequence = parade(objects=2)
    result = score(sequence, [np.array([-1, 1])] * 60)
    assert result.mota == pytest.approx(50)
    wrong = replace(sequence, frames=[
        replace(frame, classes=1 - frame.classes) for frame in sequence.frames])
    assert score(wrong, [np.array([0, 1])] * 60).idf1 == 0


def test_box_on_an_ignored_truth_is_no_false_alarm():
    sequence = parade(objects=2)
    frames = [replace(
        frame, truth_boxes=frame.truth_boxes[:1], truth_ids=frame.truth_ids[:1],
        truth_classes=frame.truth_classes[:1]) for frame in sequence.frames]
    ids = [np.array([0, 1])] * 60
    assert score(replace(sequence, frames=frames), ids).mota == 0
    ignoring = [
        replace(frame, ignored_boxes=full.truth_boxes[1:])
        for frame, full in zip(frames, sequence.frames)]
    assert score(replace(sequence, frames=ignoring), ids).mota == 100


@pytest.mark.parametrize('after, expected', [(0, (1, 1)), (9, (0, 1))])
def test_gap_is_kept_if_the_same_id_comes_back(after, expected):
    sequence = parade(hidden=range(20, 35))
    ids = [np.array([0 if k < 20 else after, 1, 2])[0 if len(f.boxes) == 3 else 1:]
           for k, f in enumerate(sequence.frames)]
    assert gaps(sequence, ids) == expected


def test_holes_too_short_or_too_long_are_no_gaps():
    for hidden in (range(20, 22), range(20, 55)):
        sequence = parade(hidden=hidden)
        ids = [np.arange(len(frame.boxes)) for frame in sequence.frames]
        assert gaps(sequence, ids)[1] == 0


def test_total_weighs_sequences_by_their_boxes():
    pytest.importorskip('trackeval')
    evaluator = Evaluator()
    good, bad = parade(), replace(parade(), name='bad')
    evaluator.score(good, [frame.truth_ids for frame in good.frames])
    evaluator.score(bad, [np.full(3, -1)] * 60)
    total = evaluator.total()
    assert total.mota == pytest.approx(50)
    assert 'parade' not in table([total]) and '50.00' in table([total])


def test_tracker_scores_well_and_the_plot_is_a_picture(tmp_path):
    pytest.importorskip('matplotlib')
    sequence = parade(hidden=range(20, 35))
    ids = track(sequence, create_tracker())
    assert gaps(sequence, ids) == (1, 1)
    plot_ids(sequence, ids, tmp_path / 'ids.png')
    image = cv2.imread(str(tmp_path / 'ids.png'))
    assert image.shape[1] == 1200
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10


def write_sequence(folder, truth, detections, columns=9):
    for name, rows in (('gt', truth), ('det', detections)):
        (folder / name).mkdir(parents=True)
        np.savetxt(folder / name / f'{name}.txt', rows, delimiter=',', fmt='%g')
    (folder / 'seqinfo.ini').write_text(
        '[Sequence]\nname=x\nimDir=img1\nframeRate=25\nseqLength=3\nimWidth=640\n'
        'imHeight=480\nimExt=.jpg\n')


def test_mot_folder_is_read_as_the_format_says(tmp_path):
    truth = [
        [1, 4, 10, 20, 30, 40, 1, 1, 1], [1, 5, 90, 20, 30, 40, 0, 1, 1],
        [1, 6, 200, 20, 30, 40, 0, 8, 1], [3, 4, 12, 20, 30, 40, 1, 1, 0.5]]
    detections = [[1, -1, 11, 21, 30, 40, 0.7], [3, -1, 12, 20, 30, 40, 0.9]]
    write_sequence(tmp_path / 'a', truth, detections)
    write_sequence(tmp_path / 'b', [row[:8] for row in truth], detections)
    assert [path.name for path in find_sequences(tmp_path)] == ['a', 'b']
    assert find_sequences(tmp_path / 'a') == [tmp_path / 'a']
    sequence = read_sequence(tmp_path / 'a')
    assert sequence.size == (640, 480)
    first, second, third = sequence.frames
    assert first.truth_boxes.tolist() == [[10, 20, 40, 60]]
    assert first.truth_ids.tolist() == [4]
    assert first.ignored_boxes.tolist() == [[200, 20, 230, 60]]
    assert first.boxes.tolist() == [[11, 21, 41, 61]]
    assert len(second.truth_boxes) == len(second.boxes) == 0
    assert third.stamp == pytest.approx(2 / 25)
    old = read_sequence(tmp_path / 'b').frames[0]
    assert len(old.truth_boxes) == 1 and len(old.ignored_boxes) == 0


def test_mot_folder_errors_say_what_to_do(tmp_path):
    with pytest.raises(UserError, match='no MOT sequence'):
        find_sequences(tmp_path)
    write_sequence(tmp_path / 'a', [[1, 4, 10, 20, 30, 40, 1]], [[1, -1, 1, 1, 5, 5, 40]])
    with pytest.raises(UserError, match='scale them to 0..1'):
        read_sequence(tmp_path / 'a')
    (tmp_path / 'a/det/det.txt').write_text('1,2,three\n')
    with pytest.raises(UserError, match='not rows of numbers'):
        read_sequence(tmp_path / 'a')
    (tmp_path / 'a/det/det.txt').write_text('1,2,3\n')
    with pytest.raises(UserError, match='3 columns'):
        read_sequence(tmp_path / 'a')
    (tmp_path / 'a/det/det.txt').unlink()
    with pytest.raises(UserError, match='cannot be read'):
        read_sequence(tmp_path / 'a')
    (tmp_path / 'a/seqinfo.ini').write_text('[Sequence]\nframeRate=fast\n')
    with pytest.raises(UserError, match='compare it with MOTChallenge'):
        read_sequence(tmp_path / 'a')
    (tmp_path / 'a/seqinfo.ini').unlink()
    with pytest.raises(UserError, match='frameRate'):
        read_sequence(tmp_path / 'a')


@pytest.mark.parametrize('name, row, words', [
    ('gt', '2,nan,10,10,50,80,1,1,1', 'not finite'), ('gt', '2,1e300,1,1,5,8,1,1,1', 'an id'),
    ('gt', '2,1.5,1,1,5,8,1,1,1', 'an id'), ('gt', '1,4,1,1,5,8,1,1,1', 'already'),
    ('gt', '0,7,1,1,5,8,1,1,1', 'a frame'), ('gt', '2,x,1,1,5,8,1,1,1', 'rows of numbers'),
    ('gt', '2,7,1,1,5,8,1', 'rows of numbers'), ('det', '2,-1,1,1,-50,80,0.9', 'width or height'),
    ('det', '2,-1,inf,1,50,80,0.9', 'not finite'), ('det', '2,-1,1e9,1,5,8,0.9', 'beyond'),
    ('det', '4,-1,1,1,5,8,0.9', 'beyond the 3 that seqLength'),
    ('gt', '9,7,1,1,5,8,1,1,1', 'beyond the 3 that seqLength'),
    ('det', '1.5,-1,1,1,5,8,0.9', 'a frame'), ('det', '2,-1,1,1,5,8,nan', 'not finite')])
def test_a_row_that_cannot_be_is_refused_with_its_line(tmp_path, name, row, words):
    write_sequence(tmp_path, [[1, 4, 10, 20, 30, 40, 1, 1, 1]], [[1, -1, 11, 21, 30, 40, 0.7]])
    with (tmp_path / name / f'{name}.txt').open('a') as file:
        file.write(f'\n{row}\n')
    with pytest.raises(UserError, match=f'{name}.txt, line 3, .*{words}'):
        read_sequence(tmp_path)


@pytest.mark.parametrize('line', [
    'seqLength=9999999999', 'frameRate=inf', 'frameRate=1e-320', 'imWidth=-5', 'imHeight=0'])
def test_a_sequence_that_cannot_be_is_refused(tmp_path, line):
    write_sequence(tmp_path, [[1, 4, 10, 20, 30, 40, 1]], [[1, -1, 11, 21, 30, 40, 0.7]])
    info = tmp_path / 'seqinfo.ini'
    name = line.split('=')[0]
    info.write_text('\n'.join(
        line if old.startswith(name) else old for old in info.read_text().splitlines()))
    with pytest.raises(UserError, match=f'tells {name}'):
        read_sequence(tmp_path)


def test_the_image_folder_is_taken_as_it_is_written(tmp_path):
    write_sequence(tmp_path, [[1, 4, 10, 20, 30, 40, 1]], [[1, -1, 11, 21, 30, 40, 0.7]])
    info = tmp_path / 'seqinfo.ini'
    info.write_text(info.read_text().replace('img1', '%(x)s'))
    (tmp_path / '%(x)s').mkdir()
    (tmp_path / '%(x)s' / '000001.jpg').touch()
    assert read_sequence(tmp_path).frames[0].image == tmp_path / '%(x)s' / '000001.jpg'


def test_a_pipe_is_no_sequence(tmp_path):
    write_sequence(tmp_path, [[1, 4, 10, 20, 30, 40, 1]], [[1, -1, 11, 21, 30, 40, 0.7]])
    (tmp_path / 'gt/gt.txt').unlink()
    os.mkfifo(tmp_path / 'gt/gt.txt')
    with pytest.raises(UserError, match='it is no file'):
        read_sequence(tmp_path)


def test_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'trackeval', None)
    with pytest.raises(UserError, match='pip install trackeval==1.3.0'):
        Evaluator()
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    with pytest.raises(UserError, match='pip install matplotlib'):
        plot_ids(parade(), [], tmp_path / 'x.png')


def test_simulated_detector_sees_what_is_visible_and_repeats_itself():
    boxes = np.tile(np.array([[100, 100, 140, 180]], np.float32), (500, 1))
    visibility = np.repeat([1.0, 0.4, 0.05], [200, 200, 100])
    classes = np.zeros(500, np.int32)
    runs = [
        SimulatedDetector(3, false_alarms=0).detect(boxes, visibility, classes, (640, 480), 3)
        for _ in range(2)]
    found, scores, labels = runs[0]
    assert all((a == b).all() for a, b in zip(*runs))
    assert 350 < len(found) < 400
    assert np.median(scores) > 0.4 and (scores <= 1).all()
    assert np.abs(found - boxes[0]).max() < 40
    assert 0 < (labels == 1).sum() < 30


def evaluate(*words):
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(['track', 'evaluate', *map(str, words)])
    return arguments.run(arguments)


def test_command_scores_scenes_and_draws(tmp_path, capsys):
    pytest.importorskip('trackeval')
    pytest.importorskip('matplotlib')
    assert evaluate('--scenes', 1, '--seconds', 3, '--plot', tmp_path / 'ids.png') == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ['sequence', 'scene-1', 'all']
    assert float(lines[1].split()[2]) > 70
    assert cv2.imread(str(tmp_path / 'ids-scene-1.png')) is not None


def test_command_scores_a_mot_folder(tmp_path, capsys):
    pytest.importorskip('trackeval')
    rows = [[k, 4, 10 + k, 20, 30, 40, 1, 1, 1] for k in (1, 2, 3)]
    write_sequence(tmp_path / 'a', rows, [row[:6] + [0.95] for row in rows])
    assert evaluate(tmp_path, '--camera-motion', 'off') == 0
    assert '100.00 100.00 100.00' in capsys.readouterr().out
    with pytest.raises(UserError, match='image of frame 1 of a is missing'):
        evaluate(tmp_path)
    with pytest.raises(UserError, match='does not tell the camera motion'):
        evaluate(tmp_path, '--camera-motion', 'truth')


@pytest.mark.parametrize('words, message', [
    (['--set', 'lost_seconds'], 'NAME=VALUE'), (['--set', 'colour=3'], 'no parameter'),
    (['--set', 'low_score=3'], 'low_score'), (['--scenes', '0'], 'nothing to score')])
def test_command_refuses_wrong_words(words, message):
    pytest.importorskip('trackeval')
    with pytest.raises(UserError, match=message):
        evaluate(*words)
