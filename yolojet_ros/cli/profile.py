"""The command `profile`: one report of how a model runs on this machine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
import sys
import tempfile
from typing import Any, Dict

from yolojet_ros.cli.numbers import image_size, whole
from yolojet_ros.core.errors import UserError
from yolojet_ros.inference.demo_model import DEMO_MODELS, model_or_demo

_MOST_SECONDS = 3600
_MOST_RATE = 10000
_BACKENDS = ('onnxruntime', 'tensorrt', 'torch')

DESCRIPTION = """\
Run a model on this machine and report how: each stage, throughput, the real node over
DDS with the share of transport, load, memory, power, heat and clocks all along, joules
an image, every layer, backends side by side, and what a control period has left.

What this machine lacks (a GPU, TensorRT, ROS 2, sensors) is left out, and named.
"""

EPILOG = """\
examples:
  yolojet profile                                  the demo model, 10 s a part
  yolojet profile --model X.engine --out report    also profile.json and profile.html
  yolojet profile --backends onnxruntime,torch --control-rate 50
  yolojet profile --compare A.json B.json          what B changes
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        'profile', help='report how a model runs on this machine', description=DESCRIPTION,
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = parser.add_mutually_exclusive_group()
    models.add_argument('--model', type=Path, metavar='FILE',
                        help='an .onnx file or an engine (default: the demo model)')
    models.add_argument('--task', choices=tuple(DEMO_MODELS), default='detect',
                        help='which of the demo models (default: detect)')
    parser.add_argument('--backend', choices=('auto', 'tensorrt', 'onnxruntime'), default='auto',
                        help='what runs the network (default: auto)')
    parser.add_argument('--device', type=whole(0, 63), default=0, help='index of the GPU (0)')
    parser.add_argument('--seconds', type=float, default=10.0, metavar='S',
                        help='length of each part that is measured (default: 10)')
    parser.add_argument('--size', type=image_size, default=(1280, 720), metavar='WxH',
                        help='size of the images (default: 1280x720)')
    parser.add_argument('--rate', type=whole(1, _MOST_RATE), default=30, metavar='HZ',
                        help='images a second for the node (default: 30)')
    parser.add_argument('--control-rate', type=whole(1, _MOST_RATE), metavar='HZ', help=(
        'say what part of the period of a control loop of this rate a result takes'))
    parser.add_argument('--backends', type=_backends, default=(), metavar='NAME,NAME', help=(
        'run these side by side on the same images and compare what they see: '
        + ', '.join(_BACKENDS)))
    parser.add_argument('--no-node', action='store_true', help='leave out the node over DDS')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the report as JSON')
    parser.add_argument('--out', type=Path, metavar='FOLDER',
                        help='write profile.json and profile.html, one file with its charts')
    parser.add_argument('--compare', type=Path, nargs=2, metavar=('A.json', 'B.json'),
                        help='measure nothing; print what B is as a multiple of A')
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, report and return the exit code: 1 if the node was to run and did not."""
    from yolojet_ros.operate.report import comparison, text
    if arguments.compare:
        print(comparison.table(*map(comparison.load, arguments.compare)))
        return 0
    if not 0 < arguments.seconds <= _MOST_SECONDS:
        raise UserError(f'--seconds is {arguments.seconds:g}; it must be above 0, at most '
                        f'{_MOST_SECONDS}')
    from yolojet_ros.cli.profile_run import measure
    model = model_or_demo(arguments.model, arguments.task)
    targets = _targets(arguments, model)
    report = measure(model, arguments, lambda line: print(line, file=sys.stderr, flush=True))
    print(text.table(report))
    _write(report, targets)
    return 1 if report['failed'] else 0


def _backends(words: str) -> tuple:
    """Return the names of NAME,NAME for argparse."""
    names = tuple(words.split(','))
    unknown = [name for name in names if name not in _BACKENDS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f'"{unknown[0][:40]}" is none of {", ".join(_BACKENDS)}')
    return names


def _targets(arguments: argparse.Namespace, model: Path) -> Dict[str, Path]:
    """Return what is to be written where; refuse before minutes are spent what cannot be."""
    from yolojet_ros.core.files import refuse_same
    targets = {}
    if arguments.out:
        targets = {'json': arguments.out / 'profile.json', 'html': arguments.out / 'profile.html'}
    if arguments.json:
        targets['json file'] = arguments.json
    for path in targets.values():
        refuse_same(model, path)
        if path.exists() and not path.is_file():
            raise UserError(f'{path} is there and is no file; name another one')
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path.parent).close()
        except OSError as error:
            raise UserError(f'cannot write {path}: {error.strerror}; choose a folder that can be '
                            'written') from error
    return targets


def _write(report: Dict[str, Any], targets: Dict[str, Path]) -> None:
    from yolojet_ros.core.files import atomic_path
    for kind, path in targets.items():
        if kind == 'html':
            from yolojet_ros.operate.report import page
            content = page.page(report)
        else:
            content = json.dumps(report, indent=1) + '\n'
        with atomic_path(path) as temporary:
            temporary.write_text(content, encoding='utf-8')
        print(f'see {path}')
