"""What counts as hanging: images that were taken and of which nothing comes, and nothing else."""

from types import SimpleNamespace
import time

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from yolojet_ros.nodes import detector_health  # noqa: E402
from yolojet_ros.nodes.detector_health import DetectorHealth  # noqa: E402
from yolojet_ros.ros.statistics import Statistics  # noqa: E402


@pytest.fixture
def node(monkeypatch):
    """Return a detector in numbers, and its health."""
    monkeypatch.setattr(detector_health, '_PATIENCE', 0.05)
    monkeypatch.setattr(detector_health, '_FIRST', 0.5)
    made = SimpleNamespace(
        cameras=[SimpleNamespace(statistics=Statistics())], detector=object(), failure=None,
        worker=SimpleNamespace(failed=False, ended=False, busy_for=0.0))
    made.counts = made.cameras[0].statistics
    made.health = DetectorHealth(made, lambda: made.worker)
    return made


def _work(node, milliseconds=1.0):
    node.counts.on_received()
    node.health.fault()
    node.counts.on_processed(0, 0.0, {'pipeline': milliseconds})


def test_no_image_is_no_fault_of_the_detector(node):
    _work(node)
    for _ in range(3):
        assert node.health.fault() == ''
        time.sleep(0.04)


def test_an_image_of_which_nothing_comes_is(node):
    _work(node)
    node.counts.on_received()
    assert node.health.fault() == ''
    time.sleep(0.06)
    assert 'an image has been in work for' in node.health.fault()
    node.counts.on_dropped('encoding')  # something came of it
    assert node.health.fault() == ''


def test_an_image_that_is_not_even_counted_is(node):
    _work(node)
    node.worker.busy_for = 0.06
    assert 'in work' in node.health.fault()


def test_the_first_image_of_each_model_may_take_longer(node):
    for _ in range(2):
        node.worker.busy_for = 0.4
        assert node.health.fault() == ''
        node.worker.busy_for = 0.6
        assert node.health.fault() != ''
        _work(node)
        node.worker.busy_for = 0.4
        assert node.health.fault() != ''
        node.detector = object()  # another version, put in its place


def test_a_network_that_is_always_slow_has_ten_times_its_time(node):
    _work(node, 100.0)
    node.worker.busy_for = 0.9
    assert node.health.fault() == ''
    node.worker.busy_for = 1.1
    assert 'usual are 0.100 s' in node.health.fault()


def test_what_only_a_new_process_mends(node):
    node.worker.failed, node.failure = True, 'CudaError: lost'
    assert node.health.fault() == 'the network has failed (CudaError: lost)'
    node.worker.failed, node.failure, node.worker.ended = False, None, True
    assert 'its thread has ended' in node.health.fault()
    node.worker = None  # cleaned up
    assert node.health.fault() == ''
