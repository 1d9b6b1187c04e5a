"""`yolojet model`: train, export, prune, quantize and measure detectors."""

from __future__ import annotations

import argparse
from pathlib import Path
from zipfile import is_zipfile

from yolojet_ros.cli import model_train
from yolojet_ros.cli.numbers import whole
from yolojet_ros.cli.training_inputs import image_size, require_torch
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import refuse_same

# Modules that need PyTorch or ONNX are imported by the commands that use them.


def add_parser(subparsers) -> None:
    """Add the command group to the subparsers of the main program."""
    group = subparsers.add_parser(
        'model', help='train, export, compress and measure detectors',
        description='Train, export, compress and measure YOLOv8 detectors, all offline.')
    commands = group.add_subparsers(dest='model_command', required=True, metavar='COMMAND')
    for add in (_add_info, model_train.add_parser, _add_export, _add_prune, _add_quantize,
                _add_fp16, _add_evaluate):
        add(commands)


def _add_info(commands) -> None:
    parser = commands.add_parser('info', help='what a file or network is, and how its head is read')
    parser.add_argument('file', nargs='?', type=Path, help='.onnx, .engine or .pt file')
    parser.add_argument('--input-size', metavar='WxH', default='',
                        help='input of an .onnx file that leaves it open')
    parser.add_argument('--variant', default='n', help='n, s or m (without a file)')
    parser.add_argument('--classes', type=int, default=80, help='classes (without a file)')
    parser.set_defaults(run=_info)


def _info(args: argparse.Namespace) -> int:
    if args.file and args.file.suffix == '.onnx':
        from yolojet_ros.cli.model_info import print_onnx
        from yolojet_ros.core.knob_values import parse_size
        print_onnx(args.file, parse_size('--input-size', args.input_size))
        return 0
    from yolojet_ros.inference.load import ENGINE_SUFFIXES
    if args.file and args.file.suffix in ENGINE_SUFFIXES:
        from yolojet_ros.cli.model_info import print_engine
        print_engine(args.file)
        return 0
    if args.file and args.file.suffix not in ('.pt', '.pth') and args.file.is_file() \
            and not is_zipfile(args.file):
        raise UserError(f'{args.file} is no model; give an .onnx file, an engine, or a .pt file of '
                        '"yolojet model train"')
    require_torch()
    from yolojet_ros.model import checkpoint
    from yolojet_ros.model.yolov8 import parameter_count, YOLOv8

    if args.file:
        model = checkpoint.load(args.file)
        network = model.network
        print(f'classes: {", ".join(model.names)}; input %dx%d' % model.input_size)
        for key, value in sorted(model.recipe.items()):
            print(f'  {key}: {value}')
    else:
        network = YOLOv8(args.variant, args.classes)
    print(f'YOLOv8{network.variant}, {network.task.name}, {network.classes} classes: '
          f'{parameter_count(network):,} parameters')
    return 0


def _add_export(commands) -> None:
    parser = commands.add_parser('export', help='write weights as an ONNX file')
    parser.add_argument('weights', type=Path, help='.pt file, ours or of ultralytics')
    parser.add_argument('output', type=Path, help='.onnx file to write')
    parser.add_argument('--opset', type=int, default=17,
                        help='13 for TensorRT 8.2, up to 19 (default 17)')
    parser.add_argument('--dynamic-batch', action='store_true', help='leave the batch open')
    parser.add_argument('--nms', choices=('layer', 'plugin'),
                        help='end the graph in NMS: a layer (TensorRT 8.5 and later) or the '
                             'plugin EfficientNMS_TRT (8.0 and later)')
    parser.add_argument('--score', type=float, default=0.25, help='score threshold of --nms')
    parser.add_argument('--iou', type=float, default=0.7, help='IoU threshold of --nms')
    parser.add_argument('--size', default='640x640', help='input size for ultralytics weights')
    parser.add_argument('--trust', action='store_true',
                        help='read weights of ultralytics, which runs whatever code is in them')
    parser.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    refuse_same(args.weights, args.output)
    require_torch()
    from yolojet_ros.model import checkpoint, export
    from yolojet_ros.model.nms_graph import NmsSettings

    if args.nms and args.dynamic_batch:
        raise UserError('--nms works on one image at a time; leave out --dynamic-batch')
    nms = NmsSettings(args.nms, args.score, args.iou) if args.nms else None
    if export.is_ultralytics(args.weights):
        export.export_ultralytics(
            args.weights, args.output, image_size(args.size), args.opset, args.dynamic_batch,
            nms, args.trust)
        print(f'{args.output}: exported by ultralytics'
              + (f', with NMS ({args.nms})' if nms else ''))
        return 0
    difference = export.export(
        checkpoint.load(args.weights), args.output, args.opset, args.dynamic_batch, nms)
    print(f'{args.output}: {args.output.stat().st_size / 1e6:.2f} MB, differs from PyTorch '
          f'by at most {difference:.1e}')
    return 0


def _add_prune(commands) -> None:
    parser = commands.add_parser(
        'prune', help='remove channels; then fine-tune with "train --weights"')
    parser.add_argument('weights', type=Path, help='.pt file')
    parser.add_argument('output', type=Path, help='.pt file to write')
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument('--ratio', type=float, help='share of channels inside the bottlenecks')
    goal.add_argument('--parameters', type=int, help='parameters that remain')
    parser.add_argument('--criterion', choices=('bn', 'l1'), default='bn',
                        help='importance: batch-norm scale or kernel weights (default bn)')
    parser.add_argument('--images', type=whole(0), default=200,
                        help='held-out stills to measure before and after on; 0 for none')
    parser.set_defaults(run=_prune)


def _prune(args: argparse.Namespace) -> int:
    refuse_same(args.weights, args.output)
    require_torch()
    import dataclasses

    from yolojet_ros.model import checkpoint, report
    from yolojet_ros.model.pruning import prune

    model = checkpoint.load(args.weights)
    pruned = dataclasses.replace(
        model, network=prune(model.network, args.ratio, args.parameters, args.criterion),
        state={}, recipe={**model.recipe, 'pruning': f'{args.criterion}, C2f channels'})
    checkpoint.save(pruned, args.output)
    print(report.compare_networks({'before': model, 'pruned': pruned}, args.images))
    print(f'{args.output}: fine-tune it with "yolojet model train OUTPUT --weights '
          f'{args.output}"')
    return 0


def _add_quantize(commands) -> None:
    parser = commands.add_parser('quantize', help='write an INT8 model for TensorRT')
    parser.add_argument('model', type=Path, help='FP32 .onnx file')
    parser.add_argument('output', type=Path, help='.onnx file to write')
    parser.add_argument('--data', default='scene',
                        help='calibration images: a folder, a bag, or scene (default)')
    parser.add_argument('--images', type=whole(1), default=128, help='how many (default 128)')
    parser.add_argument('--method', default='percentile',
                        help='minmax, entropy or percentile (default)')
    parser.add_argument('--keep-float', action='append', default=[], metavar='LAYER',
                        help='leave this convolution in float; may be repeated')
    parser.add_argument('--float-layers', type=int, default=0, metavar='N',
                        help='leave the N most sensitive convolutions in float')
    parser.add_argument('--sensitivity', action='store_true',
                        help='report what each layer costs, and write nothing')
    parser.add_argument('--fp16', action='store_true',
                        help='type the rest FP16, at opset 19, for TensorRT 11')
    parser.add_argument('--dynamic', action='store_true',
                        help='scales at run time, for ONNX Runtime on CPU: TensorRT rejects it')
    parser.add_argument('--no-cache', action='store_true', help='calibrate anew')
    parser.set_defaults(run=_quantize)


def _quantize(args: argparse.Namespace) -> int:
    from yolojet_ros.model import calibration, fp16, onnx_file, quantization
    from yolojet_ros.model.calibration_images import network_inputs
    from yolojet_ros.model.sensitivity import layer_costs

    if not args.sensitivity:
        refuse_same(args.model, args.output)
    if args.dynamic:
        for option in ('fp16', 'sensitivity', 'float_layers', 'keep_float'):
            if getattr(args, option):
                raise UserError(
                    f'--{option.replace("_", "-")} does nothing with --dynamic; leave one out')
        quantization.quantize_dynamic(args.model, args.output)
        print(f'{args.output}: INT8 with scales at run time. For ONNX Runtime on a CPU only: '
              'TensorRT has no operator whose scale is computed while it runs.')
        return 0
    model = quantization.prepare(onnx_file.load(args.model), args.model.name)
    nodes = quantization.quantizable(model, args.keep_float)
    inputs = network_inputs(args.data, args.images, onnx_file.card(model, args.model.name))
    cache = None if args.no_cache else calibration.default_cache()
    thresholds = calibration.calibrate(
        model, quantization.calibrated(model, nodes), inputs, args.method, cache)
    keep_float = list(args.keep_float)
    if args.sensitivity or args.float_layers:
        costs = layer_costs(model, nodes, inputs[:16], thresholds)
        if args.sensitivity:
            print(f'{"score":>8} {"box px":>8}  layer quantized alone')
            for cost in costs:
                print(f'{cost.score:8.4f} {cost.box:8.3f}  {cost.name}')
            return 0
        keep_float += [cost.name for cost in costs[:args.float_layers]]
    result = quantization.quantize(model, thresholds, args.method, keep_float)
    if args.fp16:
        result = fp16.to_fp16(result, args.model.name)
    onnx_file.save(result, args.output)
    quantized = len(quantization.quantizable(model, keep_float))
    rest = sum(node.op_type == 'Conv' for node in model.graph.node) - quantized
    print(f'{args.output}: {quantized} convolutions in INT8, calibrated on {len(inputs)} images '
          f'({args.method}); {rest} stay in float (no activation behind them, or kept)')
    _print_remaining(result)
    return 0


def _add_fp16(commands) -> None:
    parser = commands.add_parser('fp16', help='write an FP16-typed model (TensorRT 11)')
    parser.add_argument('model', type=Path, help='FP32 or Q/DQ .onnx file')
    parser.add_argument('output', type=Path, help='.onnx file to write')
    parser.set_defaults(run=_fp16)


def _fp16(args: argparse.Namespace) -> int:
    refuse_same(args.model, args.output)
    from yolojet_ros.model import fp16, onnx_file

    model = onnx_file.load(args.model)
    onnx_file.name_nodes(model)
    result = fp16.to_fp16(model, args.model.name)
    onnx_file.save(result, args.output)
    print(f'{args.output}: {args.output.stat().st_size / 1e6:.2f} MB, opset '
          f'{onnx_file.opset(result)}')
    _print_remaining(result)
    return 0


def _print_remaining(model) -> None:
    """Say which weights of an FP16-typed model are not FP16."""
    from yolojet_ros.model import fp16, onnx_file

    remaining = onnx_file.metadata(model).get(fp16.REMAINING_KEY)
    if remaining:
        print(f'weights left in FP32 besides the decoding: {remaining}')


def _add_evaluate(commands) -> None:
    parser = commands.add_parser('evaluate', help='measure COCO mAP, speed and size')
    parser.add_argument('models', type=Path, nargs='+', metavar='MODEL', help='.onnx files')
    parser.add_argument('--against', type=Path, metavar='OTHER',
                        help='fail where a model loses more than --limit against this one')
    parser.add_argument('--limit', type=float, default=1.0,
                        help='points of mAP50-95 (x100) that may be lost (default 1.0)')
    parser.add_argument('--data', nargs='+', default=['scene'], metavar='DATA',
                        help='scene (default), DATA.yaml, or COCO_JSON IMAGE_FOLDER')
    parser.add_argument('--images', type=whole(1), default=500,
                        help='stills of the scene (default 500)')
    parser.add_argument('--classes', nargs='+', default=[], metavar='NAME',
                        help='measure these alone (default: all that are labelled; every '
                             'model has to know them by name)')
    parser.add_argument('--labels', choices=('single', 'multi'), default='single',
                        help='an anchor point counts with its best class, as in the node '
                             '(default), or with every class, as published mAP figures are made')
    parser.add_argument('--threads', type=whole(0, 256), default=0, help='CPU threads (default: all)')
    parser.set_defaults(run=_evaluate)


def _evaluate(args: argparse.Namespace) -> int:
    from yolojet_ros.model import report

    paths = list(dict.fromkeys([*([args.against] if args.against else []), *args.models]))
    measured = report.measure_all(
        paths, args.data, args.images, args.threads, args.classes, args.labels == 'multi')
    print(report.table(measured))
    print(report.details(measured))
    if not args.against:
        return 0
    return report.losses_within(measured[0], measured[1:], args.limit)
