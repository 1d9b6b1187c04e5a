"""`profile`: image to tracked boxes in this process, as fast as it goes."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
import time
from typing import Any, Dict, List

from yolojet_ros.operate.samplers.recorder import Recorder

_WARM_UP = 20  # images; a GPU also gets its clocks up
_GPU_RUNS = 200
_KEPT = 2000  # latencies in the report, evenly


def measure(model: Path, arguments: argparse.Namespace, recorder: Recorder) -> Dict[str, Any]:
    """Return `model` and `pipeline` of the report."""
    from yolojet_ros.cli.bench_tracking import film
    from yolojet_ros.inference.load import load_backend
    from yolojet_ros.pipeline.detector import Detector
    from yolojet_ros.pipeline.stream import Stream
    from yolojet_ros.tracking import create_tracker
    from yolojet_ros.tracking.camera_motion import CameraMotion

    views = film(arguments.size, True)
    backend = load_backend(model, arguments.backend, arguments.device)
    try:
        card, detector = backend.card, Detector(backend)
        stream = Stream(card, tracker=create_tracker(), camera_motion=CameraMotion())
        latencies: List[float] = []
        stages: Dict[str, List[float]] = {}

        def run(index: int) -> Dict[str, float]:
            view = replace(views[index % len(views)])  # nothing is kept of the last time
            return detector.process(stream, view, index / 30).times.laps

        for index in range(_WARM_UP):
            run(index)
        with recorder.phase('pipeline'):
            begin = time.perf_counter()
            while not latencies or time.perf_counter() - begin < arguments.seconds:
                start = time.perf_counter()
                laps = run(_WARM_UP + len(latencies))
                latencies.append((time.perf_counter() - start) * 1e3)
                for stage, lap in laps.items():
                    stages.setdefault(stage, []).append(lap)
            elapsed = time.perf_counter() - begin
        found: Dict[str, Any] = {
            'images': len(latencies), 'images_per_second': round(len(latencies) / elapsed, 2),
            'latency_ms': percentiles(latencies), 'latencies_ms': thinned(latencies),
            'stages_ms': {stage: percentiles(laps) for stage, laps in stages.items()},
            'use': recorder.use('pipeline')}
        if backend.name == 'tensorrt':
            from yolojet_ros.core.filters import FilterParams
            from yolojet_ros.engine.benchmark import stages as gpu_stages
            selection = FilterParams().resolve(card.names)
            found['gpu_stages_ms'] = {
                stage: round(value, 4) for stage, value in gpu_stages(
                    backend, views[0], selection, _GPU_RUNS).items()}
        return {'pipeline': found, 'model': {
            'file': model.name, 'task': card.task, 'classes': len(card.names),
            'input_size': list(card.input_size), 'backend': backend.name,
            'description': backend.description, 'warnings': list(backend.warnings)}}
    finally:
        backend.close()


def percentiles(values: List[float]) -> Dict[str, float]:
    """Return median and p99, rounded for a report."""
    import numpy as np
    p50, p99 = np.percentile(values, (50, 99))
    return {'p50': round(float(p50), 4), 'p99': round(float(p99), 4)}


def thinned(values: List[float]) -> List[float]:
    """Return at most so many values, evenly chosen, for a histogram."""
    step = max(-(-len(values) // _KEPT), 1)
    return [round(value, 3) for value in values[::step]]
