"""What the machine tells, as it comes out of `/diagnostics`."""

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from jetson_trees import orin_tree, write_tree  # noqa: E402
from ros_peers import Peer  # noqa: E402
from yolojet_ros.nodes.diagnostics import Diagnostics  # noqa: E402
from yolojet_ros.nodes.machine_status import MachineStatus  # noqa: E402
from yolojet_ros.operate.samplers.machine import Machine  # noqa: E402
from yolojet_ros.operate.samplers.sysfs import SysfsReader  # noqa: E402

OK, WARN = b'\0', b'\1'


@pytest.fixture(scope='module')
def peer():
    """Return who listens; its node is also the one that tells, and has no camera to tell of."""
    peer = Peer('peer')
    vars(peer.node).update(cameras=(), detector=None, active=False, failure=None)
    yield peer
    peer.close()


def test_a_machine_that_does_well_and_one_that_slows_down(peer, tmp_path):
    machine = MachineStatus(peer.node, Machine([SysfsReader(orin_tree(tmp_path))]))
    peer.node.create_timer(0.1, Diagnostics(peer.node, machine).publish)
    status, values = peer.status(about='machine')
    assert (status.level, status.name) == (OK, '/peer: machine')
    assert status.message == '50 C, 12.6 W, GPU 43 %'
    assert status.hardware_id == 'NVIDIA Jetson AGX Orin Developer Kit'
    assert values == {
        'temperature_c': '50.5', 'gpu_temperature_c': '47.0', 'cpu_temperature_c': '49.5',
        'power_w': '12.6', 'power_of': 'board', 'gpu_percent': '43.2', 'gpu_clock_mhz': '1300.5',
        'cpu_clock_mhz': '1500.0', 'throttling': 'none'}
    write_tree(tmp_path, {'sys/class/thermal/thermal_zone3/temp': '51000',
                          'sys/class/hwmon/hwmon3/oc1_event_cnt': '2',
                          'sys/class/thermal/cooling_device1/cur_state': '4'})
    status, values = peer.status(
        lambda values: values['throttling'] != 'none', about='machine')
    assert status.level == WARN
    assert status.message == values['throttling'] == (
        'cpufreq-cpu0 is slowed down against heat (step 4); '
        'under-voltage, 2 times since the last look')


def test_a_machine_that_tells_nothing_has_no_status(peer, tmp_path):
    assert MachineStatus(peer.node, Machine([SysfsReader(tmp_path)])).statuses() == []


def test_a_node_looks_at_the_machine_it_runs_on(peer):
    pytest.importorskip('psutil')
    status, = MachineStatus(peer.node).statuses()
    values = {item.key: item.value for item in status.values}
    assert int(values['memory_total_bytes']) > int(values['rss_bytes']) > 10 * 2**20
