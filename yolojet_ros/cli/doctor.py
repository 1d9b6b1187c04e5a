"""The command `doctor`: find what is wrong before the user does."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys

DESCRIPTION = """\
Look at everything that the nodes need, from Python to the cameras that run: what was
found, what it means, and the command that mends it. It changes nothing.

It needs nothing but Python. What may crash or hang is tried in a process of its own.
"""

EPILOG = """\
exit codes: 0 all well, 1 warnings, 2 failures or wrong input

  yolojet doctor --only gpu --model yolo.engine   an engine, and what it runs on
  yolojet doctor --skip images --json             for a program
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        'doctor', help='find what is wrong with this machine', description=DESCRIPTION,
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', action='store_true', help='print JSON instead of a table')
    parser.add_argument('--model', metavar='FILE', default='',
                        help='engine or ONNX file to compare with this machine')
    parser.add_argument('--params-file', metavar='YAML', default='',
                        help='parameter file of the detector: its model and QoS')
    parser.add_argument('--node', metavar='NAME', default='',
                        help='detector to look at in the running graph (all that take images)')
    parser.add_argument('--only', nargs='+', default=[], metavar='NAME',
                        help='make these checks only; names of checks or areas')
    parser.add_argument('--skip', nargs='+', default=[], metavar='NAME',
                        help='leave these out')
    parser.add_argument('--timeout', type=_seconds, metavar='S',
                        help='seconds for each check, in the place of its own limit')
    parser.add_argument('--list', action='store_true', help='list the checks and make none')
    parser.set_defaults(run=run)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f'{text} is not between 0 and 3600 s')
    return value


def run(arguments: argparse.Namespace) -> int:
    """Make the checks, print what they found, and return 0, 1 or 2."""
    from yolojet_ros.cli import image_test
    from yolojet_ros.operate.doctor import report, runner
    from yolojet_ros.operate.doctor.check import Options
    from yolojet_ros.operate.doctor.system import System
    from yolojet_ros.operate.doctor.table import chosen
    checks = chosen(arguments.only, arguments.skip)
    if arguments.list:
        for check in checks:
            print(f'{check.area:9}{check.name:17}{check.about} ({check.seconds:g} s at most)')
        return 0
    system = System()
    options = Options(arguments.model, arguments.params_file, arguments.node,
                      image_test.command())
    terminal = sys.stdout.isatty()
    table = report.Table(
        [check.name for check in checks], min(shutil.get_terminal_size((100, 24)).columns, 120),
        terminal and not os.environ.get('NO_COLOR'))
    results = []
    try:
        for result in runner.run(checks, system, options, arguments.timeout):
            results.append(result)
            if not arguments.json:
                print('\n'.join(table.lines(result)), flush=True)
    finally:
        system.close()
    record = report.as_record(results)
    print(json.dumps(record, indent=1) if arguments.json else f'\n{report.summary(results)}')
    return record['exit_code']
