"""The bond with nav2's lifecycle manager, and a node that has none."""

import os
import signal
import time

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from models import raw_output, write_model  # noqa: E402
from ros_peers import NodeProcess, Peer, ROOT  # noqa: E402

try:
    from bondpy.bondpy import Bond
except ImportError:
    Bond = None

needs_bondpy = pytest.mark.skipif(Bond is None, reason='bondpy is not installed: it is the ROS 2 '
                                                       'package of that name')


@pytest.fixture
def detector(tmp_path):
    """Return a process of the detector that waits for a lifecycle manager."""
    model = write_model(tmp_path / 'model.onnx', raw_output(
        [[160, 96, 80, 60]], [[0.95, 0, 0]], (320, 192)))
    process = NodeProcess(
        'yolojet_ros.nodes.detector_node', tmp_path / 'log', {'model': str(model)},
        env={'PYTHONPATH': os.pathsep.join(
            [str(ROOT), os.environ.get('PYTHONPATH', '')])})
    yield process
    process.stop(signal.SIGKILL)


@pytest.fixture
def manager():
    """Return the peer that plays nav2's lifecycle manager."""
    peer = Peer()
    yield peer
    peer.close()


def _bond(peer):
    """Return what nav2_lifecycle_manager makes of `node_names: [detector]` after activation."""
    bond = Bond(peer.node, 'bond', 'detector')
    bond.heartbeat_period = 0.1
    bond.heartbeat_timeout = 4.0
    bond.start()
    return bond


def _end(peer, bond):
    bond.shutdown()
    peer.node.destroy_subscription(bond.sub)
    peer.node.destroy_publisher(bond.pub)


def _formed(bond):
    return bond.sister_instance_id is not None and not bond.is_broken()


def _bond_publishers(peer):
    return [info.node_name for info in peer.node.get_publishers_info_by_topic('/bond')]


@needs_bondpy
def test_the_bond_lasts_while_the_node_is_active(detector, manager):
    assert manager.change_state('configure')
    for _ in range(3):
        assert 'detector' not in _bond_publishers(manager)
        assert manager.change_state('activate')
        bond = _bond(manager)
        manager.spin_until(lambda: _formed(bond), 5, 'no bond')
        end = time.monotonic() + 5  # longer than the time-out
        manager.spin_until(lambda: bond.is_broken() or time.monotonic() > end, 6)
        assert _formed(bond)
        assert manager.change_state('deactivate')
        manager.spin_until(bond.is_broken, 2, 'the bond outlives the deactivation')
        _end(manager, bond)
        manager.spin_until(lambda: not _bond_publishers(manager), 5, 'publishers are left')
    assert 'More than two' not in detector.output and 'Traceback' not in detector.output


@needs_bondpy
@pytest.mark.parametrize('way', ['shutdown', 'interrupt', 'kill'])
def test_the_manager_learns_of_the_end(detector, manager, way):
    manager.change_state('configure')
    manager.change_state('activate')
    bond = _bond(manager)
    manager.spin_until(lambda: _formed(bond), 5, 'no bond')
    # bondpy watches the heartbeats from the second one on.
    begin = time.monotonic() + 0.5
    manager.spin_until(lambda: time.monotonic() > begin, 1)
    if way == 'shutdown':
        assert manager.change_state('active_shutdown')
    else:
        end = detector.process.send_signal if way == 'interrupt' else detector.stop
        end(signal.SIGINT if way == 'interrupt' else signal.SIGKILL)
    manager.spin_until(bond.is_broken, 8, 'the bond outlives the node')
    # After a signal nothing can be published any more; the missing heartbeats tell.
    assert way != 'shutdown' or time.monotonic() - begin < 2
    assert 'Traceback' not in detector.output
    _end(manager, bond)


@needs_bondpy
def test_a_manager_that_dies_can_come_back(detector, manager):
    manager.change_state('configure')
    for _ in range(2):
        assert manager.change_state('activate')
        bond = _bond(manager)
        manager.spin_until(lambda: _formed(bond), 5, 'no bond')
        # Fall silent, as a process that was killed.
        bond.is_shutdown = True
        manager.node.destroy_subscription(bond.sub)
        manager.node.destroy_publisher(bond.pub)
        end = time.monotonic() + 6
        manager.spin_until(lambda: time.monotonic() > end, 7)
        assert manager.state() == 'active'
        assert manager.change_state('deactivate')
    assert 'Traceback' not in detector.output
    assert manager.set_parameters(score_threshold=0.5) == ''


def test_without_bondpy_the_node_activates_all_the_same(tmp_path, manager):
    model = write_model(tmp_path / 'model.onnx', raw_output(
        [[160, 96, 80, 60]], [[0.95, 0, 0]], (320, 192)))
    (tmp_path / 'bondpy').mkdir()  # hides one that is installed
    (tmp_path / 'bondpy' / '__init__.py').write_text('')
    process = NodeProcess(
        'yolojet_ros.nodes.detector_node', tmp_path / 'log', {'model': str(model)},
        env={'PYTHONPATH': os.pathsep.join(
            [str(tmp_path), str(ROOT)])})
    try:
        assert manager.change_state('configure') and manager.change_state('activate')
        manager.wait_for_subscriber()
        assert _bond_publishers(manager) == []
        assert manager.change_state('deactivate') and manager.change_state('activate')
    finally:
        assert process.stop() == 0
