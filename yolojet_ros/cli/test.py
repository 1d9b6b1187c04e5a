"""The command `test`: run the test suite."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import List

from yolojet_ros.core.errors import UserError

DESCRIPTION = """\
Run the tests with pytest, on ROS 2 Kilted from wheels unless a ROS 2 is sourced.

With --ros the tests that start nodes or use messages run on the wheels of that
distribution, in an environment of its own. Everything else does not depend on
ROS and has been tested once that way.

With --env everything else runs on the Python, NumPy, SciPy, OpenCV and ONNX Runtime
that this system ships, without ROS and PyTorch. Its Python must be in PATH.
"""

EPILOG = """\
Arguments that are not known here go to pytest:
  ./yolojet test -k letterbox -x
  ./yolojet test test/test_core_nms.py
  ./yolojet test --ros jazzy --durations 10
  ./yolojet test --env jetpack5
"""

# What depends on the ROS 2 distribution.
ROS_TESTS = ('test_launch_*.py', 'test_nodes_*.py', 'test_packaging_*.py', 'test_ros_*.py')


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        'test', help='run the test suite', description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
        usage='yolojet test [-h] [--ros DISTRO | --env SYSTEM] [PYTEST ARGUMENTS]')
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        '--ros', choices=('kilted', 'jazzy'), metavar='DISTRO',
        help='run the tests that use ROS on the wheels of this distribution: kilted or jazzy')
    where.add_argument(
        '--env', choices=('jetpack5', 'humble', 'jazzy'), metavar='SYSTEM',
        help='run the tests that need no ROS on the libraries of this system: jetpack5 '
             '(Python 3.8), humble (3.10) or jazzy (3.12)')
    # `rest` receives the arguments that argparse does not know.
    parser.set_defaults(run=run, rest=[])


def run(arguments: argparse.Namespace) -> int:
    """Run pytest on the project's tests and return its exit code."""
    import pytest

    root = Path(__file__).resolve().parents[2]
    folder = root / 'test'
    if not folder.is_dir():
        raise UserError(f'found no tests at {folder}; run ./yolojet test in a source tree')
    targets: List[str] = []
    if not any(os.path.exists(argument.split('::')[0]) for argument in arguments.rest):
        targets = [str(folder)]
        with_ros = {path for name in ROS_TESTS for path in folder.glob(name)}
        if arguments.ros:
            targets = sorted(map(str, with_ros))
        elif arguments.env:
            targets = sorted(map(str, set(folder.glob('test_*.py')) - with_ros))
    return int(pytest.main(['--rootdir', str(root), *arguments.rest, *targets]))
