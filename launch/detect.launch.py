"""
Detect and track objects on the images of a camera, or of several with one model.

    ros2 launch yolojet_ros detect.launch.py image_topic:=/camera/image_raw
    ros2 launch yolojet_ros detect.launch.py camera:=synthetic rviz:=true
    ros2 launch yolojet_ros detect.launch.py namespace:=front camera:=/dev/video0
    ros2 launch yolojet_ros detect.launch.py cameras:=front,rear
"""

import os
from pathlib import Path
from typing import List

from ament_index_python.packages import get_package_prefix, PackageNotFoundError
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from yolojet_ros.ros import middleware
from yolojet_ros.ros.topics import of_camera

# This file is installed to share/yolojet_ros/launch, and lies beside config in the sources.
SHARE = Path(__file__).resolve().parent.parent
PARAMS_FILE = str(SHARE / 'config' / 'detect.yaml')
RVIZ_FILE = str(SHARE / 'config' / 'detect.rviz')

# Name, default, description.
ARGUMENTS = (
    ('namespace', '', 'Namespace of all nodes and topics; one for each camera.'),
    ('params_file', PARAMS_FILE, 'Parameters of the detector; see config/detect.yaml. An argument '
                                 'below that is given replaces what the file says.'),
    ('model', '', '.onnx file or TensorRT .engine file. Empty takes the one that params_file '
                  'names, or else the demo model.'),
    ('backend', '', 'auto, tensorrt or onnxruntime. Empty takes that of params_file.'),
    ('image_topic', 'image_raw', 'Images to detect on; its /compressed is found beside it.'),
    ('cameras', '', 'Names of several cameras, such as front,rear, that share the detector and its '
                    'model: front/image_raw, front/detections ... Empty takes those of '
                    'params_file.'),
    ('use_sim_time', '', 'Follow /clock: true for bags played with --clock and simulators. Empty '
                         'takes what params_file says.'),
    ('log_level', 'info', 'debug, info, warn, error or fatal, of the nodes of this package.'),
    ('autostart', '', 'Configure and activate the detector; false leaves that to a lifecycle '
                      'manager. Empty takes what params_file says, or else true.'),
    ('respawn', 'false', 'Start a node of this package again, 2 s after it has ended.'),
    ('transport_profile', '', 'How images come over Fast DDS: auto, udp, shared_memory or '
                              'untouched. Empty takes YOLOJET_TRANSPORT_PROFILE, or else auto.'),
    ('enclave', '', 'Where the SROS 2 enclaves of the nodes are, such as /yolojet: the detector '
                    'starts in /yolojet/detector, the camera node in /yolojet/camera. Empty '
                    'starts them in /, which without security changes nothing.'),
    ('camera', '', 'Start the camera node with this source: synthetic, a video, an image or a '
                   'folder of images, a camera index, /dev/videoN, or the URL of a stream. '
                   'Empty starts none. With cameras:= one for each.'),
    ('frame_id', '', 'Frame of the camera node\'s images. Empty takes camera, after the '
                     'namespace: front/camera.'),
    ('rate', '', 'Images per second of the camera node. Empty takes that of its source.'),
    ('width', '', 'Width of the camera node\'s images in pixels. Empty takes that of its source.'),
    ('height', '', 'Height of the camera node\'s images in pixels. Empty takes that of its '
                   'source.'),
    ('rviz', 'false', 'Start RViz, if it is installed, with the camera image and the image on '
                      'which is drawn what was seen.'),
)
LOG_LEVELS = ('debug', 'info', 'warn', 'error', 'fatal')
# Arguments that are parameters. One that is not given is not passed, so that others decide.
DETECTOR = {'model': str, 'backend': str, 'cameras': list, 'use_sim_time': bool,
            'autostart': bool}
CAMERA = {'frame_id': str, 'rate': float, 'width': int, 'height': int}
RESPAWN_SECONDS = 2.0


def generate_launch_description():
    """Return the arguments and, once they are known, the nodes."""
    arguments = [DeclareLaunchArgument(name, default_value=default, description=description)
                 for name, default, description in ARGUMENTS]
    return LaunchDescription([*arguments, OpaqueFunction(function=_start)])


def _start(context):
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    _check(value)
    # Absolute, with what PushRosNamespace has pushed: the logger's name is made of it, and launch
    # ranks the parameters of a full name above every key of params_file.
    pushed = context.launch_configurations.get('ros_namespace')
    value['namespace'] = make_namespace_absolute(
        prefix_namespace(pushed, value['namespace'].rstrip('/')))
    # Set for this process, and so for those that it starts.
    if value['transport_profile']:
        os.environ[middleware.PROFILE_VARIABLE] = value['transport_profile']
    actions = [LogInfo(msg=f'images over DDS: {middleware.prepare_transport()}')]
    actions.append(_detector(value))
    if value['camera']:
        actions += [_camera(value, name) for name in _names(value) or ('',)]
    if _is_true('rviz', value['rviz']):
        actions += _rviz(value)
    return actions


def _check(value):
    if not Path(value['params_file']).is_file():
        raise ValueError(f'params_file is {value["params_file"]!r}, where there is no file')
    if value['log_level'].lower() not in LOG_LEVELS:
        raise ValueError(
            f'log_level is {value["log_level"]!r}; expected one of {", ".join(LOG_LEVELS)}')
    if value['cameras'] and value['image_topic'] != 'image_raw':
        raise ValueError(
            f'image_topic is {value["image_topic"]!r} and cameras is {value["cameras"]!r}; images '
            'of cameras come by NAME/image_raw, so give one of the two')
    if value['enclave'] and not value['enclave'].startswith('/'):
        raise ValueError(
            f'enclave is {value["enclave"]!r}; expected a name from the root, such as /yolojet')
    idle = [name for name in CAMERA if value[name] and not value['camera']]
    if idle:
        get_logger('launch.user').warning(
            f'without camera:= no camera node is started, and {", ".join(idle)} acts on nothing')


def _detector(value):
    # As a rule on the command line it comes before params_file, which replaces it.
    autostart = ['-p', 'autostart:=true']
    return _node(value, 'detector_node', 'detector',
                 [value['params_file'], _given(value, DETECTOR)], autostart)


def _names(value):
    return [name.strip() for name in value['cameras'].split(',') if name.strip()]


def _camera(value, name):
    if name:
        value = dict(value, namespace=make_namespace_absolute(
            prefix_namespace(value['namespace'], name)))
    source = ParameterValue(value['camera'], value_type=str)
    kinds = dict(CAMERA, use_sim_time=bool)
    return _node(value, 'camera_node', 'camera', [{'source': source, **_given(value, kinds)}])


def _given(value, kinds):
    """Return the parameters of those arguments that were given, each of its own type."""
    return {name: _parameter(name, value[name], kind)
            for name, kind in kinds.items() if value[name]}


def _parameter(name, text, kind):
    if kind is bool:
        return _is_true(name, text)
    if kind is list:
        return ParameterValue(_names({name: text}), value_type=List[str])
    try:
        # Without its type a model of the name 8 would become a number.
        return ParameterValue(kind(text), value_type=kind)
    except ValueError:
        raise ValueError(f'{name} is {text!r}; expected a number') from None


def _node(value, executable, name, parameters, ros_arguments=()):
    logger = '.'.join(filter(None, [*value['namespace'].split('/'), name]))
    enclave = value['enclave']
    if enclave:
        ros_arguments = [*ros_arguments, '--enclave', f'{enclave.rstrip("/")}/{name}']
    return Node(
        package='yolojet_ros', executable=executable, name=name, namespace=value['namespace'],
        parameters=list(filter(None, parameters)), output='screen',
        remappings=[('image_raw', value['image_topic'])],
        respawn=_is_true('respawn', value['respawn']), respawn_delay=RESPAWN_SECONDS,
        ros_arguments=['--log-level', f'{logger}:={value["log_level"]}', *ros_arguments])


def _rviz(value):
    try:
        get_package_prefix('rviz2')
    except PackageNotFoundError:
        get_logger('launch.user').warning(
            'rviz:=true, but rviz2 is not installed; going on without it')
        return []
    first = (_names(value) or [''])[0]
    # The topics in the file are those of no namespace.
    return [Node(
        package='rviz2', executable='rviz2', namespace=value['namespace'], output='screen',
        arguments=['-d', RVIZ_FILE],
        remappings=[('/image_raw', of_camera(first, value['image_topic'])),
                    ('/debug_image', of_camera(first, 'debug_image'))])]


def _is_true(name, text):
    if text.lower() not in ('true', 'false', '1', '0'):
        raise ValueError(f'{name} is {text!r}; expected true or false')
    return text.lower() in ('true', '1')
