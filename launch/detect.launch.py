"""
Detect and track objects on the images of a camera.

    ros2 launch yolojet_ros detect.launch.py image_topic:=/camera/image_raw
    ros2 launch yolojet_ros detect.launch.py camera:=synthetic rviz:=true
    ros2 launch yolojet_ros detect.launch.py namespace:=front camera:=/dev/video0
"""

import os
from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from yolojet_ros.ros import middleware

# This file is installed to share/yolojet_ros/launch, and lies beside config in the sources.
SHARE = Path(__file__).resolve().parent.parent
PARAMS_FILE = str(SHARE / 'config' / 'detect.yaml')
RVIZ_FILE = str(SHARE / 'config' / 'detect.rviz')

ARGUMENTS = (
    ('namespace', '', 'Namespace of all nodes and topics; one for each camera.'),
    ('params_file', PARAMS_FILE, 'Parameters of the detector; see config/detect.yaml.'),
    ('model', '', 'YOLOv8 .onnx file or TensorRT .engine file. Empty takes the one that '
                  'params_file names, or the demo model with the params_file of the package.'),
    ('backend', '', 'auto, tensorrt or onnxruntime. Empty takes that of params_file.'),
    ('image_topic', 'image_raw', 'Images to detect on; its /compressed is found beside it.'),
    ('use_sim_time', 'false', 'Follow /clock: true for bags played with --clock and simulators.'),
    ('log_level', 'info', 'debug, info, warn, error or fatal, of the nodes of this package.'),
    ('autostart', 'true', 'Configure and activate the detector; false leaves that to a '
                          'lifecycle manager.'),
    ('transport_profile', '', 'How images come over Fast DDS: auto, udp, shared_memory or '
                              'untouched. Empty takes YOLOJET_TRANSPORT_PROFILE, or else auto.'),
    ('camera', '', 'Start the camera node with this source: synthetic, a video, an image or a '
                   'folder of images, a camera index, /dev/videoN, or the URL of a stream. '
                   'Empty starts none.'),
    ('rviz', 'false', 'Start RViz with the camera image and the image with boxes.'),
)


def generate_launch_description():
    """Return the arguments and, once they are known, the nodes."""
    arguments = [DeclareLaunchArgument(name, default_value=default, description=description)
                 for name, default, description in ARGUMENTS]
    return LaunchDescription([*arguments, OpaqueFunction(function=_start)])


def _start(context):
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    # Set for this process, and so for those that it starts.
    if value['transport_profile']:
        os.environ[middleware.PROFILE_VARIABLE] = value['transport_profile']
    actions = [LogInfo(msg=f'images over DDS: {middleware.prepare_transport()}')]
    actions.append(_detector(value))
    if value['camera']:
        actions.append(_camera(value))
    if _is_true(value, 'rviz'):
        actions.append(_rviz(value))
    return actions


def _detector(value):
    overrides = {'use_sim_time': _is_true(value, 'use_sim_time'),
                 'autostart': _is_true(value, 'autostart')}
    model = value['model']
    if not model and value['params_file'] == PARAMS_FILE:
        model = next(map(str, sorted((SHARE / 'engines' / 'demo').glob('*.onnx'))), '')
    if model:
        overrides['model'] = model
    if value['backend']:
        overrides['backend'] = value['backend']
    return _node(value, 'detector_node', 'detector', [value['params_file'], overrides])


def _camera(value):
    overrides = {'source': value['camera'], 'use_sim_time': _is_true(value, 'use_sim_time')}
    return _node(value, 'camera_node', 'camera', [overrides])


def _node(value, executable, name, parameters):
    topic = value['image_topic']
    return Node(
        package='yolojet_ros', executable=executable, name=name, namespace=value['namespace'],
        parameters=parameters, output='screen',
        remappings=[('image_raw', topic), ('image_raw/compressed', topic + '/compressed')],
        ros_arguments=['--log-level', f'{_logger(value, name)}:={value["log_level"]}'])


def _rviz(value):
    # The topics in the file are those of no namespace.
    return Node(
        package='rviz2', executable='rviz2', namespace=value['namespace'], output='screen',
        arguments=['-d', RVIZ_FILE],
        remappings=[('/image_raw', value['image_topic']), ('/debug_image', 'debug_image')])


def _logger(value, name):
    """Return the logger's name of a node: its namespace and name, joined by dots."""
    return '.'.join(filter(None, [*value['namespace'].split('/'), name]))


def _is_true(value, name):
    text = value[name].lower()
    if text not in ('true', 'false', '1', '0'):
        raise ValueError(f'{name} is {value[name]!r}; expected true or false')
    return text in ('true', '1')
