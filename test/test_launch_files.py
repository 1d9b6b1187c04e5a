"""The launch files: arguments that explain themselves, and a detector that detects."""

import importlib.util
import os
from pathlib import Path
import signal
import subprocess
import sys

import pytest

pytest.importorskip(
    'launch_ros', reason='launch_ros is not installed: it comes with a ROS 2 installation only')

from launch.actions import DeclareLaunchArgument  # noqa: E402
from models import raw_output, write_model  # noqa: E402
from ros_peers import DOMAIN, Peer, ROOT  # noqa: E402

_RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
service = LaunchService()
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    PythonLaunchDescriptionSource(sys.argv[1]),
    launch_arguments=[word.split(':=') for word in sys.argv[2:]])]))
sys.exit(service.run())
"""


@pytest.fixture(scope='module')
def share(tmp_path_factory):
    """Return the share folder of the installed package, found by ROS from now on."""
    prefix = tmp_path_factory.mktemp('prefix')
    base = tmp_path_factory.mktemp('build')
    subprocess.run(
        [sys.executable, 'setup.py', '-q', 'egg_info', '--egg-base', str(base), 'build',
         '--build-base', str(base), 'install_data', '--install-dir', str(prefix)],
        cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = os.environ['AMENT_PREFIX_PATH']
    os.environ['AMENT_PREFIX_PATH'] = os.pathsep.join([str(prefix), before])
    yield prefix / 'share' / 'yolojet_ros'
    os.environ['AMENT_PREFIX_PATH'] = before


@pytest.fixture
def launch(share, tmp_path):
    """Return a function that runs a launch file in a process until the test ends."""
    running = []

    def start(name, **arguments):
        log = tmp_path / 'launch.log'
        environment = dict(
            os.environ, ROS_DOMAIN_ID=str(DOMAIN), ROS_LOG_DIR=str(tmp_path),
            PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]))
        environment['PATH'] = os.pathsep.join(
            [str(Path(sys.executable).parent), environment['PATH']])
        with log.open('w') as stream:
            process = subprocess.Popen(
                [sys.executable, '-c', _RUN, str(share / 'launch' / name),
                 *(f'{key}:={value}' for key, value in arguments.items())],
                env=environment, stdout=stream, stderr=subprocess.STDOUT)
        running.append(process)
        return process, log

    yield start
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(20)


def _description(name):
    spec = importlib.util.spec_from_file_location('launched', ROOT / 'launch' / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


@pytest.mark.parametrize('name, expected', [
    ('detect.launch.py', ['namespace', 'params_file', 'model', 'backend', 'image_topic',
                          'use_sim_time', 'log_level', 'autostart', 'transport_profile',
                          'camera', 'rviz']),
    ('build_engine.launch.py', ['onnx', 'profile', 'precision', 'workspace', 'out', 'calib']),
])
def test_every_argument_has_a_description(name, expected):
    arguments = [entity for entity in _description(name).entities
                 if isinstance(entity, DeclareLaunchArgument)]
    assert [argument.name for argument in arguments] == expected
    assert all(len(argument.description) > 20 for argument in arguments)


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / 'model.onnx', raw_output(
        [[160, 96, 80, 60]], [[0.95, 0, 0]], (320, 192)))


def _detections(namespace, count=5):
    peer = Peer(node='detector')
    try:
        from vision_msgs.msg import Detection2DArray
        got = []
        peer.node.create_subscription(
            Detection2DArray, f'{namespace}/detections', got.append, 10)
        peer.spin_until(lambda: len(got) >= count, 30, 'no detections')
        return got
    finally:
        peer.close()


def test_namespace_topic_camera_and_model(launch, model):
    process, log = launch('detect.launch.py', namespace='front', camera='synthetic',
                          image_topic='images', model=model, backend='onnxruntime')
    got = _detections('/front')
    assert all(array.detections[0].results[0].hypothesis.class_id for array in got)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    text = log.read_text()
    assert 'images over DDS: ' in text and '/front/images' in text
    assert 'Traceback' not in text


def test_params_file_of_the_user_names_the_model(launch, model, tmp_path):
    params = tmp_path / 'mine.yaml'
    params.write_text(f'/**:\n  ros__parameters:\n    model: {model}\n    tracking: false\n')
    launch('detect.launch.py', camera='synthetic', params_file=params)
    assert all(array.detections[0].id == '' for array in _detections(''))


def test_demo_model_is_the_default(launch, share):
    demo = sorted((share / 'engines' / 'demo').glob('*.onnx'))
    assert demo, 'the package comes with a demo model'
    _, log = launch('detect.launch.py', camera='synthetic')
    _detections('')
    assert demo[0].name in log.read_text()


def test_log_level_and_autostart_reach_the_detector(launch, model):
    _, log = launch('detect.launch.py', model=model, autostart='false', log_level='error',
                    camera='synthetic')
    peer = Peer(node='detector')
    try:
        assert peer.state() == 'unconfigured'
        assert peer.get_parameter('autostart').bool_value is False
    finally:
        peer.close()
    assert '[detector]' not in log.read_text() and '[camera]' not in log.read_text()


def test_nonsense_for_a_switch_is_refused(launch):
    process, log = launch('detect.launch.py', rviz='maybe')
    assert process.wait(20) != 0
    assert "rviz is 'maybe'; expected true or false" in log.read_text()
