"""
Build a TensorRT engine from an ONNX file, on the machine that will run it.

    ros2 launch yolojet_ros build_engine.launch.py onnx:=/path/to/yolov8n.onnx
    ros2 launch yolojet_ros build_engine.launch.py onnx:=m.onnx precision:=int8 calib:=/images

It ends with the builder's exit code: 0 built, 2 wrong input, 130 interrupted, 1 anything else.
"""

import asyncio
import os
import sys

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

# Name, type, default (None: it must be given), description.
ARGUMENTS = (
    ('onnx', str, None, '.onnx file to build from.'),
    ('profile', str, 'auto', 'Kind of machine: auto, or a file of config/profiles such as '
                             'jetson_orin_nano.'),
    ('precision', str, '', 'fp32, fp16, int8 or best. Empty takes that of the profile.'),
    ('workspace', int, '', 'Limit of the builder\'s scratch memory in MiB. Empty takes that of '
                           'the profile.'),
    ('out', str, '', 'Engine file to write. Empty writes beside the .onnx file.'),
    ('calib', str, '', 'Images for INT8: scene, a folder of images or a bag.'),
)

OTHERS_SECONDS = 15  # launch kills what has not ended 10 s after its SIGINT


def generate_launch_description():
    """Return the arguments and, once they are known, the builder."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, _, default, description in ARGUMENTS]
    return LaunchDescription([*arguments, OpaqueFunction(function=_start)])


def _start(context):
    parameters = {}
    for name, kind, _, _ in ARGUMENTS:
        value = LaunchConfiguration(name).perform(context)
        if value:
            parameters[name] = _parameter(name, value, kind)
    return [Node(
        package='yolojet_ros', executable='build_engine', name='engine_builder', output='screen',
        emulate_tty=True, parameters=[parameters], on_exit=_end)]


def _parameter(name, text, kind):
    try:
        # Without its type a file name such as 8 would become a number.
        return ParameterValue(kind(text), value_type=kind)
    except ValueError:
        raise ValueError(f'{name} is {text!r}; expected a whole number') from None


def _end(event, context):
    if event.returncode:
        context.add_completion_future(
            context.asyncio_loop.create_task(_exit_with(event.returncode)))
    return [Shutdown(reason='the build has ended')]


async def _exit_with(code):
    """Exit with a process's code, once the others that launch is ending have ended."""
    for _ in range(OTHERS_SECONDS * 10):
        if not _has_children():
            break
        await asyncio.sleep(0.1)
    # LaunchService.run knows 0 and 1 only.
    sys.exit(code if code > 0 else 128 - code)


def _has_children():
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
