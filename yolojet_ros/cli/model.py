"""`yolojet model`: train, export, compress and measure detectors."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Tuple

from yolojet_ros.core.errors import UserError

# Modules that need PyTorch or ONNX are imported by the commands that use them.


def add_parser(subparsers) -> None:
    """Add the command group to the subparsers of the main program."""
    group = subparsers.add_parser(
        'model', help='train, export, compress and measure detectors',
        description='Train, export, compress and measure YOLOv8 detectors, all offline.')
    commands = group.add_subparsers(dest='model_command', required=True, metavar='COMMAND')
    for add in (_add_info, _add_train, _add_export):
        add(commands)


def image_size(text: str) -> Tuple[int, int]:
    """
    Parse WIDTHxHEIGHT of a network input.

    :raises UserError: if a side is not a positive multiple of 32.
    """
    try:
        width, height = (int(part) for part in text.lower().split('x'))
    except ValueError:
        raise UserError(f'"{text}" is no image size; write it as WIDTHxHEIGHT, 320x192') from None
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
        raise UserError(
            'this command needs PyTorch; run "pip install yolojet_ros[train]"') from error


def _add_info(commands) -> None:
    parser = commands.add_parser('info', help='parameters and identity of a network or file')
    parser.add_argument('file', nargs='?', type=Path, help='.pt or .onnx file')
    parser.add_argument('--variant', default='n', help='n, s or m (without a file)')
    parser.add_argument('--classes', type=int, default=80, help='classes (without a file)')
    parser.set_defaults(run=_info)


def _info(args: argparse.Namespace) -> int:
    from yolojet_ros.model import onnx_file

    if args.file and args.file.suffix == '.onnx':
        model = onnx_file.load(args.file)
        card = onnx_file.card(model, args.file.name)
        width, height = card.input_size
        print(f'{args.file.name}: {onnx_file.weight_count(model):,} weights, '
              f'input {width}x{height}, opset {onnx_file.opset(model)}, '
              f'head {card.layout.value}')
        for key, value in sorted(onnx_file.metadata(model).items()):
            print(f'  {key}: {value}')
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
    print(f'YOLOv8{network.variant}, {network.classes} classes: '
          f'{parameter_count(network):,} parameters')
    return 0


def _add_train(commands) -> None:
    parser = commands.add_parser('train', help='train on the synthetic scene')
    parser.add_argument('output', type=Path, help='.pt file to write')
    parser.add_argument('--variant', default='n', help='n, s or m (default n)')
    parser.add_argument('--size', default='320x192', help='network input (default 320x192)')
    parser.add_argument('--weights', type=Path, help='start from these weights (pruned or not)')
    parser.add_argument('--resume', action='store_true', help='go on with an unfinished OUTPUT')
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
    require_torch()
    import os

    import torch
    from yolojet_ros.model import checkpoint
    from yolojet_ros.model.training import Trainer, TrainingPlan
    from yolojet_ros.model.yolov8 import YOLOv8
    from yolojet_ros.sim.scene import CLASS_NAMES

    device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    chosen = {name: getattr(args, name) for name in TrainingPlan.__dataclass_fields__
              if getattr(args, name, None) is not None}
    plan = TrainingPlan(**{'workers': os.cpu_count() or 1, **chosen})
    if args.resume:
        model = checkpoint.load(args.output, device)
        if not model.state:
            raise UserError(f'{args.output} holds a finished training; start with --weights')
    elif args.weights:
        model = checkpoint.load(args.weights, device)
        model.state = {}
    else:
        torch.manual_seed(plan.seed)
        model = checkpoint.TrainedModel(
            YOLOv8(args.variant, len(CLASS_NAMES)), CLASS_NAMES, image_size(args.size))
    accuracy = Trainer(model, plan, device).run(args.output)
    print(f'{args.output}: mAP50 {accuracy.map50:.4f}, mAP50-95 {accuracy.map:.4f} '
          f'on {accuracy.images} held-out stills')
    return 0


def _add_export(commands) -> None:
    parser = commands.add_parser('export', help='write weights as an ONNX file')
    parser.add_argument('weights', type=Path, help='.pt file, ours or of ultralytics')
    parser.add_argument('output', type=Path, help='.onnx file to write')
    parser.add_argument('--opset', type=int, default=17,
                        help='13 for TensorRT 8.2, up to 19 (default 17)')
    parser.add_argument('--dynamic-batch', action='store_true', help='leave the batch open')
    parser.add_argument('--nms', choices=('layer', 'plugin'), help='end the graph in NMS')
    parser.add_argument('--score', type=float, default=0.25, help='score threshold of --nms')
    parser.add_argument('--iou', type=float, default=0.7, help='IoU threshold of --nms')
    parser.add_argument('--size', default='640x640', help='input size for ultralytics weights')
    parser.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    require_torch()
    from yolojet_ros.model import checkpoint, export
    from yolojet_ros.model.nms_graph import NmsSettings

    if args.nms and args.dynamic_batch:
        raise UserError('--nms works on one image at a time; leave out --dynamic-batch')
    if export.is_ultralytics(args.weights):
        export.export_ultralytics(
            args.weights, args.output, image_size(args.size), args.opset, args.dynamic_batch)
        print(f'{args.output}: exported by ultralytics')
        return 0
    nms = NmsSettings(args.nms, args.score, args.iou) if args.nms else None
    difference = export.export(
        checkpoint.load(args.weights), args.output, args.opset, args.dynamic_batch, nms)
    print(f'{args.output}: {args.output.stat().st_size / 1e6:.2f} MB, differs from PyTorch '
          f'by at most {difference:.1e}')
    return 0
