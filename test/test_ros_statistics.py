"""What diagnostics say of the ages of results."""

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

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
