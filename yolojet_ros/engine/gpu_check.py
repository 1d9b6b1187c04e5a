"""Prove engines, kernels and runtime on the GPU that is here, and measure them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from itertools import cycle, islice
import json
import os
from pathlib import Path
import traceback
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from yolojet_ros.core.decode import Table
from yolojet_ros.core.engine_card import EngineCard, sha256
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import atomic_path
from yolojet_ros.core.filters import FilterParams
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.stage_times import StageTimes
from yolojet_ros.engine import (
    benchmark, inspection, kernel_check, layers, precision_table, workflow)
from yolojet_ros.engine.plan import Options, resolve
from yolojet_ros.inference.backend import BackendError
from yolojet_ros.inference.cuda.device import Device
from yolojet_ros.inference.tensorrt_backend import TensorRTBackend
from yolojet_ros.inference.tensorrt_session import Session

Say = Callable[[str], None]
SOURCE_SIZE = (1280, 720)
# Cameras that share a model.
CAMERAS = 4
# Images in turns that no cache holds: 440 MB, where the largest caches of today have 384.
_UNCACHED = 160
_MOST_UNCACHED = {'640x640': 1.12}  # of the pipeline by its floor
# Rows that reach the threshold, and objects that are left of them, where a task is measured.
_CANDIDATES = 200
_OBJECTS = 20
# Precisions that are built of the model: tag, precision, whether from Q/DQ, whether calibrated.
VARIANTS = (('fp32', 'fp32', False, False), ('fp16', 'fp16', False, False),
            ('int8-qdq', 'int8', True, False), ('int8-calibrated', 'int8', False, True))


@dataclass(frozen=True)
class CheckOptions:
    """
    What to check.

    model: FP32 ONNX file of the demo model; quantized: its Q/DQ form, None makes it
    large: a 640x640 ONNX model to measure too
    precisions: compare only these, of the large model (quantized is then its Q/DQ form), in
        runs of each of `batches` images
    float_input: let INT8 engines quantize the image themselves
    tasks: ONNX models with masks, keypoints or rotated boxes: what these add is measured
    engines: folder that keeps the engines; those that fit are used again
    frames, leak_frames: of the measurements
    images: stills for mAP; calibration_images: for INT8
    kernel_rounds: random outputs of each head that kernels and twins decode
    """

    model: str
    quantized: Optional[str] = None
    large: Optional[str] = None
    precisions: Tuple[str, ...] = ()
    batches: Tuple[int, ...] = (1, 4, 16)
    float_input: bool = False
    tasks: Tuple[str, ...] = ()
    engines: str = 'engines/gpu-check'
    profile: str = 'auto'
    optimization_level: Optional[int] = None
    tactic_sources: Tuple[str, ...] = ()
    reference: Optional[str] = None
    frames: int = 1000
    leak_frames: int = 2000
    images: int = 400
    calibration_images: int = 500
    kernel_rounds: int = 6
    device: int = 0


@dataclass
class Figure:
    """One line of the table; `passed` is None for a figure without a limit."""

    name: str
    value: str
    limit: str = ''
    passed: Optional[bool] = None

    def row(self) -> str:
        """Return the line in Markdown."""
        verdict = {None: '', True: 'hit', False: '**missed**'}[self.passed]
        return f'| {self.name} | {self.value} | {self.limit} | {verdict} |'


@dataclass
class Findings:
    """The table, and everything that was measured for it."""

    figures: List[Figure] = field(default_factory=list)
    details: Dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, value: float, limit: Optional[float] = None, unit: str = '',
            least: bool = False, digits: int = 3) -> None:
        """Add a figure; `least` turns the limit into a lower one."""
        passed = None if limit is None else bool(value >= limit if least else value <= limit)
        text = '' if limit is None else f'{">=" if least else "<="} {limit:g}{unit}'
        self.figures.append(Figure(name, f'{value:.{digits}f}{unit}', text, passed))

    @property
    def passed(self) -> bool:
        """Return whether no figure missed its limit."""
        return all(figure.passed is not False for figure in self.figures)

    def table(self) -> str:
        """Return the figures as Markdown."""
        lines = ['| figure | measured | must reach | |', '|---|---|---|---|']
        return '\n'.join(lines + [figure.row() for figure in self.figures])


class GpuCheck:
    """The steps of the check; each may fail without stopping the others."""

    def __init__(self, options: CheckOptions, say: Say) -> None:
        self._options = options
        self._say = say
        self._views: List[ImageView] = []
        self.findings = Findings()

    def run(self) -> Findings:
        """Run all steps and return what they found."""
        Path(self._options.engines).mkdir(parents=True, exist_ok=True)
        self._step('environment', self._environment)
        if self._options.precisions:
            self._compare_precisions()
            return self.findings
        engines = {}
        for tag, precision, quantized, calibrated in VARIANTS:
            path = self._step(f'engine {tag}', lambda: self._engine(
                self._options.model, tag, precision, quantized, calibrated))
            if path is not None:
                engines[tag] = path
        if 'fp16' in engines:
            self._step('speed', lambda: self._speed(engines['fp16'], 1.35))
        if self._options.large is not None:
            path = self._step('engine of the large model', lambda: self._engine(
                self._options.large, 'fp16', 'fp16', False, False))
            if path is not None:
                self._step('speed of the large model', lambda: self._speed(path, 1.25))
                several = self._step(f'engine for {CAMERAS} cameras', lambda: self._engine(
                    self._options.large, f'fp16-b{CAMERAS}', 'fp16', False, False, CAMERAS))
                if several is not None:
                    self._step('several cameras', lambda: self._cameras(path, several))
        for model in self._options.tasks:
            path = self._step(f'engine of {Path(model).name}', lambda: self._engine(
                model, 'fp16', 'fp16', False, False))
            if path is not None:
                self._step(f'task of {Path(model).name}', lambda: self._task_speed(path))
        self._step('accuracy', lambda: self._accuracy(engines))
        self._step('kernels', self._kernels)
        if 'fp16' in engines:
            self._step('leaks', lambda: self._leaks(engines['fp16']))
            self._step('recovery', lambda: self._recovery(engines['fp16']))
        return self.findings

    def _step(self, name: str, work: Callable[[], Any]) -> Any:
        """Do one step and say its figures at once; a failure is a figure, too."""
        self._say(f'== {name}')
        figures, known = self.findings.figures, len(self.findings.figures)
        result = None
        try:
            result = work()
        except Exception as error:  # the other steps may still tell something
            if not isinstance(error, (UserError, BackendError)):
                traceback.print_exc()
            figures.append(Figure(name, f'failed: {str(error)[:120]}', 'to run', False))
        for figure in figures[known:]:
            self._say(figure.row())
        return result

    def _environment(self) -> None:
        import pycuda
        from yolojet_ros.inference.tensorrt_network import import_tensorrt
        device = Device(self._options.device)
        found = {
            'GPU': device.name, 'compute capability': list(device.capability),
            'multiprocessors': device.multiprocessors, 'CUDA driver': device.driver_version,
            'driver': driver_release(), 'TensorRT': import_tensorrt().__version__,
            'PyCUDA': pycuda.VERSION_TEXT}
        device.close()
        self.findings.details['environment'] = found
        self._say(', '.join(f'{key} {value}' for key, value in found.items()))

    def _kernels(self) -> None:
        device = Device(self._options.device)
        details = self.findings.details
        try:
            with device.current():
                for mapped in (False, True):
                    found = kernel_check.check_letterbox(
                        device, np.random.default_rng(1), 4, mapped)
                    details[f'letterbox, mapped {mapped}'] = {
                        name: asdict(value) for name, value in found.items()}
                    worst = max(value.pixels for value in found.values())
                    self.findings.add(
                        f'letterbox kernel vs twin, {len(found)} encodings'
                        + (', mapped memory' if mapped else ''), worst, 1.0 + 1e-3, '/255')
                heads = kernel_check.check_decode(device, np.random.default_rng(2), self._options.kernel_rounds)
        finally:
            device.close()
        details['decode and NMS'] = {name: asdict(value) for name, value in heads.items()}
        same = all(value.same_sets for value in heads.values())
        self.findings.add('decode + NMS kernels vs twin, boxes',
                          max(value.box_px for value in heads.values()), 0.01, ' px', digits=5)
        self.findings.figures.append(Figure(
            'decode + NMS kernels vs twin, kept set', 'identical' if same else 'different',
            'identical', same))
        self.findings.add('keypoints vs twin', max(
            value.keypoint_px for value in heads.values()), 0.01, ' px', digits=5)
        self.findings.add('rotated boxes vs twin, px and rad', max(
            value.rotated for value in heads.values()), 0.01, digits=5)
        self.findings.add('masks vs twin, equal pixels', 100 * min(
            value.mask for value in heads.values()), 99.9, ' %', least=True)

    def _engine(
        self, onnx: str, tag: str, precision: str, quantized: bool, calibrated: bool,
        batch: Optional[int] = None,
    ) -> Path:
        """Build an engine, or take the one that is there; verified when it was built."""
        options = self._options
        if quantized:
            onnx = options.quantized or self._quantize(onnx)
        out = Path(options.engines) / f'{Path(onnx).stem}.{tag}.engine'
        card = EngineCard.load(out) if out.is_file() else None
        if card is None or card.onnx_sha256 != sha256(onnx):
            card = workflow.build_engine(resolve(Options(
                onnx, options.profile, str(out), precision, batch=batch,
                calibration=self._calibration_folder() if calibrated else None,
                num_calib=options.calibration_images,
                optimization_level=options.optimization_level,
                tactic_sources=options.tactic_sources, device=options.device,
                float_input=options.float_input,
                reference=None if quantized else options.reference)), self._say, self._say)
        found = card.verification
        self.findings.details[f'engine {out.stem}'] = asdict(card)
        name = f'{Path(onnx).stem} {tag}: verified against ONNX Runtime'
        if 'skipped' in found:
            self.findings.figures.append(Figure(name, f'skipped: {found["skipped"][:80]}'))
        else:
            self.findings.figures.append(Figure(
                name, f'score {found["score_error"]:.5f}, box {found["box_error_px"]:.3f} px, '
                f'{100 * found["matched"]:.1f} % of {found["sure"]} found again; built in '
                f'{card.build_seconds:.0f} s, '
                f'{card.latency_ms.get("median", float("nan")):.3f} ms a run',
                'agrees', bool(found['passed'])))
        return out

    def _quantize(self, onnx: str) -> str:
        from yolojet_ros.model import calibration, onnx_file, quantization
        from yolojet_ros.model.calibration_images import network_inputs
        model = quantization.prepare(onnx_file.load(Path(onnx)), onnx)
        tensors = quantization.calibrated(model, quantization.quantizable(model))
        images = network_inputs(
            self._calibration_folder(), min(128, self._options.calibration_images),
            onnx_file.card(model, onnx))
        thresholds = calibration.calibrate(model, tensors, images, 'percentile')
        path = Path(self._options.engines) / f'{Path(onnx).stem}_int8.onnx'
        onnx_file.save(quantization.quantize(model, thresholds, 'percentile'), path)
        return str(path)

    def _calibration_folder(self) -> str:
        """Render the calibration stills once; in one process that would take minutes."""
        import cv2
        from yolojet_ros.model.data import CALIBRATION_SEED, scene_stills
        folder = Path(self._options.engines) / 'calibration'
        count = self._options.calibration_images
        if not folder.is_dir() or len(list(folder.iterdir())) < count:
            folder.mkdir(exist_ok=True)
            for index, still in enumerate(scene_stills(
                    count, CALIBRATION_SEED, workers=workers())):
                cv2.imwrite(str(folder / f'{index:05d}.png'), still.image)
        return str(folder)

    def _frames(self) -> List[ImageView]:
        """Return views of stills at camera size, enough to not lie in a cache of one frame."""
        if not self._views:
            from yolojet_ros.model.data import scene_stills, TEST_SEED
            self._views = [ImageView.from_bgr(np.ascontiguousarray(still.image))
                           for still in scene_stills(8, TEST_SEED, SOURCE_SIZE)]
        return self._views

    def _speed(self, engine: Path, most: float) -> None:
        views, runs = self._frames(), self._options.frames
        uncached = [replace(view, data=view.data.copy()) for view in islice(
            cycle(views), min(_UNCACHED, runs))]
        found: Dict[str, Any] = {}
        backend = TensorRTBackend(engine, self._options.device)
        size = '{}x{}'.format(*backend.card.input_size)
        try:
            selection = FilterParams().resolve(backend.card.names)
            with backend.device.current():
                session = Session(backend.device, backend.network, backend.heads)
                found['copy'] = benchmark.copies(
                    backend.device, [view.data for view in views], runs)
                found['engine'] = benchmark.engine_alone(session, runs)
                found['pipeline'] = benchmark.pipeline(backend, views, selection, runs)
                found['uncached copy'] = benchmark.copies(
                    backend.device, [view.data for view in uncached], runs)
                found['uncached pipeline'] = benchmark.pipeline(
                    backend, uncached, selection, runs)
                found['twins'] = benchmark.host_twins(
                    session, backend, views, selection, max(runs // 10, 20))
                # Again after the others: the floor of one moment must not favour either side.
                found['engine again'] = benchmark.engine_alone(session, runs)
                session.close()
            found['steps'] = benchmark.stages(backend, views[0], selection, runs)
            found['found'] = len(backend.detect(views[0], selection, StageTimes()))
        finally:
            backend.close()
        backend = TensorRTBackend(engine, self._options.device, depth=2)
        try:
            found['per_second_depth_2'] = benchmark.throughput(backend, views, selection, runs)
        finally:
            backend.close()
        self.findings.details[f'speed {engine.stem}'] = found
        self._speed_figures(size, most, found, engine)

    def _speed_figures(self, size: str, most: float, found: Dict[str, Any], engine: Path) -> None:
        add = self.findings.add
        alone = min(found['engine']['median'], found['engine again']['median'])
        steps = found['steps']
        add(f'{size} engine alone, graph replay, median', alone, unit=' ms')
        # What a camera sends was just written by another core, or lies in no cache at all.
        for kind, label, limit in (
                ('uncached ', 'image in no cache', _MOST_UNCACHED.get(size, most)),
                ('', 'image in a cache', most)):
            way, copy = min(((name, times['median']) for name, times
                             in found[f'{kind}copy'].items()), key=lambda item: item[1])
            times = found[f'{kind}pipeline']
            add(f'{size} fastest copy of {SOURCE_SIZE[0]}x{SOURCE_SIZE[1]} bgr8 ({way}), {label}, '
                'median', copy, unit=' ms')
            add(f'{size} whole pipeline, {label}, median', times['median'], unit=' ms')
            add(f'{size} whole pipeline, {label}, p99', times['p99'], unit=' ms')
            add(f'{size} whole pipeline / floor, {label}', times['median'] / (alone + copy), limit)
        median = found['pipeline']['median']
        kernels = steps['letterbox'] + steps['decode + NMS']
        add(f'{size} letterbox + decode + NMS', kernels, unit=' ms')
        add(f'{size} letterbox + decode + NMS / engine', 100 * kernels / steps['network'],
            25 if size == '640x640' else None, ' %', digits=1)
        rate = max(found['engine']['per_second'], found['engine again']['per_second'])
        add(f'{size} throughput with depth 2', found['per_second_depth_2'], unit=' /s', digits=0)
        add(f'{size} throughput with depth 2 / engine only',
            100 * found['per_second_depth_2'] / rate, 90, ' %', least=True, digits=1)
        add(f'{size} NumPy letterbox and NMS around the same engine / ours',
            found['twins']['median'] / median, 4, 'x', least=True, digits=2)
        if not self.findings.passed:
            self._explain(engine)

    def _cameras(self, single: Path, several: Path) -> None:
        """Compare runs of several images with as many runs of one."""
        found: Dict[str, Any] = {}
        views, runs = self._frames(), max(self._options.frames // CAMERAS, 20)
        for depth in (1, 2):
            for name, engine in (('single', single), ('several', several)):
                backend = TensorRTBackend(engine, self._options.device, depth)
                try:
                    found[f'{name}, depth {depth}'] = dict(
                        benchmark.numbers_of_images(backend, views, runs),
                        size=backend.card.input_size, memory=self._memory(backend)[0])
                finally:
                    backend.close()
        self.findings.details[f'cameras {several.stem}'] = found
        add = self.findings.add
        one, four = (found[f'{name}, depth 1'] for name in ('single', 'several'))
        deep = [found[f'{name}, depth 2'] for name in ('single', 'several')]
        name = '{}x{}'.format(*one['size'])
        rates = one['rates'][1], four['rates'][CAMERAS]
        add(f'{name} runs of one image, batch 1', rates[0], unit=' images/s', digits=0)
        add(f'{name} runs of one image, batch 1 to {CAMERAS}', four['rates'][1],
            unit=' images/s', digits=0)
        add(f'{name} runs of {CAMERAS} images', rates[1], unit=' images/s', digits=0)
        add(f'{name} runs of {CAMERAS} images / of one', rates[1] / rates[0], 1.8, 'x',
            least=True, digits=2)
        add(f'{name} runs of {CAMERAS} images / of one, depth 2',
            deep[1]['rates'][CAMERAS] / deep[0]['rates'][1], unit='x', digits=2)
        add(f'{name} GPU memory in use, batch 1', one['memory'] / 2**20, unit=' MiB', digits=0)
        add(f'{name} GPU memory in use, batch {CAMERAS} / 1', four['memory'] / one['memory'],
            1.3, 'x', digits=2)
        changed = four['changes']
        add(f'{name} results that change with the other images of a run',
            100 * changed['neighbours'], 0, ' %', digits=2)
        add(f'{name} results that change with the number of images in a run',
            100 * changed['number'], unit=' %', digits=2)

    def _compare_precisions(self) -> None:
        options, rows = self._options, []
        for batch in options.batches:
            for kind in options.precisions:
                row = self._step(f'{kind}, batch {batch}', lambda: precision_table.measure(
                    self._engine(options.large, f'{kind}-b{batch}', kind, kind == 'int8', False,
                                 batch), kind, batch, options.frames, options.device))
                if row is not None:
                    rows.append(row)
                    self._say(row.line())  # the rest takes minutes
        self._say(precision_table.table(rows))
        self.findings.details['precisions'] = [asdict(row) for row in rows]
        for batch, time, rate in precision_table.int8_gains(rows):
            self.findings.add(f'batch {batch}: time of INT8 / FP16', time,
                              0.92 if batch == 1 else None, 'x')
            self.findings.add(f'batch {batch}: images/s of INT8 / FP16', rate,
                              1.25 if batch == 16 else None, 'x', least=True)

    def _task_speed(self, engine: Path) -> None:
        """Measure what a task adds to a frame, for as many objects as _OBJECTS."""
        backend = TensorRTBackend(engine, self._options.device)
        view, runs = self._frames()[0], self._options.frames
        try:
            card = backend.card
            table = Table(backend.look(view), card.head)
            scores = table.class_scores().max(axis=0)
            # Weights may be random: the best rows are taken for objects.
            least = float(np.sort(scores)[-min(_CANDIDATES, scores.size)])
            selection = FilterParams(
                score_threshold=least, iou_threshold=0.9,
                max_detections=_OBJECTS).resolve(card.names)
            steps = benchmark.stages(backend, view, selection, runs)
            found = backend.detect(view, selection, StageTimes())
        finally:
            backend.close()
        name = '{} {}x{}, {} objects'.format(card.task, *card.input_size, len(found))
        self.findings.details[f'task {engine.stem}'] = dict(steps, found=len(found))
        self.findings.add(f'{name}: engine alone', steps['network'], unit=' ms')
        extras, nms = steps['masks, keypoints, angles'], steps['decode + NMS']
        if card.task == 'obb':
            self.findings.add(f'{name}: rotated decode + NMS / engine',
                              100 * (nms + extras) / steps['network'], 5, ' %', digits=1)
        else:
            self.findings.add(f'{name}: decode + NMS / engine', 100 * nms / steps['network'],
                              None, ' %', digits=1)
            what = 'masks at image size' if card.task == 'segment' else 'keypoints'
            self.findings.add(f'{name}: {what} / engine', 100 * extras / steps['network'],
                              25 if card.task == 'segment' else 5, ' %', digits=1)

    def _explain(self, engine: Path) -> None:
        """Say where the time of a missed figure goes."""
        with inspection.opened(engine, self._options.device) as opened:
            self._say(layers.times_table(layers.layer_times(opened.session), 12))
        self._say(json.dumps(self.findings.details.get(f'speed {engine.stem}'), indent=1))

    def _leaks(self, engine: Path) -> None:
        views = self._frames()
        backend = TensorRTBackend(engine, self._options.device, depth=2)
        try:
            selection = FilterParams().resolve(backend.card.names)
            benchmark.throughput(backend, views, selection, 300)
            before = self._memory(backend)
            benchmark.throughput(backend, views, selection, self._options.leak_frames)
            after = self._memory(backend)
        finally:
            backend.close()
        self.findings.details['memory'] = {'before': before, 'after': after}
        frames = self._options.leak_frames
        self.findings.add(f'GPU memory growth over {frames} frames',
                          (after[0] - before[0]) / 2**10, 0, ' KiB', digits=0)
        # The allocator of Python may move by a few pages; a leak of one box a frame would not fit.
        self.findings.add(f'host memory growth over {frames} frames',
                          (after[1] - before[1]) / 2**10, 64, ' KiB', digits=0)

    def _memory(self, backend: TensorRTBackend) -> Tuple[int, int]:
        with backend.device.current():
            free, total = backend.device.memory()
        pages = int(Path('/proc/self/statm').read_text().split()[1])
        return total - free, pages * os.sysconf('SC_PAGE_SIZE')

    def _recovery(self, engine: Path) -> None:
        """Run out of memory, then configure again."""
        device = Device(self._options.device)
        refused = False
        try:
            with device.current():
                device.allocate(device.memory()[1] * 2)
        except BackendError as error:
            refused = 'out of memory' in str(error)
        finally:
            device.close()
        backend = TensorRTBackend(engine, self._options.device)
        selection = FilterParams().resolve(backend.card.names)
        backend.detect(self._frames()[0], selection, StageTimes())
        backend.close()
        self.findings.figures.append(Figure(
            'out of memory is told, and the engine loads afterwards',
            'yes' if refused else 'no', 'yes', refused))

    def _accuracy(self, engines: Dict[str, Path]) -> None:
        """Compare mAP on held-out stills with the FP32 model in ONNX Runtime."""
        from yolojet_ros.inference.onnxruntime_backend import OnnxRuntimeBackend
        from yolojet_ros.model.data import scene_stills, TEST_SEED
        from yolojet_ros.model.coco_scorer import CocoScorer
        from yolojet_ros.model.evaluation import low_threshold_selection
        backends = {'onnx': OnnxRuntimeBackend(self._options.model)}
        try:
            for tag, path in engines.items():
                backends[tag] = TensorRTBackend(path, self._options.device)
            names = backends['onnx'].card.names
            selection = low_threshold_selection(names)
            scorers = {tag: CocoScorer(names) for tag in backends}
            for still in scene_stills(self._options.images, TEST_SEED, workers=workers()):
                view = ImageView.from_bgr(np.ascontiguousarray(still.image))
                for tag, backend in backends.items():
                    scorers[tag].add(still.boxes, still.classes, still.clear,
                                     backend.detect(view, selection, StageTimes()))
        finally:
            for backend in backends.values():
                backend.close()
        scores = {tag: 100 * scorer.accuracy().map for tag, scorer in scorers.items()}
        self.findings.details['mAP50-95'] = scores
        self.findings.add(f'mAP50-95 of the FP32 model in ONNX Runtime, {self._options.images} '
                          'stills', scores['onnx'], digits=2)
        limits = {'fp16': 0.1, 'int8-qdq': 1.0, 'int8-calibrated': 1.0}
        for tag in engines:
            self.findings.add(f'mAP50-95 lost by {tag}', scores['onnx'] - scores[tag],
                              limits.get(tag), ' points')


def workers() -> int:
    """Return how many processes may render."""
    return max((os.cpu_count() or 1) - 1, 0)


def driver_release(path: Path = Path('/proc/driver/nvidia/version')) -> str:
    """Return the release of the NVIDIA driver, '' where it does not tell."""
    try:
        words = path.read_text().split()
        return next(word for word in words if word.count('.') >= 1 and word[0].isdigit())
    except (OSError, StopIteration):
        return ''


def save(findings: Findings, path: str) -> None:
    """Write the table and all details as JSON."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(
            {'figures': [asdict(figure) for figure in findings.figures],
             'details': findings.details}, indent=1, default=float) + '\n', encoding='utf-8')


def check(options: CheckOptions, say: Say) -> Findings:
    """
    Run the whole check.

    :param say: gets progress, one line at a time
    :raises UserError: if there is no model, GPU or TensorRT to check.
    """
    for path in filter(None, (options.model, options.large, options.quantized, *options.tasks)):
        if not Path(path).is_file():
            raise UserError(f'no model at {path}; give the path of an ONNX file')
    if options.precisions and options.large is None:
        raise UserError('--precisions compares engines of the model --large; give that, too')
    Device(options.device).close()
    return GpuCheck(options, say).run()
