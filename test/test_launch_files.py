"""The launch files: arguments that act or are refused, and a detector that detects."""

import importlib.util
import os
from pathlib import Path
import signal
import subprocess
import sys

import pytest

pytest.importorskip(
    'launch_ros', reason='launch_ros is not installed: it comes with a ROS 2 installation only')

from ament_index_python.packages import get_packages_with_prefixes  # noqa: E402
from launch.actions import DeclareLaunchArgument  # noqa: E402
from models import raw_output, write_model  # noqa: E402
from ros_peers import DOMAIN, Peer, ROOT, wait_until  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402
import shared_memory  # noqa: E402
from vision_msgs.msg import Detection2DArray  # noqa: E402
import yaml  # noqa: E402

# What a user's own launch file does: push a namespace, include ours, start something else.
_RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import ExecuteProcess, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import PushRosNamespace
file, pushed, beside, *arguments = sys.argv[1:]
actions = [IncludeLaunchDescription(
    PythonLaunchDescriptionSource(file),
    launch_arguments=[word.split(':=', 1) for word in arguments])]
if pushed:
    actions.insert(0, PushRosNamespace(pushed))
if beside:
    actions.insert(0, ExecuteProcess(cmd=beside.split()))
service = LaunchService()
service.include_launch_description(LaunchDescription([GroupAction(actions)]))
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


class Launched:
    """`ros2 launch` in a process of its own."""

    def __init__(self, file, log, pushed='', beside='', **arguments):
        environment = dict(
            os.environ, ROS_DOMAIN_ID=str(DOMAIN), ROS_LOG_DIR=str(log.parent),
            PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]))
        environment['PATH'] = os.pathsep.join(
            [str(Path(sys.executable).parent), environment['PATH']])
        self.log = log
        with log.open('w') as stream:
            self.process = subprocess.Popen(
                [sys.executable, '-c', _RUN, str(file), pushed, beside,
                 *(f'{key}:={value}' for key, value in arguments.items())],
                env=environment, stdout=stream, stderr=subprocess.STDOUT,
                # Jobs in the background are started with it ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))

    @property
    def output(self):
        return self.log.read_text(errors='replace')

    def wait_for_output(self, text, seconds=30):
        wait_until(lambda: text in self.output, seconds, lambda: f'{text!r} in:\n{self.output}')

    def wait(self, seconds=30):
        return self.process.wait(seconds)

    def interrupt(self):
        """Press Ctrl-C and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.wait()


@pytest.fixture
def launch(share, tmp_path):
    """Return a function that runs a launch file in a process until the test ends."""
    running = []

    def start(name, **arguments):
        launched = Launched(
            share / 'launch' / name, tmp_path / f'launch{len(running)}.log', **arguments)
        running.append(launched)
        return launched

    yield start
    for launched in running:
        try:
            launched.interrupt()
        finally:
            launched.process.kill()


@pytest.fixture
def connect():
    """Return a function that makes the operator and consumer of a node, until the test ends."""
    peers = []

    def make(node='detector'):
        peers.append(Peer(node=node))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / 'model.onnx', raw_output(
        [[160, 96, 80, 60]], [[0.95, 0, 0]], (320, 192)))


def _receive(peer, kind, topic, count=1):
    got = []
    peer.node.create_subscription(kind, topic, got.append, 10)
    peer.spin_until(lambda: len(got) >= count, 30, f'nothing on {topic}')
    return got


def test_several_cameras_share_one_detector(launch, connect, model):
    launched = launch('detect.launch.py', namespace='robot', cameras='front, rear', model=model,
                      camera='synthetic', rate=5)
    peer = connect('robot/detector')
    for name in ('front', 'rear'):
        result = _receive(peer, Detection2DArray, f'/robot/{name}/detections')[0]
        assert result.header.frame_id == f'robot/{name}/camera'
    names = [name for name, _ in peer.node.get_node_names_and_namespaces()]
    assert names.count('detector') == 1 and names.count('camera') == 2
    assert launched.process.poll() is None


def test_images_of_several_cameras_have_topics_of_their_own(launch):
    launched = launch('detect.launch.py', cameras='front,rear', image_topic='/camera/image')
    assert launched.wait() != 0
    launched.wait_for_output('so give one of the two')


def _detections(peer, namespace=''):
    return _receive(peer, Detection2DArray, f'{namespace}/detections', 5)


def _wait_for_state(peer, state):
    peer.spin_until(lambda: peer.state() == state, 30, f'the state is not {state}')


def _params_file(folder, key, **values):
    path = folder / 'mine.yaml'
    path.write_text(yaml.safe_dump({key: {'ros__parameters': values}}))
    return path


def _description(name):
    spec = importlib.util.spec_from_file_location('launched', ROOT / 'launch' / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


@pytest.mark.parametrize('name, expected', [
    ('detect.launch.py', [
        'namespace', 'params_file', 'model', 'backend', 'image_topic', 'cameras',
        'use_sim_time', 'log_level', 'autostart', 'respawn', 'transport_profile', 'enclave',
        'camera', 'frame_id', 'rate', 'width', 'height', 'rviz']),
    ('build_engine.launch.py', ['onnx', 'profile', 'precision', 'workspace', 'out', 'calib']),
])
def test_every_argument_has_a_description(name, expected):
    arguments = [entity for entity in _description(name).entities
                 if isinstance(entity, DeclareLaunchArgument)]
    assert [argument.name for argument in arguments] == expected
    assert all(len(argument.description) > 20 for argument in arguments)


@pytest.mark.parametrize('name', ['detect.launch.py', 'build_engine.launch.py'])
def test_the_readme_names_every_argument(name):
    readme = (ROOT / 'README.md').read_text()
    for entity in _description(name).entities:
        if isinstance(entity, DeclareLaunchArgument):
            assert f'`{entity.name}`' in readme or f'{entity.name}:=' in readme, entity.name


def test_namespace_topic_camera_and_model(launch, connect, model):
    launched = launch('detect.launch.py', namespace='front', camera='synthetic',
                      image_topic='images', model=model, backend='onnxruntime')
    got = _detections(connect(), '/front')
    assert all(array.detections[0].results[0].hypothesis.class_id for array in got)
    assert launched.interrupt() == 0
    assert 'images over DDS: ' in launched.output and '/front/images' in launched.output
    assert 'Traceback' not in launched.output


# ---- the params file decides, unless the argument was given

@pytest.mark.parametrize('key', ['/**', '/front/detector'])
def test_params_file_decides_what_no_argument_says(launch, connect, tmp_path, key):
    params = _params_file(tmp_path, key, autostart=False, use_sim_time=True, backend='onnxruntime',
                          score_threshold=0.375)
    launch('detect.launch.py', namespace='front', params_file=params)
    peer = connect('front/detector')
    assert peer.state() == 'unconfigured'
    assert peer.get_parameter('autostart').bool_value is False
    assert peer.get_parameter('use_sim_time').bool_value is True
    assert peer.get_parameter('backend').string_value == 'onnxruntime'
    assert peer.get_parameter('score_threshold').double_value == 0.375


@pytest.mark.parametrize('key, namespace', [
    ('/**', 'front'), ('/front/detector', 'front'), ('/detector', '')])
def test_a_given_argument_replaces_what_the_params_file_says(
        launch, connect, tmp_path, model, key, namespace):
    params = _params_file(tmp_path, key, autostart=False, use_sim_time=True, backend='tensorrt',
                          model='/nowhere.onnx')
    launch('detect.launch.py', namespace=namespace, params_file=params, autostart='true',
           use_sim_time='false', backend='onnxruntime', model=model)
    peer = connect(f'{namespace}/detector'.lstrip('/'))
    _wait_for_state(peer, 'active')
    assert peer.get_parameter('use_sim_time').bool_value is False
    assert peer.get_parameter('model').string_value == str(model)


def test_copy_of_the_params_file_with_one_threshold_changed(launch, connect, share, tmp_path):
    text = (share / 'config' / 'detect.yaml').read_text()
    copy = tmp_path / 'copy.yaml'
    copy.write_text(text.replace('score_threshold: 0.25', 'score_threshold: 0.75'))
    launched = launch('detect.launch.py', params_file=copy, camera='synthetic')
    peer = connect()
    _detections(peer)
    assert peer.get_parameter('score_threshold').double_value == 0.75
    assert 'loaded yolojet_demo.onnx' in launched.output


def test_params_file_of_one_line_starts_with_the_model_it_names(launch, connect, model, tmp_path):
    params = _params_file(tmp_path, '/**', model=str(model), tracking=False)
    launch('detect.launch.py', camera='synthetic', params_file=params)
    assert all(array.detections[0].id == '' for array in _detections(connect()))


def test_demo_model_is_the_default(launch, connect):
    launched = launch('detect.launch.py', camera='synthetic')
    _detections(connect())
    assert 'loaded yolojet_demo.onnx' in launched.output


# ---- under a namespace that another launch file has pushed

@pytest.mark.parametrize('level', ['debug', 'error'])
def test_log_level_acts_under_a_pushed_namespace(launch, connect, model, level):
    launched = launch('detect.launch.py', pushed='robot', namespace='front', model=model,
                      log_level=level, camera='synthetic')
    _detections(connect(), '/robot/front')
    lines = [line for line in launched.output.splitlines() if '[robot.front.' in line]
    if level == 'error':
        assert lines == []
    else:
        assert any('[DEBUG]' in line for line in lines)


def test_params_file_and_arguments_act_under_a_pushed_namespace(launch, connect, tmp_path):
    params = _params_file(tmp_path, '/**', autostart=False, score_threshold=0.375)
    launch('detect.launch.py', pushed='robot', params_file=params, backend='onnxruntime')
    peer = connect('robot/detector')
    assert peer.state() == 'unconfigured'
    assert peer.get_parameter('score_threshold').double_value == 0.375
    assert peer.get_parameter('backend').string_value == 'onnxruntime'


def test_two_namespaces_at_once(launch, connect, model):
    for namespace in ('front', 'back'):
        launch('detect.launch.py', namespace=namespace, camera='synthetic', rate=5, model=model)
    peer = connect()
    for namespace in ('front', 'back'):
        frames = {array.header.frame_id for array in _detections(peer, f'/{namespace}')}
        assert frames == {f'{namespace}/camera'}


# ---- the camera

def test_camera_takes_frame_rate_and_size(launch, connect):
    launch('detect.launch.py', camera='synthetic', autostart='false', frame_id='lens', rate=7,
           width=320, height=240, image_topic='/cam/image_raw')
    peer = connect('camera')
    image, = _receive(peer, Image, '/cam/image_raw')[:1]
    assert (image.header.frame_id, image.width, image.height) == ('lens', 320, 240)
    assert _receive(peer, CameraInfo, '/cam/camera_info')[0].width == 320
    assert peer.get_parameter('rate').double_value == 7.0


def test_arguments_of_a_camera_that_is_not_started_are_pointed_out(launch, connect):
    launched = launch('detect.launch.py', autostart='false', rate=7, width=320)
    launched.wait_for_output('no camera node is started, and rate, width acts on nothing')
    assert connect().state() == 'unconfigured'


# ---- the rest

def test_respawn_brings_a_killed_detector_back(launch, connect, model):
    launched = launch('detect.launch.py', model=model, respawn='true')
    peer = connect()
    _wait_for_state(peer, 'active')
    number = launched.output.split('[detector_node-1]: process started with pid [')[1]
    shared_memory.kill(int(number.partition(']')[0]))
    wait_until(lambda: launched.output.count('active: waiting for images') == 2, 40,
               lambda: launched.output)
    assert launched.interrupt() == 0


def test_a_killed_detector_stays_away_without_respawn(launch, connect, model):
    launched = launch('detect.launch.py', model=model)
    _wait_for_state(connect(), 'active')
    number = launched.output.split('[detector_node-1]: process started with pid [')[1]
    shared_memory.kill(int(number.partition(']')[0]))
    launched.wait()
    assert launched.output.count('process started') == 1


@pytest.mark.skipif('rviz2' in get_packages_with_prefixes(), reason='rviz2 is installed')
def test_missing_rviz_is_a_warning(launch, connect, model):
    launched = launch('detect.launch.py', model=model, rviz='true', camera='synthetic')
    _detections(connect())
    assert 'rviz2 is not installed; going on without it' in launched.output


@pytest.mark.parametrize('name, value, reason', [
    ('rviz', 'maybe', "rviz is 'maybe'; expected true or false"),
    ('autostart', 'yes!', "autostart is 'yes!'; expected true or false"),
    ('respawn', '2', "respawn is '2'; expected true or false"),
    ('log_level', 'loud', "log_level is 'loud'; expected one of debug, info, warn, error, fatal"),
    ('rate', 'fast', "rate is 'fast'; expected a number"),
    ('width', '6.5', "width is '6.5'; expected a number"),
    ('enclave', 'yolojet', "enclave is 'yolojet'; expected a name from the root"),
    ('params_file', '/nowhere.yaml', "params_file is '/nowhere.yaml', where there is no file")])
def test_nonsense_is_refused_in_a_sentence(launch, name, value, reason):
    launched = launch('detect.launch.py', **{'camera': 'synthetic', name: value})
    assert launched.wait() == 1
    assert reason in launched.output and 'Traceback' not in launched.output
    assert 'process started' not in launched.output


def test_nodes_start_in_enclaves_of_their_own(launch, connect, model):
    launch('detect.launch.py', model=model, enclave='/robot/', camera='synthetic')
    peer = connect()
    nodes = {('detector', '/', '/robot/detector'), ('camera', '/', '/robot/camera')}
    peer.spin_until(lambda: nodes <= set(
        peer.node.get_node_names_and_namespaces_with_enclaves()), 30)


def test_interrupt_while_the_nodes_start(launch):
    launched = launch('detect.launch.py', camera='synthetic')
    launched.wait_for_output('camera_node-2]: process started')
    assert launched.interrupt() == 0
    assert 'Traceback' not in launched.output and 'has died' not in launched.output


# ---- build_engine.launch.py

def test_build_ends_with_the_exit_code_of_the_builder(launch, tmp_path):
    launched = launch('build_engine.launch.py', onnx=tmp_path / 'missing.onnx', workspace=512)
    assert launched.wait() == 2
    assert '512 MiB of workspace' in launched.output and 'no model at' in launched.output


def test_failed_build_ends_what_runs_beside_it(launch, tmp_path):
    launched = launch('build_engine.launch.py', beside='sleep 600', onnx=tmp_path / 'missing.onnx')
    number = wait_until(lambda: launched.output.partition('[sleep-1]: process started with pid [')[
        2].partition(']')[0], 20)
    assert launched.wait() == 2
    assert not Path('/proc', number).exists()


def test_a_workspace_that_is_no_number_is_refused(launch):
    launched = launch('build_engine.launch.py', onnx='m.onnx', workspace='much')
    assert launched.wait() == 1
    assert "workspace is 'much'; expected a whole number" in launched.output
