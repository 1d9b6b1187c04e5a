"""
Train on the synthetic scene or a folder: EMA, cosine schedule, mixed precision, resumable.

Every random choice is a function of the seed and the step alone, so a resumed run
sees exactly the batches that an uninterrupted one would have seen. Needs PyTorch.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
import math
from pathlib import Path
import time
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

import torch
from torch import nn
from tqdm import tqdm

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.decode import detect
from yolojet_ros.core.head import anchor_count, raw_reading
from yolojet_ros.core.letterbox import Letterbox
from yolojet_ros.model import checkpoint
from yolojet_ros.model.bank import ImageBank, Recipe
from yolojet_ros.model.checkpoint import TrainedModel
from yolojet_ros.model.coco_scorer import Accuracy, CocoScorer, MOST_DETECTIONS
from yolojet_ros.model.data import SEEDS_PER_RUN, VALIDATION_SEED
from yolojet_ros.model.evaluation import low_threshold_selection
from yolojet_ros.model.history import History
from yolojet_ros.model.losses import detection_loss, part_names
from yolojet_ros.model.yolo_folder import YoloFolder
from yolojet_ros.model.yolov8 import MASK_COEFFICIENTS, STRIDES, YOLOv8

# The last steps see undistorted images, as the runtime will.
_CALM = Recipe(zoom=0.0, color=0.0, noise=0.01)


_RANGES = {
    'steps': (1, 10**8), 'stills': (1, 10**7), 'batch': (1, 10**5), 'learning_rate': (0, 10),
    'validate_every': (0, 10**8), 'validation_stills': (1, 10**6), 'max_minutes': (0, 10**6),
    'workers': (0, 1024)}


@dataclass(frozen=True)
class TrainingPlan:
    """
    How long and how to train.

    steps: optimizer steps of the whole schedule
    stills: images to draw batches from, rendered unless they come from a folder
    batch: images a step
    learning_rate: peak of AdamW's rate; raising it learns faster until it diverges
    weight_decay: AdamW's, on convolution kernels only
    warmup: steps of linear rise to the peak
    ema_decay: of the moving average of the weights that is kept
    calm: share of the schedule, at its end, without distortion of the images
    validate_every: steps between measurements of mAP; 0 measures once at the end
    validation_stills: held-out images for it
    seed: 0..99, of weights, stills, batches and augmentation
    max_minutes: stop the schedule early (it is then shortened as time runs); 0 for no limit
    workers: processes that render
    save_every_s: seconds between checkpoints
    """

    steps: int = 12000
    stills: int = 60000
    batch: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: int = 300
    ema_decay: float = 0.9995
    calm: float = 0.15
    validate_every: int = 2000
    validation_stills: int = 500
    seed: int = 0
    max_minutes: float = 0.0
    workers: int = 0
    save_every_s: float = 60.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, (least, most) in _RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise UserError(f'{name} is {getattr(self, name)}; it must be in '
                                f'{least:g}..{most:g}')
        # Above, the stills of a run would be those that are held out.
        if not 0 <= self.seed < VALIDATION_SEED // SEEDS_PER_RUN:
            raise UserError(f'seed is {self.seed}; it must be 0 to 99')


# What may change when a run goes on: nothing that is learned depends on it.
_FREE = ('workers', 'validate_every', 'validation_stills', 'save_every_s')


def resumed_plan(state: Mapping[str, Any], chosen: Mapping[str, Any]) -> TrainingPlan:
    """
    Return the plan that an unfinished run was begun with.

    :param state: of the checkpoint.
    :param chosen: what the user gives now; may change only what learning does not depend on.
    :raises UserError: if it would change more, or the state holds no plan.
    """
    kept = state.get('plan')
    names = {field.name for field in fields(TrainingPlan)}
    if not isinstance(kept, dict) or set(kept) != names or not all(
            isinstance(value, (int, float)) for value in kept.values()):
        raise UserError(
            'the unfinished training holds no plan to go on with (an older version did not keep '
            'it); start anew with --weights')
    for name, value in chosen.items():
        if name not in _FREE and value != kept[name]:
            option = f'--{name.replace("_", "-")}'
            raise UserError(
                f'{option} is {value}, but this training was begun with {kept[name]}; leave '
                f'{option} out, or start anew with --weights')
    return TrainingPlan(**{**kept, **chosen})


class MovingAverage:
    """Exponential moving average of weights and batch-norm statistics."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Start from a copy of `network`."""
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards `network`; faster in the first steps, when it changes most."""
        weight = 1 - self._decay * (1 - math.exp(-(step + 1) / 1000))
        mine, theirs = [], []
        for a, b in zip(self.network.state_dict().values(), network.state_dict().values()):
            if a.is_floating_point():
                mine.append(a)
                theirs.append(b)
        torch._foreach_lerp_(mine, theirs, weight)


class Trainer:
    """
    One training run of a network on one device.

    :param model: what to train; its weights are changed.
    :param device: 'cpu' or 'cuda'.
    :param folder: what to train on instead of the scene.
    """

    def __init__(
        self, model: TrainedModel, plan: TrainingPlan, device: str,
        folder: Optional[YoloFolder] = None,
    ) -> None:
        """Prepare the optimizer, and take up the state of an unfinished run."""
        self.model = model
        self.plan = plan
        self.folder = folder
        self.device = torch.device(device)
        cuda = self.device.type == 'cuda'
        # Old GPUs have no bfloat16; float16 needs its gradients scaled.
        self._half = torch.bfloat16
        if cuda and not torch.cuda.is_bf16_supported(including_emulation=False):
            self._half = torch.float16
        self._amp = cuda
        self._scaler = torch.amp.GradScaler(
            self.device.type, enabled=cuda and self._half is torch.float16)
        # Exact on a CPU; on a GPU the gradient of max pooling still sums in any order.
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False
        torch.manual_seed(plan.seed)
        self.network = model.network.to(self.device, memory_format=torch.channels_last)
        self.average = MovingAverage(self.network, plan.ema_decay)
        self.optimizer = _optimizer(self.network, plan, fused=cuda)
        self.step = 0
        self._spent_s = 0.0
        if model.state:
            try:
                self._restore(model.state)
            except (AttributeError, IndexError, KeyError, RuntimeError, TypeError,
                    ValueError) as error:
                raise UserError(
                    'the unfinished training cannot go on: its state does not fit the network; '
                    'start anew with --weights') from error

    def _restore(self, state: Dict) -> None:
        # The file's weights are the average's, which has been built from them.
        self.network.load_state_dict(state['network'])
        self.optimizer.load_state_dict(state['optimizer'])
        self._scaler.load_state_dict(state['scaler'])
        self.step = int(state['step'])
        self._spent_s = float(state['spent_s'])

    def snapshot(self, finished: bool = False) -> TrainedModel:
        """Return the averaged weights and, unless finished, the state to go on from."""
        recipe = dict(self.model.recipe)
        recipe['training'] = (
            f'{self.step} steps of {self.plan.batch}, AdamW {self.plan.learning_rate:g}, '
            f'cosine, EMA {self.plan.ema_decay:g}')
        source = 'yolojet_ros.sim.scene' if self.folder is None else self.folder.source.name
        images = 'stills' if self.folder is None else 'images'
        recipe['data'] = f'{source}, {self.plan.stills} {images}, seed {self.plan.seed}'
        state = {} if finished else {
            'network': self.network.state_dict(), 'optimizer': self.optimizer.state_dict(),
            'scaler': self._scaler.state_dict(), 'step': self.step, 'spent_s': self._spent_s,
            'plan': asdict(self.plan),
            'data': '' if self.folder is None else str(self.folder.source)}
        return TrainedModel(
            self.average.network, self.model.names, self.model.input_size, recipe, state)

    def run(self, output: Path) -> Accuracy:
        """
        Train to the end of the plan, saving to `output` on the way and at the end.

        Beside it are kept a table and a plot of all measurements, and the best weights
        (history.History).

        :returns: accuracy of the averaged weights on the validation images.
        :raises UserError: if the loss is not finite; `output` then has the last good weights.
        """
        plan = self.plan
        history = History(output, part_names(self.network.task.name))
        history.resume(self.step)
        train, held_out = self._banks()
        begin = saved = time.monotonic()
        spent_before = self._spent_s
        accuracy: Optional[Accuracy] = None
        parts = torch.full((len(history.parts),), math.nan)
        progress = tqdm(total=plan.steps, initial=self.step, desc='train', unit='step')
        while self._progress() < 1:
            try:
                parts = self._train_step(train)
            except FloatingPointError as error:
                progress.close()
                raise UserError(
                    f'{error} in step {self.step + 1}, so nothing more can be learned; '
                    f'{self._keep(output)}; lower --learning-rate, or begin with other --weights'
                ) from error
            self.step += 1
            now = time.monotonic()
            self._spent_s = spent_before + now - begin
            progress.update()
            if self.step % 50 == 0 or self.step == plan.steps:
                _show(progress, history.parts, parts.tolist(), accuracy)
            if (plan.validate_every and self.step % plan.validate_every == 0
                    and self._progress() < 1):
                accuracy = self._measure(held_out, history, parts)
            if now - saved > plan.save_every_s:
                saved = now
                checkpoint.save(self.snapshot(), output)
        progress.close()
        checkpoint.save(self.snapshot(finished=True), output)
        return self._measure(held_out, history, parts)

    def _keep(self, output: Path) -> str:
        """Save the average of the steps that went well; return what was kept."""
        if not self.step:
            return 'no weights were written'
        checkpoint.check_finite(self.average.network.state_dict(), output)
        checkpoint.save(self.snapshot(finished=True), output)
        return f'{output} has the weights of step {self.step}'

    def _banks(self) -> Tuple[ImageBank, ImageBank]:
        """Return the images to train and to measure on."""
        plan, size, task = self.plan, self.model.input_size, self.network.task.name
        if self.folder is None:
            first = ((plan.stills, 1 + plan.seed * SEEDS_PER_RUN),
                     (plan.validation_stills, VALIDATION_SEED))
            return tuple(ImageBank.render(*range_, size, self.device, plan.workers, task)
                         for range_ in first)
        return tuple(ImageBank.read(self.folder, files, size, self.device, plan.workers)
                     for files in (self.folder.train, self.folder.val))

    def _measure(self, held_out: ImageBank, history: History, parts: torch.Tensor) -> Accuracy:
        """Measure the averaged weights, write that down, and keep them if they are the best."""
        accuracy = validate(self.average.network, held_out, self.model)
        rate = self.optimizer.param_groups[0]['lr']
        if history.add(self.step, self._spent_s / 60, rate, parts.tolist(), accuracy.map50,
                       accuracy.map):
            checkpoint.save(self.snapshot(finished=True), history.best_file)
        history.plot()
        return accuracy

    def _progress(self) -> float:
        """Return the share of the schedule that is done, 0..1."""
        share = self.step / self.plan.steps
        if self.plan.max_minutes:
            share = max(share, self._spent_s / (60 * self.plan.max_minutes))
        return min(share, 1.0)

    def _train_step(self, bank: ImageBank) -> torch.Tensor:
        """
        Do one optimizer step; return the loss parts, still on the device.

        :raises FloatingPointError: if loss or gradient are not finite; no weight has changed.
        """
        share = self._progress()
        rate = self.plan.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)
        for group in self.optimizer.param_groups:
            group['lr'] = rate * min(1.0, (self.step + 1) / max(self.plan.warmup, 1))
        recipe = _CALM if share > 1 - self.plan.calm else Recipe()
        images, targets = bank.batch(self._indices(len(bank)), recipe, self._generator())
        images = images.contiguous(memory_format=torch.channels_last)
        self.network.train()
        with torch.autocast(self.device.type, self._half, enabled=self._amp):
            maps = self.network(images)
        loss, parts = detection_loss(self.network, maps, targets)
        self.optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        # The scaler leaves out a step whose float16 gradient is too large, and goes on.
        if not torch.isfinite(loss if self._scaler.is_enabled() else loss + norm):
            raise FloatingPointError('the loss or its gradient is not finite')
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.average.update(self.network, self.step)
        return parts

    def _indices(self, count: int) -> torch.Tensor:
        """Return the stills of this step: every still once before any comes again."""
        first, missing = self.step * self.plan.batch, self.plan.batch
        parts = []
        while missing:
            epoch, offset = divmod(first, count)
            parts.append(_order(self.plan.seed, epoch, count)[offset:offset + missing])
            first, missing = first + len(parts[-1]), missing - len(parts[-1])
        return torch.cat(parts).to(self.device)

    def _generator(self) -> torch.Generator:
        generator = torch.Generator(self.device)
        return generator.manual_seed(self.plan.seed * 1_000_000_007 + self.step)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator)


def _optimizer(network: YOLOv8, plan: TrainingPlan, fused: bool) -> torch.optim.Optimizer:
    trained = [p for p in network.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [{'params': [p for p in trained if p.ndim > 1], 'weight_decay': plan.weight_decay},
         {'params': [p for p in trained if p.ndim <= 1], 'weight_decay': 0.0}],
        lr=plan.learning_rate, betas=(0.9, 0.99), fused=fused)


def _show(
    progress: tqdm, names: Sequence[str], parts: Sequence[float], accuracy: Optional[Accuracy],
) -> None:
    shown = dict(zip(names, (f'{p:.3f}' for p in parts)))
    if accuracy:
        shown['mAP50'], shown['mAP'] = f'{accuracy.map50:.3f}', f'{accuracy.map:.3f}'
    progress.set_postfix(shown)


@torch.no_grad()
def validate(network: YOLOv8, bank: ImageBank, model: TrainedModel, batch: int = 64) -> Accuracy:
    """
    Measure a network on the undistorted images of `bank`, in float32.

    :returns: accuracy of what the task finds: boxes, masks, keypoints or rotated boxes.
    """
    task = network.task
    scorer = CocoScorer(model.names, task.name)
    selection = low_threshold_selection(model.names)
    same = Letterbox.fit(model.input_size, model.input_size)
    reading = raw_reading(
        anchor_count(model.input_size), len(model.names), task.name,
        MASK_COEFFICIENTS if task.name == 'segment' else 0, task.keypoints)
    for start in range(0, len(bank), batch):
        indices = torch.arange(start, min(start + batch, len(bank)), device=bank.images.device)
        maps = network(bank.images[indices].float() / 255)
        outputs = [network.decode(maps), *maps[len(STRIDES):]]
        outputs = list(zip(*(output.cpu().numpy() for output in outputs)))
        truth = bank.targets.each(lambda part: part[indices].cpu().numpy())
        for index, output in enumerate(outputs):
            boxes = truth.boxes[index]
            real = (boxes[:, 2:] > boxes[:, :2]).all(1)
            shapes = {'segment': truth.instances, 'pose': truth.keypoints,
                      'obb': truth.rotated}.get(task.name)
            if shapes is not None:
                shapes = shapes[index] if task.name == 'segment' else shapes[index][real]
            scorer.add(boxes[real], truth.classes[index][real], truth.learn[index][real],
                       detect(output, reading, same, selection)[:MOST_DETECTIONS], shapes)
    return scorer.accuracy()
