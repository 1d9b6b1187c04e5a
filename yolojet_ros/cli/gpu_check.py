"""The command `gpu-check`: prove and measure everything that needs a GPU."""

from __future__ import annotations

import argparse

from yolojet_ros.cli.numbers import whole

DESCRIPTION = """\
Build FP32, FP16 and INT8 engines of the demo model, compare each with ONNX Runtime,
compare every kernel with its NumPy twin, look for leaks, and print how fast it all is.

Engines are kept and used again. With default settings a first run takes long, because
TensorRT times its kernels for every engine: --optimization-level 0 is the quick look.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        'gpu-check', help='prove and measure engines and kernels on this GPU',
        description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', help='FP32 ONNX file; default: the demo model')
    parser.add_argument('--quantized', metavar='ONNX',
                        help='its Q/DQ form; default: quantized here')
    parser.add_argument('--large', metavar='ONNX',
                        help='a 640x640 model to measure too, also for several cameras')
    parser.add_argument('--precisions', nargs='+', choices=('fp32', 'fp16', 'int8'), default=[],
                        help='only compare these of the model --large; --quantized is then its '
                             'Q/DQ form')
    parser.add_argument('--batches', nargs='+', type=whole(1), default=[1, 4, 16], metavar='N',
                        help='numbers of images to compare them at (1 4 16)')
    parser.add_argument('--float-input', action='store_true',
                        help='build INT8 engines as "yolojet engine build --float-input" does')
    parser.add_argument('--task', dest='tasks', metavar='ONNX', action='append', default=[],
                        help='a segment, pose or obb model: what its task adds (repeatable)')
    parser.add_argument('--engines', default='engines/gpu-check',
                        help='folder that keeps the engines (engines/gpu-check)')
    parser.add_argument('--profile', default='auto', help='build profile (auto)')
    parser.add_argument('--optimization-level', type=int, metavar='N',
                        help='0 (quick) to 5 (thorough)')
    parser.add_argument('--tactic-source', dest='tactic_sources', action='append', default=[],
                        metavar='NAME', help='use only these trt.TacticSource (repeatable)')
    parser.add_argument('--reference', metavar='NPZ',
                        help='results of "yolojet engine reference", without ONNX Runtime')
    parser.add_argument('--frames', type=whole(1), default=1000, help='frames to time (1000)')
    parser.add_argument('--leak-frames', type=whole(1), default=2000,
                        help='frames to watch the memory over (2000)')
    parser.add_argument('--images', type=whole(1), default=400, help='stills for mAP (400)')
    parser.add_argument('--calibration-images', type=whole(1), default=500,
                        help='stills to calibrate INT8 with (500)')
    parser.add_argument('--device', type=int, default=0, help='index of the GPU')
    parser.add_argument('--json', metavar='FILE', help='write the table and all details')
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check, print the table, and return 0 if no figure missed its limit."""
    from yolojet_ros.inference.demo_model import demo_model
    from yolojet_ros.engine import gpu_check
    names = gpu_check.CheckOptions.__dataclass_fields__
    values = {name: value for name, value in vars(arguments).items() if name in names}
    values['tactic_sources'] = tuple(values['tactic_sources'])
    for name in ('tasks', 'precisions', 'batches'):
        values[name] = tuple(values[name])
    values['model'] = values['model'] or str(demo_model())
    findings = gpu_check.check(
        gpu_check.CheckOptions(**values), lambda line: print(line, flush=True))
    print(findings.table())
    if arguments.json:
        gpu_check.save(findings, arguments.json)
    return 0 if findings.passed else 1
