"""The command `demo`: camera, detector and monitor as real nodes, and what came out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Dict

from yolojet_ros.core.errors import UserError
from yolojet_ros.inference.demo_model import demo_model, DEMO_MODELS

_SYNTHETIC = {'width': 1280, 'height': 720, 'rate': 30.0}

DESCRIPTION = """\
Run the whole chain on this machine: a camera node, the detector node and a monitor
node, as processes of their own that talk over DDS, in a namespace of their own.

Leaves summary.json, annotated.png, annotated.mp4 and the nodes' logs in the folder
given by --out. The exit code is 0 if detections with track ids were received.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        'demo', help='camera -> detector -> tracks with one command', description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=10.0, metavar='S',
                        help='how long to run (default: 10)')
    parser.add_argument('--out', type=Path, default=Path('demo_output'), metavar='DIR',
                        help='folder for the results (default: demo_output)')
    parser.add_argument('--backend', choices=('auto', 'tensorrt', 'onnxruntime'), default='auto',
                        help='what runs the network (default: auto)')
    parser.add_argument('--source', default='synthetic',
                        help='synthetic (default), a video file, a folder of images, or a '
                        'camera index')
    models = parser.add_mutually_exclusive_group()
    models.add_argument('--model', type=Path, metavar='FILE',
                        help='an .onnx or .engine file (default: the demo model)')
    models.add_argument('--task', choices=tuple(DEMO_MODELS), default='detect',
                        help='which of the demo models (default: detect)')
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and return the exit code."""
    from yolojet_ros.cli.chain import RESULTS, run_chain
    from yolojet_ros.core.files import held_folder, real_path, refuse_same
    model = real_path(arguments.model or demo_model(arguments.task))
    out = real_path(arguments.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'cannot write to {out}: {error.strerror}; choose another --out') from None
    source = arguments.source
    if source != 'synthetic' and not source.isdigit() and '://' not in source:
        source = str(real_path(source))
        for result in (out, *(out / name for name in RESULTS)):
            refuse_same(Path(source), result)
    print(f'{model.name} on {arguments.source}, {arguments.seconds:g} s, results in {out}')
    with held_folder(out):
        summary = run_chain(
            out, 'demo', arguments.seconds,
            detector={'model': model, 'backend': arguments.backend},
            camera={'source': source, **(_SYNTHETIC if source == 'synthetic' else {})})
    return _report(out, summary)


def _report(out: Path, summary: Dict[str, Any]) -> int:
    frames, latency = summary['frames'], summary['latency_ms']
    dropped = ', '.join(f'{count} {cause}' for cause, count in frames['dropped'].items())
    print(f"""\
frames      {frames['published']} published, {frames['received']} received, \
{frames['lost_in_transport']} lost in transport, {frames['processed']} processed, \
dropped: {dropped or 'none'}
detections  {summary['detections']}, {summary['distinct_ids']} distinct ids
latency     {latency['p50']} ms p50, {latency['p99']} ms p99, image stamp to result
stages, ms  {', '.join(f'{key} {value}' for key, value in summary['stages_ms_p50'].items())}
ran on      {summary['backend']}, {summary['model']} {summary['input_size']}
see         {out / 'annotated.png'}, {out / 'annotated.mp4'}, {out / 'summary.json'}""")
    if not (summary['detections'] and summary['distinct_ids']):
        print('no detections with ids were received')
        return 1
    return 0
