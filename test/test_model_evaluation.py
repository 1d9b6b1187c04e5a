"""Accuracy: hand-made cases whose COCO result is known, and data that is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('pycocotools')

from model_samples import stills  # noqa: E402
from models import raw_output, write_model  # noqa: E402
from yolojet_ros.core.decode import one_label_each  # noqa: E402
from yolojet_ros.core.detections import Detections  # noqa: E402
from yolojet_ros.core.errors import UserError  # noqa: E402
from yolojet_ros.core.head import raw_reading  # noqa: E402
from yolojet_ros.model.data import (  # noqa: E402
    coco_set, image_files, read_image, scene_set, scene_still, scene_stills, TEST_SEED)
from yolojet_ros.model.coco_scorer import Accuracy, CocoScorer  # noqa: E402
from yolojet_ros.model.evaluation import (  # noqa: E402
    Candidate, measure, Measurement)
from yolojet_ros.model.report import details, losses_within, measure_all, table  # noqa: E402
from yolojet_ros.sim.scene import CLASS_NAMES  # noqa: E402


def _found(boxes, scores, classes):
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32),
                      np.array(classes, np.int32))


def _truth(boxes, classes, clear=None):
    return (np.array(boxes, np.float32), np.array(classes),
            np.ones(len(boxes), bool) if clear is None else np.array(clear))


def test_perfect_detections_have_an_average_precision_of_one():
    scorer = CocoScorer(('a', 'b'))
    boxes = [[0, 0, 20, 20], [50, 50, 100, 100]]
    scorer.add(*_truth(boxes, [0, 1]), _found(boxes, [0.9, 0.8], [0, 1]))
    accuracy = scorer.accuracy()
    assert accuracy.map == pytest.approx(1.0) and accuracy.map50 == pytest.approx(1.0)
    assert accuracy.per_class == pytest.approx({'a': 1.0, 'b': 1.0})
    assert accuracy.per_size['small'] == pytest.approx(1.0)
    assert math.isnan(accuracy.per_size['large'])
    assert (accuracy.images, accuracy.objects) == (1, 2)


def test_hand_made_case_has_the_average_precision_of_paper_and_pencil():
    scorer = CocoScorer(('a',))
    truth = [[0, 0, 40, 40], [100, 0, 140, 40]]
    # Best score: a hit with IoU 32*40/(40*40) = 0.8. Then a false alarm, then an exact hit.
    scorer.add(*_truth(truth, [0, 0]), _found(
        [[0, 0, 32, 40], [200, 0, 240, 40], [100, 0, 140, 40]], [0.9, 0.8, 0.7], [0, 0, 0]))
    accuracy = scorer.accuracy()
    # Precision is 1 up to recall 0.5 (51 of 101 points), then 2/3.
    both = (51 * 1 + 50 * 2 / 3) / 101
    # Above IoU 0.8 only the exact hit counts: precision 1/3 up to recall 0.5.
    one = 51 * (1 / 3) / 101
    assert accuracy.map50 == pytest.approx(both, abs=1e-6)
    assert accuracy.map == pytest.approx((7 * both + 3 * one) / 10, abs=1e-6)


def test_unclear_objects_are_neither_missed_nor_wrongly_found():
    scorer = CocoScorer(('a',))
    scorer.add(*_truth([[0, 0, 40, 40], [100, 0, 140, 40]], [0, 0], [True, False]),
               _found([[100, 0, 140, 40], [0, 0, 40, 40]], [0.9, 0.5], [0, 0]))
    scorer.add(*_truth([[0, 0, 40, 40]], [0], [False]), Detections.empty())
    assert scorer.accuracy().map == pytest.approx(1.0)
    assert scorer.accuracy().objects == 1


def test_nothing_found_is_zero_and_nothing_given_is_refused():
    scorer = CocoScorer(('a',))
    with pytest.raises(UserError, match='no image'):
        scorer.accuracy()
    scorer.add(*_truth([[0, 0, 40, 40]], [0]), Detections.empty())
    assert scorer.accuracy().map == 0.0


def test_against_fails_only_when_too_much_is_lost(tmp_path, capsys):
    def measured(name: str, value: float) -> Measurement:
        accuracy = Accuracy(value, value, {'a': value}, {
            'small': value, 'medium': math.nan, 'large': value}, 10, 20)
        return Measurement(tmp_path / name, accuracy, 5.0, 6.0, 12.0, 100)

    reference, near, far = measured('r', 0.80), measured('near', 0.795), measured('far', 0.78)
    assert losses_within(reference, [near], 1.0) == 0
    assert losses_within(reference, [near, far], 1.0) == 1
    assert losses_within(reference, [measured('nan', math.nan)], 1.0) == 1
    assert 'far loses +2.00 points' in capsys.readouterr().out
    assert '79.50' in table([reference, near]) and 'medium' in details([reference, near])


def test_scene_stills_are_repeatable_and_the_same_from_other_processes():
    here = list(scene_stills(3, 50, (96, 64)))
    there = list(scene_stills(3, 50, (96, 64), workers=2))
    for a, b in zip(here, there):
        assert np.array_equal(a.image, b.image) and np.array_equal(a.boxes, b.boxes)
    assert not np.array_equal(here[0].image, here[1].image)


def test_small_objects_are_not_asked_for():
    sides = []
    for seed in range(30):
        still = scene_still(seed, (160, 96))
        sides += list((still.boxes[:, 2:] - still.boxes[:, :2]).min(1)[still.clear])
    assert sides and min(sides) >= 6


def _coco(folder, objects=(('cone', [1, 2, 10, 20]), ('whale', [30, 2, 10, 20])), **changes):
    """Write one image with objects; return the annotation file."""
    cv2.imwrite(str(folder / 'a.png'), stills(1)[0].image)
    names = sorted({name for name, _ in objects}) + ['unused']
    data = {
        'images': [{'id': 7, 'file_name': 'a.png'}],
        'categories': [{'id': 3 * k, 'name': name} for k, name in enumerate(names)],
        'annotations': [
            {'image_id': 7, 'category_id': 3 * names.index(name), 'bbox': box, 'iscrowd': 0}
            for name, box in objects], **changes}
    file = folder / 'coco.json'
    file.write_text(json.dumps(data))
    return file


def test_coco_files_give_images_with_their_own_class_names(tmp_path):
    data = coco_set(_coco(tmp_path), tmp_path)
    assert data.names == ('cone', 'whale') and data.count == 1
    image, = data.only(('whale',)).images
    assert np.array_equal(image.image, stills(1)[0].image)
    assert image.boxes.tolist() == [[30, 2, 40, 22]] and image.classes.tolist() == [0]
    with pytest.raises(UserError, match='no object of class "unused"'):
        data.only(('unused',))


@pytest.mark.parametrize('changes', [
    {'images': None}, {'categories': [{'id': 0}]}, {'categories': []},
    {'annotations': [{'image_id': 7, 'category_id': 0, 'bbox': [1, 2]}]},
    {'annotations': [{'image_id': 7, 'category_id': 0, 'bbox': 'x'}]}, {'annotations': 5}])
def test_files_that_are_not_coco_are_refused_in_one_sentence(changes, tmp_path):
    with pytest.raises(UserError, match='not a COCO detection file') as error:
        coco_set(_coco(tmp_path, **changes), tmp_path)
    assert '\n' not in str(error.value)
    with pytest.raises(UserError, match='cannot read'):
        coco_set(tmp_path / 'none.json', tmp_path)


_BOXES = [[20, 20, 16, 16], [60, 40, 20, 20]]


def _two_boxes(path, names, scores):
    """Write a model that sees two boxes in 96x64, with these scores per class."""
    return write_model(path, raw_output(_BOXES, scores, (96, 64), len(names)), (96, 64), names)


def _data(folder):
    cv2.imwrite(str(folder / 'a.png'), np.zeros((64, 96, 3), np.uint8))
    objects = [('crate', [12, 12, 16, 16]), ('cone', [50, 30, 20, 20])]
    file = _coco(folder, objects)
    cv2.imwrite(str(folder / 'a.png'), np.zeros((64, 96, 3), np.uint8))
    return [str(file), str(folder)]


def test_classes_are_matched_by_name_not_by_order(tmp_path):
    files = [
        _two_boxes(tmp_path / 'a.onnx', ('crate', 'cone'), [[.9, 0], [0, .8]]),
        _two_boxes(tmp_path / 'b.onnx', ('cone', 'whale', 'crate'), [[0, 0, .9], [.8, 0, 0]]),
        _two_boxes(tmp_path / 'c.onnx', ('cone', 'crate'), [[.9, 0], [0, .8]])]
    found = measure_all(files, _data(tmp_path), 0)
    assert [m.accuracy.map for m in found] == pytest.approx([1, 1, 0], abs=1e-6)


def test_images_without_a_label_are_told_instead_of_an_accuracy(tmp_path):
    model = _two_boxes(tmp_path / 'a.onnx', ('crate', 'cone'), [[.9, 0], [0, .8]])
    _data(tmp_path)
    folder = tmp_path / 'data'
    for place in ('images/val', 'labels/val'):
        (folder / place).mkdir(parents=True)
    cv2.imwrite(str(folder / 'images/val/a.png'), np.zeros((64, 96, 3), np.uint8))
    (folder / 'labels/val/a.txt').write_text('')
    (folder / 'data.yaml').write_text(
        'train: images/val\nval: images/val\nnames: [crate, cone]\n')
    with pytest.raises(UserError, match='1 images, but no object is labelled'):
        measure_all([model], [str(folder / 'data.yaml')], 0)


def test_a_model_that_does_not_know_what_is_labelled_is_refused(tmp_path):
    known = _two_boxes(tmp_path / 'a.onnx', ('crate', 'cone'), [[.9, 0], [0, .8]])
    other = _two_boxes(tmp_path / 'b.onnx', ('crate', 'kone'), [[.9, 0], [0, .8]])
    for data in (_data(tmp_path), ['scene']):
        with pytest.raises(UserError, match='b.onnx does not know the class "[a-z]+"'):
            measure_all([other], data, 1)
    with pytest.raises(UserError, match='b.onnx does not know the class "cone"'):
        measure_all([known, other], _data(tmp_path), 0)
    found = measure_all([known, other], _data(tmp_path), 0, classes=['crate'])
    assert [m.accuracy.map for m in found] == pytest.approx([1, 1])
    assert found[0].accuracy.objects == 1 and list(found[0].accuracy.per_class) == ['crate']


def test_multi_label_scoring_counts_every_class_of_an_anchor_point(tmp_path):
    # The cone's best class is wrong; its second one is right.
    path = _two_boxes(tmp_path / 'a.onnx', ('crate', 'cone'), [[.9, 0], [.5, .4]])
    single, = measure_all([path], _data(tmp_path), 0)
    multi, = measure_all([path], _data(tmp_path), 0, multi_label=True)
    assert single.accuracy.per_class == pytest.approx({'crate': 1, 'cone': 0})
    assert multi.accuracy.per_class == pytest.approx({'crate': 1, 'cone': 1})
    assert 'single-label' in table([single]) and 'multi-label' in table([multi])


def test_every_label_gets_the_column_of_its_anchor_point():
    rng = np.random.default_rng(0)
    rows = rng.random((7, 40)).astype(np.float32)
    rows[4:] *= rows[4:] > 0.5
    columns, = one_label_each([rows], raw_reading(40, 3), 0.5, 1000)
    assert columns.shape[1] == np.count_nonzero(rows[4:] >= 0.5)
    assert (np.count_nonzero(columns[4:], axis=0) == 1).all()
    expected = sorted((float(rows[4 + k, a]), k, *rows[:4, a].tolist())
                      for k in range(3) for a in range(40) if rows[4 + k, a] >= 0.5)
    assert expected == sorted((float(c[4:].max()), int(c[4:].argmax()), *c[:4].tolist())
                              for c in columns.T)


def test_a_model_that_ends_in_nms_has_no_second_labels(tmp_path):
    rows = np.array([[[12, 12, 28, 28, .9, 0], [50, 30, 70, 50, .8, 1]]], np.float32)
    path = write_model(tmp_path / 'n.onnx', rows, (96, 64), ('crate', 'cone'))
    assert measure_all([path], _data(tmp_path), 0)[0].accuracy.map == pytest.approx(1)
    with pytest.raises(UserError, match='ends in NMS'):
        measure_all([path], _data(tmp_path), 0, multi_label=True)


def test_images_that_are_none_are_refused(tmp_path):
    with pytest.raises(UserError, match='holds no image'):
        image_files(tmp_path)
    with pytest.raises(UserError, match='not a folder'):
        image_files(tmp_path / 'none')
    (tmp_path / 'fake.png').write_text('no image')
    (tmp_path / 'empty.png').write_bytes(b'')
    for path in image_files(tmp_path):
        with pytest.raises(UserError, match='not an image'):
            read_image(path)


def test_demo_model_knows_the_scene():
    candidate = Candidate(
        Path(__file__).parents[1] / 'engines/demo/yolojet_demo.onnx', CLASS_NAMES)
    result, = measure([candidate], scene_set(40, TEST_SEED))
    # On 2,000 stills 0.964 and 0.854; 40 of them scatter by a few points.
    assert result.accuracy.map50 > 0.9 and result.accuracy.map > 0.78
    assert result.parameters == 3_007_013 and 12 < result.megabytes < 12.5
    assert 0 < result.median_ms <= result.p90_ms
