"""The command line of yolojet: one subcommand a module, imported only to be run."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import List, Optional

from yolojet_ros import __version__
from yolojet_ros.cli.interrupts import Interrupts
from yolojet_ros.core.errors import RunFailed, UserError
from yolojet_ros.core.text import one_line

# Each is a module beside this one with add_parser(subparsers), which sets `run`
# to a function from the parsed arguments to an exit code. These modules import
# only the standard library at their top, so that help needs no environment.
COMMANDS = (
    'detect', 'demo', 'bench', 'profile', 'test', 'model', 'engine', 'track', 'gpu-check',
    'model-store', 'health', 'doctor')

_LONGEST = 10_000  # characters of a message, which may hold a command

DESCRIPTION = """\
YOLOv8 detection and tracking for ROS 2.

The first start prepares what is needed, in minutes: on a machine without
ROS 2 a real rclpy and Fast DDS in a virtual environment of this folder, on a
sourced ROS 2 only the Python packages that it lacks.
"""

EPILOG = """\
start here:
  ./yolojet demo                    synthetic camera -> detector -> tracks, 10 s, with a video
  ./yolojet demo --source 0         the same with your camera
  ./yolojet detect IMAGE --model FILE   a model of your own on an image, without ROS
  ./yolojet test                    every test

as a ROS 2 package:
  colcon build --packages-select yolojet_ros
  ros2 launch yolojet_ros detect.launch.py image_topic:=/camera/image_raw

exit codes: 0 success, 1 the run did not reach its aim, 2 wrong input, 130 interrupted
(143 by SIGTERM, 129 by SIGHUP)
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog='yolojet', description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--version', action='version', version=f'yolojet_ros {__version__}')
    subparsers = parser.add_subparsers(
        title='commands', dest='command', metavar='COMMAND', required=True)
    for command in COMMANDS:
        module = importlib.import_module('yolojet_ros.cli.' + command.replace('-', '_'))
        module.add_parser(subparsers)
    return parser


def main(args: Optional[List[str]] = None) -> int:
    """
    Run one command and return its exit code.

    :param args: the arguments; None takes those of the process.
    """
    with Interrupts() as interrupts:
        try:
            code = _run(args)
        except (Exception, KeyboardInterrupt) as error:
            # Libraries in C make errors of their own of an interrupt.
            code = _failure(error) if not interrupts.number else 0
        if interrupts.number:
            _give_up_output()
            return 128 + interrupts.number
        return code


def _run(args: Optional[List[str]]) -> int:
    # A file name need not be UTF-8, and is printed all the same.
    if hasattr(sys.stdout, 'reconfigure'):
        sys.stdout.reconfigure(errors='backslashreplace')
    parser = make_parser()
    arguments, rest = parser.parse_known_args(args)
    if 'rest' in arguments:
        arguments.rest = rest
    elif rest:
        parser.error(f'unrecognized arguments: {" ".join(rest)}')
    code = arguments.run(arguments)
    sys.stdout.flush()
    return code


def _failure(error: BaseException) -> int:
    """Say what went wrong and return the exit code; what nobody expected is raised again."""
    if isinstance(error, UserError):
        print(f'yolojet: {one_line(str(error), _LONGEST)}', file=sys.stderr)
        return 1 if isinstance(error, RunFailed) else 2
    if isinstance(error, OSError):
        _give_up_output()
        if isinstance(error, BrokenPipeError):  # whoever read the output has enough
            return 1
        print(f'yolojet: {_sentence(error)}', file=sys.stderr)
        return 2
    if isinstance(error, KeyboardInterrupt):
        return 130
    raise error


def _give_up_output() -> None:
    """Let the interpreter not try again, at its end, to print what cannot be printed."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _sentence(error: OSError) -> str:
    """Say what the system refused; what a command knows better it says itself."""
    what = one_line(error.strerror or str(error) or type(error).__name__, 300)
    where = f' ({one_line(str(error.filename), 300)})' if error.filename is not None else ''
    return f'the system says: {what}{where}; check the path, its permissions and the space left'
