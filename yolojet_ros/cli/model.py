"""`yolojet model`: train, export, prune, quantize and measure detectors."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from yolojet_ros.cli.numbers import whole
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import refuse_same

# Modules that need PyTorch or ONNX are imported by the commands that use them.


def add_parser(subparsers) -> None:
    """Add the command group to the subparsers of the main program."""
    group = subparsers.add_parser(
        'model', help='train, export, compress and measure detectors',
        description='Train, export, compress and measure YOLOv8 detectors, all offline.')
    commands = group.add_subparsers(dest='model_command', required=True, metavar='COMMAND')
    for add in (_add_info, _add_train, _add_export, _add_prune, _add_quantize, _add_fp16,
                _add_evaluate):
        add(commands)


def image_size(text: str) -> Tuple[int, int]:
    """
    Parse WIDTHxHEIGHT of a network input.

    :raises UserError: if a side is not a positive multiple of 32.
    """
    from yolojet_ros.core.knob_values import parse_size
    width, height = parse_size('the input size', text.lower()) or (0, 0)
    if width < 32 or height < 32 or width % 32 or height % 32:
        raise UserError(
            f'the input size {width}x{height} does not suit YOLOv8; both sides must be '
            'multiples of 32')
    return width, height


def require_torch() -> None:
    """Raise a UserError that says how to get PyTorch where it is missing."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        from yolojet_ros.core.installing import install_command
        raise UserError(
            f'this command needs PyTorch; run "{install_command("torch")}"') from error


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


def _add_train(commands) -> None:
    parser = commands.add_parser('train', help='train on your own data or the synthetic scene')
    parser.add_argument('output', type=Path, help='.pt file to write')
    parser.add_argument('--variant', help='n, s or m (default n)')
    parser.add_argument('--task', choices=('detect', 'segment', 'pose', 'obb'), help=(
        'what the network finds besides boxes (default detect)'))
    parser.add_argument('--size', help='network input (default 320x192; with --data 640x640)')
    parser.add_argument('--data', type=Path, metavar='DATA.yaml', help=(
        'train on this data set in the YOLO folder format (default: the synthetic scene)'))
    parser.add_argument('--epochs', type=whole(1), help='with --data: how often each image comes '
                        '(default 100); --steps instead counts steps')
    parser.add_argument('--weights', type=Path, help=(
        'start from these weights (pruned or not); with --data also a .safetensors or '
        'weights-only .pt of the same network, or an .onnx export (default: the demo model)'))
    parser.add_argument('--resume', action='store_true', help=(
        'go on with an unfinished OUTPUT as it was begun; only --workers and --validate-* '
        'may be given anew'))
    parser.add_argument('--device', default='', help='cpu or cuda (default: cuda if there is)')
    for name, kind, text in (
            ('steps', int, 'optimizer steps of the schedule'),
            ('stills', int, 'images to render'),
            ('batch', int, 'images a step'),
            ('learning-rate', float, 'peak rate of AdamW'),
            ('seed', int, 'of weights, data and batches'),
            ('validate-every', int, 'steps between measurements of mAP'),
            ('validation-stills', int, 'held-out images to measure on'),
            ('max-minutes', float, 'shorten the schedule to this time (default: no limit)'),
            ('workers', int, 'processes that render (default: one a core)')):
        parser.add_argument(f'--{name}', type=kind, help=text)
    parser.set_defaults(run=_train)


def _train(args: argparse.Namespace) -> int:
    if args.weights and not args.resume:
        refuse_same(args.weights, args.output)
    require_torch()
    import os

    import torch
    from yolojet_ros.model import checkpoint
    from yolojet_ros.model.training import resumed_plan, Trainer, TrainingPlan
    from yolojet_ros.model.yolov8 import Task, YOLOv8
    from yolojet_ros.sim.frame import CLASS_NAMES, KEYPOINT_NAMES

    device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    chosen = {name: getattr(args, name) for name in TrainingPlan.__dataclass_fields__
              if getattr(args, name, None) is not None}
    chosen.setdefault('workers', os.cpu_count() or 1)
    folder = None
    _refuse_contradictions(args)
    if args.resume:
        model = checkpoint.load(args.output, device)
        if not model.state:
            raise UserError(f'{args.output} holds a finished training; start with --weights')
        plan = resumed_plan(model.state, chosen)
        _refuse_changes(args, weights=None, size='%dx%d' % model.input_size,
                        variant=model.network.variant, task=model.network.task.name)
        folder = _folder_to_go_on(args, model, plan)
    elif args.data:
        folder = _folder(args.data, args.task or _task_of(args.weights))
        plan = TrainingPlan(**_folder_plan(folder, chosen, args.epochs))
        torch.manual_seed(plan.seed)
        model = _folder_model(args, folder)
    elif args.weights:
        plan = TrainingPlan(**chosen)
        model = checkpoint.load(args.weights, device)
        model.state = {}
        if args.size:
            model.input_size = image_size(args.size)
        _refuse_changes(args, variant=model.network.variant, task=model.network.task.name)
    else:
        plan = TrainingPlan(**chosen)
        torch.manual_seed(plan.seed)
        name = args.task or 'detect'
        task = Task(name, (len(KEYPOINT_NAMES), 3) if name == 'pose' else (0, 0))
        model = checkpoint.TrainedModel(
            YOLOv8(args.variant or 'n', len(CLASS_NAMES), task), CLASS_NAMES,
            image_size(args.size or '320x192'))
    accuracy = Trainer(model, plan, device, folder).run(args.output)
    print(f'{args.output}: mAP50 {accuracy.map50:.4f}, mAP50-95 {accuracy.map:.4f} '
          f'on {accuracy.images} held-out {"images" if folder else "stills"}')
    return 0


def _refuse_contradictions(args: argparse.Namespace) -> None:
    """Refuse options that would do nothing."""
    if args.epochs and (args.steps is not None or args.resume or not args.data):
        raise UserError('--epochs counts how often images of --data come when a training '
                        'begins; leave it out, or leave out --steps or --resume')
    for name in ('stills', 'validation_stills'):
        if args.data and getattr(args, name) is not None:
            raise UserError(f'--{name.replace("_", "-")} is for the scene; with --data all '
                            'images of "train" and "val" are used, so leave it out')


def _folder(path: Path, task: str):
    """Read a data.yaml and look through all its labels."""
    from yolojet_ros.model.yolo_folder import YoloFolder

    folder = YoloFolder.read(path.resolve(), task)
    folder.check()
    return folder


def _task_of(weights: Optional[Path]) -> str:
    """Return the task that weights of this package were trained for; 'detect' for others."""
    from yolojet_ros.model import checkpoint, onnx_file

    if weights and weights.suffix == '.onnx':
        return onnx_file.metadata(onnx_file.load(weights)).get('task', 'detect')
    try:
        return checkpoint.load(weights).network.task.name if weights else 'detect'
    except UserError:
        return 'detect'


def _folder_plan(folder, chosen: Dict[str, Any], epochs: Optional[int]) -> Dict[str, Any]:
    """Choose what the user leaves open so that it suits the number of images."""
    count = len(folder.train)
    batch = chosen.get('batch', min(16, count))
    steps = chosen.get('steps', (epochs or 100) * -(-count // max(batch, 1)))
    return {'learning_rate': 1e-3, 'validate_every': max(1, steps // 20),
            'warmup': min(300, steps // 10), **chosen, 'batch': batch, 'steps': steps,
            'stills': count, 'validation_stills': len(folder.val)}


def _folder_model(args: argparse.Namespace, folder):
    """Build a network for the classes of a folder, from the weights that the user names."""
    from yolojet_ros.inference.demo_model import demo_model
    from yolojet_ros.model import checkpoint, start_weights
    from yolojet_ros.model.bank import ImageBank
    from yolojet_ros.model.yolov8 import Task, YOLOv8

    size = image_size(args.size or '640x640')
    variant = args.variant or 'n'
    network = YOLOv8(variant, len(folder.names), Task(folder.task, folder.keypoints))
    source = args.weights
    if not source and variant == 'n':
        source = demo_model()
        if folder.task == 'segment':
            source = source.with_name('yolojet_demo_segment.onnx')
    if source:
        taken = start_weights.take_over(network, start_weights.read_weights(source), source)
        print(f'{taken} tensors from {source}; what is not in it starts at random')
        if source.suffix == '.onnx':
            some = ImageBank.read(folder, folder.train[:16], size, 'cpu').images
            start_weights.settle(network, some.float() / 255)
    return checkpoint.TrainedModel(network, folder.names, size)


def _folder_to_go_on(args: argparse.Namespace, model, plan):
    """Return the folder that an unfinished training was begun with, None for the scene."""
    begun = model.state.get('data', '')
    if args.data and str(args.data.resolve()) != begun:
        raise UserError(f'--data is {args.data}, but this training was begun with '
                        f'{begun or "the scene"}; leave --data out')
    if not begun:
        return None
    folder = _folder(Path(begun), model.network.task.name)
    if folder.names != model.names or len(folder.train) != plan.stills:
        raise UserError(f'{begun} has {len(folder.train)} images to train on and '
                        f'{len(folder.names)} classes; this training was begun with '
                        f'{plan.stills} and {len(model.names)}; start anew with --weights')
    return folder


def _refuse_changes(args: argparse.Namespace, **kept) -> None:
    """Refuse options that contradict what the weights were made with."""
    for name, value in kept.items():
        given = getattr(args, name)
        if given is not None and given != value:
            raise UserError(
                f'--{name} is {given}, but the weights to go on with have '
                f'{value or "their own"}; leave --{name} out')


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
    model = onnx_file.load(args.model)
    onnx_file.name_nodes(model)
    quantization.check_source(model, args.model.name)
    nodes = quantization.quantizable(model, args.keep_float)
    inputs = network_inputs(args.data, args.images, onnx_file.card(model, args.model.name))
    cache = None if args.no_cache else calibration.default_cache()
    thresholds = calibration.calibrate(
        model, sorted({node.input[0] for node in nodes}), inputs, args.method, cache)
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
