"""`yolojet model train`: learn from the synthetic scene or from a data set of the user's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Dict, Optional

from yolojet_ros.cli.numbers import whole
from yolojet_ros.cli.training_inputs import image_size, require_torch
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import refuse_same

# Modules that need PyTorch or ONNX are imported where they are used.


def add_parser(commands) -> None:
    """Add the command to those of `yolojet model`."""
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
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
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
