"""The doctor on ROS 2 as shells set it up: variables, profiles, packages, and SROS 2."""

from pathlib import Path

from doctor_machines import BARE, check, Machine
import pytest

FASTDDS = Path(__file__).resolve().parents[1] / 'yolojet_ros' / 'ros' / 'fastdds.xml'


def _ros(tmp_path, **environ):
    (tmp_path / 'prefix').mkdir()
    return Machine(tmp_path, BARE, ROS_DISTRO='humble',
                   AMENT_PREFIX_PATH=str(tmp_path / 'prefix'), **environ)


@pytest.mark.parametrize('environ, status, words', [
    ({}, 'ok', 'ROS_DOMAIN_ID is 0'),
    ({'ROS_DOMAIN_ID': '7'}, 'ok', ''),
    ({'ROS_DOMAIN_ID': '150'}, 'warn', 'take 0 to 101'),
    ({'ROS_DOMAIN_ID': '233'}, 'fail', 'must be 0 to 232'),
    ({'ROS_DOMAIN_ID': 'robot'}, 'fail', 'ROS_DOMAIN_ID is "robot"'),
    ({'ROS_LOCALHOST_ONLY': '1'}, 'warn', 'on other machines are not found'),
    ({'ROS_LOCALHOST_ONLY': '0'}, 'ok', ''),
    ({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}, 'warn', 'on other machines'),
    ({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF'}, 'fail', 'not even on this machine'),
    ({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF', 'ROS_STATIC_PEERS': '10.0.0.2'}, 'ok', '10.0.0.2'),
    ({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LAN'}, 'fail', 'no such range'),
    ({'ROS_DISCOVERY_SERVER': '10.0.0.2:11811'}, 'ok', 'as long as that server runs')])
def test_who_is_found(tmp_path, environ, status, words):
    finding = check(_ros(tmp_path, **environ), 'discovery')
    assert finding.status == status and words in f'{finding.found} {finding.meaning}'


def _profile(**values):
    inner = ''.join(f'<{key}>{value}</{key}>' for key, value in values.items())
    return ('<profiles xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles">'
            f'<transport_descriptors><transport_descriptor>{inner}</transport_descriptor>'
            '</transport_descriptors></profiles>')


@pytest.mark.parametrize('value, status, words', [
    ('LARGE_DATA', 'ok', ''), ('LARGE_DATA?max_msg_size=1MB', 'ok', ''),
    ('DEFAULT', 'warn', '512 KiB'), ('SHM', 'warn', '512 KiB'), ('UDPv4', 'warn', 'rmem_default'),
    ('NONE', 'warn', 'find nobody'), ('TCP', 'fail', 'knows NONE')])
def test_built_in_transports(tmp_path, value, status, words):
    finding = check(_ros(tmp_path, FASTDDS_BUILTIN_TRANSPORTS=value), 'dds_settings')
    assert finding.status == status and words in finding.meaning
    assert finding.command == ('' if status == 'ok' else 'unset FASTDDS_BUILTIN_TRANSPORTS')


@pytest.mark.parametrize('text, status, words', [
    (None, 'fail', 'cannot be read (No such file'), ('<profiles>', 'fail', 'which is no XML'),
    (FASTDDS.read_text(), 'ok', 'these are our own'),
    (_profile(type='UDPv4'), 'warn', 'its receiveBufferSize is not set'),
    (_profile(type='SHM', segment_size=1048576), 'warn', 'its segment_size is 1048576'),
    (_profile(type='SHM', segment_size=16777216), 'ok', 'give way'),
    (_profile(type='UDPv4', receiveBufferSize=8388608), 'ok', 'give way'),
    (_profile(transport_id='x'), 'warn', '512 KiB')])
def test_a_profile_of_the_user(tmp_path, text, status, words):
    path = tmp_path / 'profile.xml'
    if text is not None:
        path.write_text(text)
    finding = check(_ros(tmp_path, FASTRTPS_DEFAULT_PROFILES_FILE=str(path)), 'dds_settings')
    assert finding.status == status and words in f'{finding.found} {finding.meaning}'


def test_a_profile_under_a_name_that_this_fast_dds_does_not_know(tmp_path):
    system = _ros(tmp_path, FASTDDS_DEFAULT_PROFILES_FILE=str(FASTDDS))
    assert check(system, 'dds_settings').status == 'ok'
    (tmp_path / 'prefix/share/fastrtps').mkdir(parents=True)  # Fast DDS 2
    finding = check(system, 'dds_settings')
    assert finding.status == 'fail' and finding.command.startswith(
        'export FASTRTPS_DEFAULT_PROFILES_FILE=$FASTDDS_DEFAULT_PROFILES_FILE')


@pytest.mark.parametrize('environ, status, words', [
    ({'YOLOJET_TRANSPORT_PROFILE': 'untouched'}, 'warn', 'loses most'),
    ({'YOLOJET_TRANSPORT_PROFILE': 'tcp'}, 'fail', 'must be one of auto, udp'),
    ({'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp'}, 'ok', 'rmem_max'),
    ({'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp', 'CYCLONEDDS_URI': 'file:///no.xml'}, 'fail',
     'no such file'),
    ({'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp', 'CYCLONEDDS_URI': '<CycloneDDS/>'}, 'ok', '')])
def test_other_settings_of_the_middleware(tmp_path, environ, status, words):
    finding = check(_ros(tmp_path, **environ), 'dds_settings')
    assert finding.status == status and words in f'{finding.found} {finding.meaning}'


def test_a_middleware_that_is_not_installed(tmp_path):
    system = _ros(tmp_path, RMW_IMPLEMENTATION='rmw_cyclonedds_cpp')
    folder = tmp_path / 'prefix/share/ament_index/resource_index/rmw_typesupport_cpp'
    folder.mkdir(parents=True)
    (folder / 'rmw_fastrtps_cpp').write_text('')
    finding = check(system, 'rmw')
    assert finding.status == 'fail' and 'choose rmw_fastrtps_cpp' in finding.found
    assert 'sudo apt install ros-humble-rmw-cyclonedds-cpp' in finding.command
    (folder / 'rmw_cyclonedds_cpp').write_text('')
    assert check(system, 'rmw').found == 'RMW_IMPLEMENTATION is rmw_cyclonedds_cpp'


def test_a_ros_that_nobody_sourced(tmp_path):
    finding = check(Machine(tmp_path, {**BARE, '/opt/ros/humble/setup.bash': ''}), 'rclpy')
    assert finding.status == 'warn' and finding.command == 'source /opt/ros/humble/setup.bash'


@pytest.mark.parametrize('code, words', [
    ('raise ModuleNotFoundError("No module named \'rclpy._rclpy_pybind11\'")',
     'its rclpy is for Python 3.99'),
    ('import os; os.abort()', 'SIGABRT at "import rclpy"'),
    ('def init(): raise RuntimeError("rcl says no")\n', 'does not start: RuntimeError: rcl says')])
def test_an_rclpy_that_does_not_work(tmp_path, code, words):
    system = _ros(tmp_path)
    modules = ['sensor_msgs', 'vision_msgs', 'diagnostic_msgs', 'std_msgs']
    for name in modules:
        (system.packages / name).mkdir()
        (system.packages / name / 'msg.py').write_text('')
    (system.packages / 'rclpy.py').write_text(code)
    built = tmp_path / 'prefix/lib/rclpy'
    built.mkdir(parents=True)
    (built / '_rclpy_pybind11.cpython-399-x86_64-linux-gnu.so').write_text('')
    finding = check(system, 'rclpy')
    assert finding.status == 'fail' and words in f'{finding.found} {finding.meaning}'


def test_missing_messages_are_named_with_their_package(tmp_path):
    system = _ros(tmp_path)
    (system.packages / 'rclpy.py').write_text(
        'init = shutdown = lambda: None\nget_rmw_implementation_identifier = lambda: "rmw_x"\n')
    for name in ('sensor_msgs', 'diagnostic_msgs', 'std_msgs'):
        (system.packages / name).mkdir()
        (system.packages / name / 'msg.py').write_text('')
    (system.packages / 'vision_msgs.py').write_text('raise ModuleNotFoundError("vision_msgs")')
    finding = check(system, 'rclpy')
    assert finding.status == 'fail' and 'lacks vision-msgs' in finding.found
    assert finding.command == 'sudo apt install ros-humble-vision-msgs'


@pytest.mark.parametrize('environ, status, words', [
    ({}, 'ok', 'SROS 2 is off'), ({'ROS_SECURITY_ENABLE': 'false'}, 'ok', 'SROS 2 is off'),
    ({'ROS_SECURITY_ENABLE': 'True'}, 'warn', 'only "true"'),
    ({'ROS_SECURITY_ENABLE': 'true'}, 'fail', 'ROS_SECURITY_KEYSTORE is not set'),
    ({'ROS_SECURITY_ENABLE': 'true', 'ROS_SECURITY_KEYSTORE': '/nowhere'}, 'fail',
     'no enclaves in /nowhere'),
    ({'ROS_SECURITY_ENABLE': 'true', 'ROS_SECURITY_KEYSTORE': 'none'}, 'fail',
     'there are no keys'),
    ({'ROS_SECURITY_ENABLE': 'true', 'ROS_SECURITY_KEYSTORE': 'keys'}, 'warn', 'run unprotected'),
    ({'ROS_SECURITY_ENABLE': 'true', 'ROS_SECURITY_KEYSTORE': 'keys',
      'ROS_SECURITY_STRATEGY': 'enforce'}, 'warn', '"enforce"'),
    ({'ROS_SECURITY_ENABLE': 'true', 'ROS_SECURITY_KEYSTORE': 'keys',
      'ROS_SECURITY_STRATEGY': 'Enforce'}, 'ok', 'on and enforced')])
def test_security(tmp_path, environ, status, words):
    (tmp_path / 'keys' / 'enclaves' / 'yolojet').mkdir(parents=True)
    (tmp_path / 'keys' / 'enclaves' / 'yolojet' / 'cert.pem').touch()
    (tmp_path / 'none' / 'enclaves' / 'yolojet').mkdir(parents=True)
    environ = {name: str(tmp_path / value) if value in ('keys', 'none') else value
               for name, value in environ.items()}
    finding = check(Machine(tmp_path, **environ), 'security')
    assert finding.status == status and words in f'{finding.found} {finding.meaning}'


def test_hashes_of_the_messages_that_are_installed(tmp_path):
    from test_packaging_interfaces import TYPE_HASHES

    from yolojet_ros.operate.doctor.checks import ros
    assert ros.TYPE_HASHES == TYPE_HASHES
    system = _ros(tmp_path)
    assert check(system, 'vision_msgs').status == 'fail'
    folder = tmp_path / 'prefix/share/vision_msgs/msg'
    folder.mkdir(parents=True)
    assert check(system, 'vision_msgs').status == 'skipped', 'Humble has none'
    for name, value in TYPE_HASHES.items():
        (folder / f'{name}.json').write_text(
            f'{{"type_hashes": [{{"type_name": "vision_msgs/msg/{name}", '
            f'"hash_string": "{value}"}}]}}')
    assert check(system, 'vision_msgs').status == 'ok'
    path = folder / 'Detection2DArray.json'
    path.write_text(path.read_text().replace('RIHS01_21', 'RIHS01_22'))
    finding = check(system, 'vision_msgs')
    assert finding.status == 'fail' and finding.found.startswith('Detection2DArray of vision_msgs')
