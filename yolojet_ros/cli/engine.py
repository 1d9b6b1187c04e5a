"""The command `engine`: build, verify and inspect TensorRT engines."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
import sys
from typing import TYPE_CHECKING

from yolojet_ros.cli.numbers import whole
from yolojet_ros.core.files import refuse_same

if TYPE_CHECKING:
    from yolojet_ros.engine.plan import BuildPlan

DESCRIPTION = """\
Build a TensorRT engine from ONNX on the machine that will run it, and look into it.

Building takes minutes. Afterwards the engine is run beside ONNX Runtime; one that
sees something else is not installed. A .json beside it says where it comes from.
"""

EPILOG = """\
examples:
  yolojet engine build --onnx model.onnx                          for this device
  yolojet engine build --onnx model.onnx --profile jetson_nano --dry-run --json
  yolojet engine build --onnx model_int8.onnx                     INT8, from Q/DQ
  yolojet engine build --onnx model.onnx --precision int8 --calib images/
  yolojet engine inspect model.engine
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        'engine', help='build, verify and inspect TensorRT engines', description=DESCRIPTION,
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(title='commands', dest='action', metavar='COMMAND',
                                     required=True)
    _add_build(commands)
    _add_inspect(commands)
    _add_profile(commands)
    _add_verify(commands)
    _add_reference(commands)
    _add_report(commands)


def _add_build(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('build', help='build an engine from ONNX')
    parser.add_argument('--onnx', required=True, help='the model')
    parser.add_argument('--profile', default='auto', help=(
        'device to build for: a name of config/profiles, the path of a .yaml file, or auto '
        '(this device; the default)'))
    parser.add_argument('--out', help='the engine; default: beside the model')
    parser.add_argument('--precision', choices=('fp32', 'fp16', 'int8', 'best'), help=(
        "default: the profile's; best is INT8 where it can be had, else FP16"))
    parser.add_argument('--workspace', dest='workspace_mib', type=int, metavar='MIB',
                        help="scratch memory of the builder; default: the profile's")
    parser.add_argument('--batch', type=int, help=(
        'most images in one run; a model that leaves the batch open takes fewer, too; default 1'))
    parser.add_argument('--calib', dest='calibration', metavar='SOURCE', help=(
        'images for INT8 without Q/DQ: a folder, a bag, or scene'))
    parser.add_argument('--num-calib', type=whole(1), default=500, help='how many of them (500)')
    parser.add_argument('--calibrator', choices=('entropy', 'minmax'), default='entropy',
                        help='how TensorRT finds ranges in them (entropy)')
    parser.add_argument('--timing-cache', metavar='FILE',
                        help='keeps kernel timings, so that the next build is quicker')
    parser.add_argument('--dla', type=int, metavar='N', help='use this DLA core')
    parser.add_argument('--optimization-level', type=int, metavar='N',
                        help='0 (quick) to 5 (thorough), from TensorRT 8.6 on')
    parser.add_argument('--tactic-source', dest='tactic_sources', action='append', default=[],
                        metavar='NAME', help='use only these trt.TacticSource (repeatable)')
    parser.add_argument('--typed', action='store_true',
                        help="build in the model's own types (always so from TensorRT 11 on)")
    parser.add_argument('--float-input', action='store_true',
                        help='let the engine of a Q/DQ model quantize the image, not the letterbox')
    parser.add_argument('--strict', action='store_true',
                        help='forbid TensorRT to choose another precision for a layer')
    parser.add_argument('--nms', choices=('none', 'plugin', 'layer'), default='none',
                        help='let the engine end in EfficientNMS_TRT or in the NMS layer')
    parser.add_argument('--nms-score', type=float, default=0.05, help='its least score (0.05)')
    parser.add_argument('--nms-iou', type=float, default=0.7, help='its IoU threshold (0.7)')
    _add_plugin(parser)
    parser.add_argument('--verify-images', default='scene', metavar='SOURCE',
                        help='images to verify on: a folder, a bag, or scene (the default)')
    parser.add_argument('--reference', metavar='NPZ', help=(
        'results of "yolojet engine reference", where ONNX Runtime is not installed'))
    parser.add_argument('--device', type=int, default=0, help='index of the GPU')
    parser.add_argument('--dry-run', action='store_true',
                        help='print the plan; needs neither TensorRT nor a GPU')
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.set_defaults(run=_build)


def _add_inspect(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'inspect', help='layers, precision of each, formats, memory')
    _add_engine(parser)
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.set_defaults(run=_inspect)


def _add_profile(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('profile', help='time of every layer')
    _add_engine(parser)
    parser.add_argument('--runs', type=whole(1), default=50, help='runs to average (50)')
    parser.add_argument('--top', type=int, default=30, help='layers to print (30; 0 for all)')
    parser.add_argument('--json', metavar='FILE', help='write all times')
    parser.add_argument('--chart', metavar='PNG', help='draw the slowest layers')
    parser.set_defaults(run=_profile)


def _add_verify(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('verify', help='compare an engine with its model')
    _add_engine(parser)
    parser.add_argument('--onnx', help='the model; default: the one it was built from')
    parser.add_argument('--images', default='scene', help='a folder, a bag, or scene')
    parser.add_argument('--count', type=whole(1), default=8, help='how many images (8)')
    parser.add_argument('--reference', metavar='NPZ',
                        help='results of "yolojet engine reference"')
    parser.set_defaults(run=_verify)


def _add_reference(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'reference', help='store what ONNX Runtime makes of images, to verify elsewhere')
    parser.add_argument('--onnx', required=True, help='the model')
    parser.add_argument('--out', required=True, help='.npz file to write')
    parser.add_argument('--images', default='scene', help='a folder, a bag, or scene')
    parser.add_argument('--count', type=whole(1), default=8, help='how many images (8)')
    parser.set_defaults(run=_reference)


def _add_report(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'export-report', help='write all that is known of an engine as Markdown')
    _add_engine(parser)
    parser.add_argument('--out', required=True, help='.md file to write; a chart goes beside it')
    parser.set_defaults(run=_report)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('engine', help='the engine')
    _add_plugin(parser)
    parser.add_argument('--device', type=int, default=0, help='index of the GPU')


def _add_plugin(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--plugin', dest='plugins', action='append', default=[], metavar='SO',
                        help='library of your own TensorRT plugins, which is run (repeatable)')


def _build(arguments: argparse.Namespace) -> int:
    from yolojet_ros.engine.plan import check_files, Options, resolve
    names = Options.__dataclass_fields__
    values = {name: value for name, value in vars(arguments).items() if name in names}
    for name in ('tactic_sources', 'plugins'):
        values[name] = tuple(values[name])
    options = Options(**values)
    check_files(options)
    plan = resolve(options)
    if arguments.dry_run:
        _print_plan(_for_model(plan).as_dict(), arguments.json)
        return 0
    from yolojet_ros.engine.workflow import build_engine
    card = build_engine(plan, lambda line: print(line, file=sys.stderr, flush=True), _warn)
    if arguments.json:
        from dataclasses import asdict
        print(json.dumps(asdict(card), indent=1))
    else:
        from yolojet_ros.engine.report import headline
        print(headline(plan.out, card))
    return 0


def _for_model(plan: BuildPlan) -> BuildPlan:
    """Return the plan as a build makes it, once it has looked into the model."""
    try:
        import onnx  # noqa: F401
    except ImportError:
        _warn('onnx is not installed, so this is the plan for a model without Q/DQ, of any batch')
        return plan
    from yolojet_ros.engine import builder, model_facts
    from yolojet_ros.engine.plan import for_model
    facts = model_facts.read(plan.options.onnx)
    result = for_model(plan, facts)
    builder.opened(result, facts, _warn)
    return result


def _print_plan(plan: dict, as_json: bool) -> None:
    if as_json:
        print(json.dumps(plan, indent=1))
        return
    del plan['options']
    for name, value in plan.items():
        text = ', '.join(value) if isinstance(value, list) else value
        print(f'{name.replace("_", " "):20} {"-" if text in (None, "") else text}')


def _opened(arguments: argparse.Namespace):
    from yolojet_ros.engine import inspection
    return inspection.opened(arguments.engine, arguments.device, arguments.plugins)


def _inspect(arguments: argparse.Namespace) -> int:
    from yolojet_ros.engine import layers
    with _opened(arguments) as engine:
        found = layers.inspect(engine.network)
        memory = engine.network.device_memory
        if arguments.json:
            print(json.dumps({
                'layers': layers.as_dicts(found), 'precisions': layers.summary(found),
                'device_memory_bytes': memory}, indent=1))
            return 0
        print(layers.table(found))
        counts = ', '.join(f'{count} {kind}' for kind, count in layers.summary(found).items())
        print(f'{len(found)} layers ({counts}), {memory / 2**20:.1f} MiB of scratch memory')
    return 0


def _profile(arguments: argparse.Namespace) -> int:
    for written in filter(None, (arguments.json, arguments.chart)):
        refuse_same(Path(arguments.engine), Path(written))
    from yolojet_ros.engine import inspection, layers
    with _opened(arguments) as engine:
        times = layers.layer_times(engine.session, arguments.runs)
    print(layers.times_table(times, arguments.top))
    if arguments.json:
        from yolojet_ros.core.files import atomic_path
        with atomic_path(arguments.json) as temporary:
            temporary.write_text(json.dumps(times, indent=1) + '\n', encoding='utf-8')
    if arguments.chart:
        from yolojet_ros.core.compressed_images import write_image
        write_image(
            arguments.chart, layers.times_chart(times, Path(arguments.engine).name))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from yolojet_ros.engine import inspection
    with _opened(arguments) as engine:
        verdict = inspection.verify_engine(
            engine, arguments.onnx, arguments.images, arguments.count, arguments.reference)
    print(f'{Path(arguments.engine).name} {verdict.sentence()}')
    return 0 if verdict.passed else 1


def _reference(arguments: argparse.Namespace) -> int:
    refuse_same(Path(arguments.onnx), Path(arguments.out))
    from yolojet_ros.engine import model_facts, verify
    facts = model_facts.read(arguments.onnx)
    verify.reference_for(arguments.onnx, facts.sha256, facts.card, arguments.images, None,
                         arguments.count).save(arguments.out)
    print(f'{arguments.out} holds what ONNX Runtime makes of {arguments.count} images')
    return 0


def _report(arguments: argparse.Namespace) -> int:
    refuse_same(Path(arguments.engine), Path(arguments.out))
    from yolojet_ros.engine import inspection, layers, report
    with _opened(arguments) as engine:
        found = layers.inspect(engine.network)
        times = layers.layer_times(engine.session)
        report.write(arguments.out, arguments.engine, engine, found, times)
    print(f'{arguments.out} written')
    return 0


def _warn(text: str) -> None:
    print(f'yolojet: warning: {text}', file=sys.stderr, flush=True)
