"""What speaks against a model that is to replace another."""

import numpy as np
import pytest

from yolojet_ros.core.detections import Detections
from yolojet_ros.operate import model_trial
from yolojet_ros.operate.model_trial import Trial, Verification


def _seen(count, broken=0):
    return Detections(np.zeros((count, 4), np.float32), np.zeros(count, np.float32),
                      np.zeros(count, np.int32), broken=broken)


def _verified(old, new, old_ms=10.0, new_ms=10.0, comparable=True, broken=0):
    verification = Verification(5, comparable)
    for index in range(5):
        assert verification.done == index
        verification.add(_seen(old), old_ms, _seen(new, broken), new_ms)
    return verification.fault


def test_a_model_that_sees_the_like_in_the_like_time_is_fine():
    assert _verified(4, 3, 10.0, 20.0) == ''
    assert _verified(0, 0) == ''


def test_a_model_that_sees_nothing_where_the_other_sees_much_is_blind():
    assert _verified(4, 0) == (
        'it sees nothing on 5 live images, on which the model that runs sees 20 objects')
    assert _verified(1, 0) == '', 'five objects are not much'
    assert _verified(4, 0, comparable=False) == '', 'it looks for others'


def test_what_one_goes_back_to_is_not_measured_by_what_one_leaves():
    verification = Verification(1, True, proven=True)
    verification.add(_seen(50), 1.0, _seen(0), 100.0)
    assert verification.fault == ''
    verification.add(_seen(50), 1.0, _seen(0, 1), 100.0)
    assert 'rows that no detection can be' in verification.fault


def test_a_model_that_takes_more_than_twice_as_long_is_too_slow():
    assert _verified(4, 4, 10.0, 20.1) == (
        'an image takes 20.1 ms, more than 2 times the 10.0 ms of the model before')


def test_a_model_with_broken_rows_is_told():
    assert 'rows that no detection can be' in _verified(4, 4, broken=2)


def test_a_trial_is_passed_when_its_time_is_over(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(model_trial.time, 'monotonic', lambda: now[0])
    trial = Trial(60.0, [10.0] * 30)
    now[0] += 1000
    assert trial.left == 60.0, 'it begins with the first image'
    for _ in range(50):
        now[0] += 1.0
        assert not trial.on_frame(19.9, 0)
    now[0] += 11.0
    assert trial.on_frame(19.9, 0) and trial.verdict == ''
    assert not trial.on_frame(100.0, 1) and trial.verdict == ''


def test_a_trial_ends_with_the_first_broken_row_or_failure():
    trial = Trial(60.0)
    assert trial.on_frame(1.0, 3) and trial.verdict.endswith('3')
    trial = Trial(60.0)
    trial.fail('CUDA failed')
    assert trial.verdict == 'CUDA failed' and not trial.on_frame(1.0, 1)


def test_a_trial_judges_the_median_of_thirty_images():
    trial = Trial(60.0, [10.0] * 30)
    for index in range(29):
        assert not trial.on_frame(50.0, 0)
    assert trial.on_frame(50.0, 0) and 'an image takes 50.0 ms' in trial.slow
    assert trial.verdict is None, 'the machine may be busier than it was'
    trial = Trial(60.0, [10.0] * 30)
    for index in range(100):
        assert not trial.on_frame(500.0 if index % 3 == 0 else 10.0, 0), 'some are slow'
    assert trial.slow == ''
    unknown = Trial(60.0, [10.0] * 29)
    assert not any(unknown.on_frame(500.0, 0) for _ in range(100)), 'too little to compare with'


@pytest.mark.parametrize('now, verdict', [(24.9, 'an image takes 50.0 ms'), (25.0, None)])
def test_a_slow_model_is_compared_with_the_one_before_on_the_machine_as_it_is_now(now, verdict):
    trial = Trial(60.0, [10.0] * 30)
    while not trial.slow:
        trial.on_frame(50.0, 0)
    for _ in range(29):
        assert not trial.compare(now) and trial.slow
    assert trial.compare(now) and not trial.slow
    if verdict:
        assert trial.verdict.startswith(verdict)
    else:
        assert trial.verdict is None
        assert not any(trial.on_frame(50.0, 0) for _ in range(100)), 'it is as slow as the other'
