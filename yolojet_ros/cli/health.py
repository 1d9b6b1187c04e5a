"""The command `health`: is a node well? One line and an exit code, for Docker and systemd."""

from __future__ import annotations

import argparse
import re
import time

from yolojet_ros.cli.numbers import whole

_END_SECONDS = 0.15  # that leaving the graph takes

DESCRIPTION = """\
Say in one line how a node of this package is, by what it tells on /diagnostics.

A node is well if it works, or has a good reason not to: it is not active, or no image comes. A
warning is well, too, unless --strict is given.

exit codes: 0 well, 1 not well (an ERROR, no word for a while, no answer), 2 wrong usage
"""

EPILOG = """\
for example:
  HEALTHCHECK --interval=30s --timeout=15s --start-period=120s CMD yolojet health --timeout 10
  ./yolojet health --node /front/camera --strict
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        'health', help='whether a running node is well, for Docker and systemd',
        description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--node', default='/detector', metavar='NAME',
                        help='full name of the node (default: /detector)')
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.add_argument('--strict', action='store_true', help='a warning is not well')
    parser.add_argument('--timeout', type=whole(1, 60), default=2, metavar='S',
                        help='for the whole command; it listens for 1 s at least (default: 2)')
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print how the node is; return 0 if it is well, else 1."""
    from dataclasses import asdict
    import json

    from yolojet_ros.core.errors import UserError
    from yolojet_ros.core.text import shown
    from yolojet_ros.operate import health
    if not re.fullmatch(r'/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*', arguments.node, re.ASCII):
        raise UserError(f'--node is {shown(arguments.node)}; give the full name of a node, such '
                        'as /front/detector')
    node = '/' + arguments.node.lstrip('/')
    begun = time.monotonic() - health.seconds_of_process()
    heard = health.listen(node, begun + arguments.timeout - _END_SECONDS)
    verdict = health.judge(node, heard, arguments.strict)
    if arguments.json:
        print(json.dumps({
            'node': node, 'healthy': verdict.healthy, 'sentence': verdict.sentence,
            'age_s': round(heard.age, 3) if heard.statuses else None,
            'statuses': [dict(asdict(status), level=health.LEVELS[min(status.level, 3)])
                         for status in heard.statuses]}, indent=2))
    else:
        print(verdict.sentence)
    return 0 if verdict.healthy else 1
