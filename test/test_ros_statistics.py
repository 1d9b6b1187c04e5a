"""What diagnostics say of the ages of results."""

import time

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from yolojet_ros.ros.node_clock import NodeClock  # noqa: E402
from yolojet_ros.ros.statistics import Statistics, SUPERSEDED  # noqa: E402


@pytest.mark.parametrize('cause, text', [
    (SUPERSEDED, 'detecting'), ('step', '9 of the last 10 images were dropped; see dropped_*')])
def test_that_newer_images_win_is_no_fault(cause, text):
    statistics = Statistics()
    for _ in range(10):
        statistics.on_received()
    for _ in range(9):
        statistics.on_dropped(cause)
    statistics.on_processed(1, 0.01, {})
    assert statistics.report(active=True)[1] == text


def test_what_is_settled_is_never_taken_back():
    statistics = Statistics()
    statistics.on_received()
    assert statistics.settle('deactivated') == 1
    statistics.on_processed(1, 0.01, {})  # an image that was given up, and came all the same
    statistics.settle('deactivated')
    assert statistics.drops['deactivated'] == 1


@pytest.mark.parametrize('age, text', [
    (0.01, 'detecting'),
    (0.8, 'results are 0.80 s older than their images'),
    (-50.0, 'images are stamped 50.00 s in the future; set the clocks alike, or use_sim_time'),
    (1.8e9, 'images are stamped 1800000000 s in the past, by another clock; set use_sim_time'),
])
def test_ages_that_only_another_clock_explains_are_called_so(age, text):
    statistics = Statistics()
    statistics.on_received()
    statistics.on_processed(1, age, {})
    assert statistics.report(active=True)[1].startswith(text)


@pytest.mark.parametrize('now, age, text', [
    (100.0, 0.01, ''),
    (100.0, 0.8, 'results are 0.80 s older than their images'),
    (100.0, -0.8, 'images are stamped 0.80 s ahead of /clock; publish that more often'),
    (100.0, None, 'images are stamped with system time, but use_sim_time is set and /clock tells '
     '100 s; set use_sim_time for the camera driver, too, or to false here'),
    (1.6e9, None, 'images are stamped with system time, but use_sim_time is set'),
    (1.6e9, 1.6e9 - 5, 'images are stamped 1599999995 s before what /clock tells, by another'),
    (100.0, -1.6e9, 'images are stamped 1600000000 s after what /clock tells, by another clock'),
    (0.0, 0.0, 'use_sim_time is set, but /clock has no publisher, and time stands at 0; start the '
     'simulator, or the bag with --clock, or set use_sim_time to false'),
])
def test_beside_a_simulated_clock_nobody_is_told_to_use_one(now, age, text):
    # None is the age of an image that is stamped with system time.
    found = NodeClock(simulated=True, now=now).problem(now - time.time() if age is None else age)
    assert found.startswith(text) and bool(found) == bool(text)
    assert 'set use_sim_time for bags' not in found and 'or use_sim_time' not in found


def test_a_clock_without_a_publisher_is_told_from_a_silent_one():
    assert '/sim/clock sends nothing' in NodeClock(True, 0.0, '/sim/clock', 1).problem(0.0)
    statistics = Statistics()
    statistics.on_received()
    statistics.on_processed(1, None, {})
    _, text, values = statistics.report(True, clock=NodeClock(simulated=True))
    assert '/clock has no publisher' in text
    assert not [item for item in values if item.key.startswith('age')]


def test_ages_by_a_clock_that_was_set_are_forgotten():
    statistics = Statistics()
    for age in (1.8e9, 1.8e9, 1.8e9, 0.01):
        statistics.on_processed(1, age, {})
    assert statistics.report(True)[1] == 'detecting'


def test_times_of_the_stages_are_those_of_the_present_model():
    statistics = Statistics()
    statistics.on_processed(1, 0.1, {'pipeline': 5.0, 'class_mask': 2.0})
    assert statistics.usual('pipeline') == 5.0
    statistics.on_model()
    statistics.on_processed(1, 0.1, {'pipeline': 7.0})
    names = {item.key for item in statistics.report(True)[2]}
    assert 'pipeline_ms_p50' in names and 'class_mask_ms_p50' not in names
    assert statistics.usual('pipeline') == 7.0 and statistics.usual('class_mask') == 0.0
