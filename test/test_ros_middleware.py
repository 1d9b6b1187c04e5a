"""Preparing a process for large images: what is set, and what of the user's is kept."""

import os
from pathlib import Path
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

import pytest

from yolojet_ros.core.errors import UserError
from yolojet_ros.ros import middleware, profile_files

_VARIABLES = ('FASTDDS_BUILTIN_TRANSPORTS', 'FASTDDS_DEFAULT_PROFILES_FILE',
              'FASTRTPS_DEFAULT_PROFILES_FILE', 'RMW_IMPLEMENTATION',
              'YOLOJET_TRANSPORT_PROFILE', 'YOLOJET_SHARED_MEMORY_MB', 'ROS_LOCALHOST_ONLY')
_SPACE = '{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}'


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


def test_a_middleware_is_found_where_its_library_lies(clean, tmp_path):
    index = tmp_path / 'a/share/ament_index/resource_index/rmw_typesupport_cpp'
    index.mkdir(parents=True)
    (index / 'rmw_fastrtps_cpp').touch()
    (tmp_path / 'b').mkdir()
    clean.setenv('AMENT_PREFIX_PATH', str(tmp_path / 'a'))
    clean.setenv('LD_LIBRARY_PATH', str(tmp_path / 'b'))
    for name in ('', 'rmw_fastrtps_cpp'):
        clean.setenv('RMW_IMPLEMENTATION', name)
        middleware.check_installed()
    clean.setenv('RMW_IMPLEMENTATION', 'rmw_mine')
    with pytest.raises(UserError, match='choose rmw_fastrtps_cpp'):
        middleware.check_installed()
    (tmp_path / 'b/librmw_mine.so').touch()
    middleware.check_installed()
    clean.delenv('AMENT_PREFIX_PATH')  # nothing is known here: ROS itself decides
    clean.setenv('RMW_IMPLEMENTATION', 'rmw_other')
    middleware.check_installed()


def _profile():
    """Return the root of the XML that was prepared, and its transports by kind."""
    name = os.environ[middleware.profiles_variable()]
    root = xml.etree.ElementTree.parse(name).getroot()
    used = [item.text for item in root.find(f'.//{_SPACE}userTransports')]
    items = {item.find(_SPACE + 'transport_id').text: item
             for item in root.iter(_SPACE + 'transport_descriptor')}
    assert set(used) == set(items)
    return root, {item.find(_SPACE + 'type').text: item for item in items.values()}


def test_images_are_received_by_the_network_and_sent_by_both(clean):
    assert '16 MiB of shared memory out' in middleware.prepare_transport()
    root, kinds = _profile()
    assert set(kinds) == {'SHM', 'UDPv4'}
    locators = root.find(f'.//{_SPACE}defaultUnicastLocatorList')
    assert [item[0].tag for item in locators] == [_SPACE + 'udpv4']
    assert int(kinds['UDPv4'].find(_SPACE + 'receiveBufferSize').text) >= 1.5 * 3840 * 2160 * 3
    assert int(kinds['SHM'].find(_SPACE + 'segment_size').text) >= 2.5 * 1920 * 1080 * 3
    assert middleware.receives_by_network()


def test_profiles_differ_in_their_transports(clean):
    clean.setenv('YOLOJET_TRANSPORT_PROFILE', 'udp')
    assert middleware.prepare_transport().startswith('UDP, by ')
    assert set(_profile()[1]) == {'UDPv4'} and middleware.receives_by_network()
    clean.delenv(middleware.profiles_variable())
    clean.setenv('YOLOJET_TRANSPORT_PROFILE', 'shared_memory')
    clean.setenv('YOLOJET_SHARED_MEMORY_MB', '64')
    assert middleware.prepare_transport().startswith('64 MiB of shared memory, by ')
    root, kinds = _profile()
    assert kinds['SHM'].find(_SPACE + 'segment_size').text == str(64 * 2**20)
    assert root.find(f'.//{_SPACE}defaultUnicastLocatorList') is None
    assert not middleware.receives_by_network()
    clean.delenv(middleware.profiles_variable())
    clean.setenv('YOLOJET_TRANSPORT_PROFILE', 'untouched')
    assert middleware.prepare_transport() == 'Fast DDS is left as it is'
    assert not any(name in os.environ for name in _VARIABLES[:3])


@pytest.mark.parametrize('variable, value, words', [
    ('YOLOJET_TRANSPORT_PROFILE', 'tcp', 'choose one of auto, udp, shared_memory, untouched'),
    ('YOLOJET_SHARED_MEMORY_MB', 'much', 'must be 1 to 4096 MiB'),
    ('YOLOJET_SHARED_MEMORY_MB', '0', 'must be 1 to 4096 MiB')])
def test_wrong_settings_are_one_sentence(clean, variable, value, words):
    clean.setenv(variable, value)
    with pytest.raises(UserError, match=words):
        middleware.prepare_transport()


def test_a_network_that_must_stay_on_this_machine_does(clean):
    clean.setenv('ROS_LOCALHOST_ONLY', '1')
    middleware.prepare_transport()
    addresses = _profile()[1]['UDPv4'].find(_SPACE + 'interfaceWhiteList')
    assert [item.text for item in addresses] == ['127.0.0.1']


def test_without_room_for_shared_memory_the_network_is_taken(clean, tmp_path):
    clean.setattr(middleware, 'SHARED_MEMORY', tmp_path / 'missing')
    assert 'missing)' in middleware.prepare_transport()
    assert set(_profile()[1]) == {'UDPv4'}


def test_the_socket_buffer_is_what_the_kernel_grants_to_the_profile(clean, tmp_path):
    small = tmp_path / 'small.xml'
    small.write_text('<receiveBufferSize>50000</receiveBufferSize>')
    clean.setenv(middleware.profiles_variable(), str(small))
    assert middleware.socket_buffer() == 100_000
    small.write_text('<receiveBufferSize>2000000000</receiveBufferSize>')
    limit = int(Path('/proc/sys/net/core/rmem_max').read_text())
    assert middleware.socket_buffer() == 2 * limit


def test_a_generated_profile_is_kept_once_where_only_this_user_writes(clean, tmp_path):
    clean.setattr(tempfile, 'tempdir', str(tmp_path))
    first, again = profile_files.keep(b'<a/>'), profile_files.keep(b'<a/>')
    assert first == again and first.read_bytes() == b'<a/>'
    assert profile_files.keep(b'<b/>') != first
    assert first.parent.stat().st_mode & 0o777 == 0o700
    first.write_bytes(b'half')
    assert profile_files.keep(b'<a/>').read_bytes() == b'<a/>'
    assert sorted(item.suffix for item in first.parent.iterdir()) == ['.xml', '.xml']


@pytest.mark.parametrize('trap', [
    lambda path, other: path.symlink_to(other), lambda path, other: path.write_text(''),
    lambda path, other: (path.mkdir(), path.chmod(0o777))])
def test_a_folder_that_others_could_write_is_not_used(clean, tmp_path, trap):
    other = tmp_path / 'other'
    other.mkdir()
    clean.setattr(tempfile, 'tempdir', str(tmp_path))
    trap(tmp_path / f'yolojet-{os.getuid()}', other)
    path = profile_files.keep(b'<a/>')
    assert path.read_bytes() == b'<a/>' and not list(other.iterdir())
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.parent != tmp_path / f'yolojet-{os.getuid()}'


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
