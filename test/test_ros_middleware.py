"""Preparing a process for large images: what is set, and what of the user's is kept."""

import os
import subprocess
import sys
import xml.etree.ElementTree

import pytest

from yolojet_ros.ros import middleware

_VARIABLES = ('FASTDDS_BUILTIN_TRANSPORTS', 'FASTDDS_DEFAULT_PROFILES_FILE',
              'FASTRTPS_DEFAULT_PROFILES_FILE', 'RMW_IMPLEMENTATION')


@pytest.fixture
def clean(monkeypatch):
    for name in _VARIABLES:
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize('package, variable', [
    ('fastrtps', 'FASTRTPS_DEFAULT_PROFILES_FILE'), ('fastdds', 'FASTDDS_DEFAULT_PROFILES_FILE')])
def test_profile_is_set_under_the_name_that_the_installed_fast_dds_reads(
        clean, tmp_path, package, variable):
    (tmp_path / 'share' / package).mkdir(parents=True)
    clean.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    assert variable in middleware.prepare_transport()
    assert os.environ[variable] == str(middleware.PROFILES)
    assert 'is kept' in middleware.prepare_transport()


@pytest.mark.parametrize('variable', _VARIABLES[:3])
def test_what_the_user_has_set_is_kept(clean, variable):
    clean.setenv(variable, 'mine')
    assert middleware.prepare_transport() == f'{variable}=mine is kept'
    assert [name for name in _VARIABLES if name in os.environ] == [variable]


def test_other_middlewares_are_left_alone(clean):
    clean.setenv('RMW_IMPLEMENTATION', 'rmw_cyclonedds_cpp')
    assert 'left as it is' in middleware.prepare_transport()
    assert not any(name in os.environ for name in _VARIABLES[:3])


def test_profile_keeps_the_network_and_has_room_for_4k_images():
    space = '{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}'
    root = xml.etree.ElementTree.parse(middleware.PROFILES).getroot()
    kinds = {item.find(space + 'type').text: item for item in root.iter(
        space + 'transport_descriptor')}
    assert set(kinds) == {'SHM', 'UDPv4'}
    assert int(kinds['SHM'].find(space + 'segment_size').text) >= 2 * 3840 * 2160 * 3


_FAULTS = """
import resource
import sys
from yolojet_ros.ros import middleware
print(middleware.prepare(), file=sys.stderr)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    bytearray(3_000_000)
before = faults()
for _ in range(100):
    bytearray(3_000_000)
print(faults() - before)
"""


def _page_faults(**environment):
    result = subprocess.run(
        [sys.executable, '-c', _FAULTS], env=dict(os.environ, **environment), check=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    return int(result.stdout), result.stderr


def test_large_buffers_are_kept_instead_of_faulted_in_anew():
    faults, text = _page_faults()
    assert 'malloc keeps large buffers' in text and faults < 1000
    faults, text = _page_faults(MALLOC_MMAP_THRESHOLD_='65536')
    assert 'MALLOC_MMAP_THRESHOLD_ is kept' in text and faults > 50_000


_PEER = """
import sys, time
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node('stranger')
got = []
node.create_subscription(Image, 'image_raw', got.append, QoSProfile(
    depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
end = time.monotonic() + 20
while time.monotonic() < end and len(got) < 10:
    rclpy.spin_once(node, timeout_sec=0.1)
print(len(got), *node.get_node_names())
"""


def test_a_node_that_knows_nothing_of_it_is_heard_and_sees_the_images(clean, tmp_path):
    """Large images reach a process with Fast DDS as it comes, which also finds our node."""
    from ros_peers import DOMAIN, NodeProcess
    camera = NodeProcess('yolojet_ros.nodes.camera_node', tmp_path / 'log', {
        'width': 1280, 'height': 720, 'rate': 10.0})
    try:
        result = subprocess.run(
            [sys.executable, '-c', _PEER], env=dict(os.environ, ROS_DOMAIN_ID=str(DOMAIN)),
            check=True, stdout=subprocess.PIPE, universal_newlines=True, timeout=60)
    finally:
        assert camera.stop() == 0, camera.output
    words = result.stdout.split()
    assert int(words[0]) >= 10 and 'camera' in words
