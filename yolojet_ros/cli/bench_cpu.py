"""`bench --cpu`: what threads and spinning of ONNX Runtime cost, and cost others."""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys
import time
from typing import Callable, Iterator, List, Tuple

_RATE = 30.0  # images in a second
_SIZE = (1280, 720)
_WARM_UP = 10
_TURNS = 3
# Another node: it works as fast as it can, and says how many rounds it did when asked to stop.
_NEIGHBOUR = """
import signal, sys, time
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
print('ready', flush=True)
rounds, start = 0, time.perf_counter()
while not stop:
    sum(range(2000))
    rounds += 1
print(rounds / (time.perf_counter() - start), flush=True)
"""


class _Cell:
    """
    What was measured of one setting among so many other processes, in several turns.

    times: milliseconds from image to boxes
    cpu: milliseconds of all cores, spinning between the frames included, and frames
    theirs: rounds a second of the others, while frames run and undisturbed
    """

    def __init__(self) -> None:
        self.times: List[float] = []
        self.cpu, self.frames = 0.0, 0
        self.theirs: List[Tuple[float, float]] = []

    def text(self) -> str:
        """Return the cell of the table."""
        import numpy as np
        p50, p99 = np.percentile(self.times, (50, 99))
        share = ''
        if self.theirs:
            disturbed, undisturbed = np.sum(self.theirs, axis=0)
            share = f'{100 * disturbed / undisturbed:.0f} %'
        return f' {p50:6.2f} {p99:6.2f} {self.cpu / self.frames:5.1f} {share:>6}'


def measure(model: Path, seconds: float) -> None:
    """Print the table; every setting runs for `seconds` in every column, in turns."""
    from yolojet_ros.inference.onnxruntime_backend import OnnxRuntimeBackend

    views, cores, turn = _views(), os.cpu_count() or 1, seconds / _TURNS
    crowds = sorted({0, 1, cores})
    settings = list(_settings(cores))
    cells = {(setting, crowd): _Cell() for setting in settings for crowd in crowds}
    for _ in range(_TURNS):
        undisturbed = {crowd: _speed(crowd, lambda: time.sleep(turn)) for crowd in crowds}
        for setting in settings:
            backend = OnnxRuntimeBackend(model, *setting)
            try:
                for crowd in crowds:
                    cell = cells[setting, crowd]
                    speed = _speed(crowd, lambda: _frames(backend, views, turn, cell))
                    if crowd:
                        cell.theirs.append((speed, undisturbed[crowd]))
            finally:
                backend.close()
    print(f'{model.name}, {_SIZE[0]}x{_SIZE[1]} bgr8 at {_RATE:g} Hz, {cores} cores; '
          'milliseconds from image to boxes, of CPU a frame, and the speed left to the others')
    print(f'{"":18}' + ''.join(f'{f"beside {crowd} busy processes":>27}' for crowd in crowds))
    print(f'{"threads, spinning":18}' + ''.join(
        f' {"p50":>6} {"p99":>6} {"CPU":>5} {"theirs" if crowd else "":>6}' for crowd in crowds))
    for threads, spinning in settings:
        print(f'{threads}, {"on" if spinning else "off":15}' + ''.join(
            cells[(threads, spinning), crowd].text() for crowd in crowds))


def _settings(cores: int) -> Iterator[tuple]:
    counts = sorted({1, max(cores // 2, 1), max(cores - 1, 1), cores})
    for threads in counts:
        # One thread is the caller's own: there is none that could spin.
        for spinning in (False, True) if threads > 1 else (False,):
            yield threads, spinning


def _views() -> list:
    from yolojet_ros.core.image_formats import ImageView
    from yolojet_ros.sim.scene import Scene
    scene = Scene(*_SIZE, seed=1)
    return [ImageView.from_bgr(scene.read().image.copy()) for _ in range(30)]


def _frames(backend, views: list, seconds: float, cell: _Cell) -> None:
    from yolojet_ros.core.filters import FilterParams
    from yolojet_ros.core.stage_times import StageTimes
    selection = FilterParams().resolve(backend.card.names)
    used, due = 0.0, time.perf_counter()
    count = _WARM_UP + max(int(seconds * _RATE), 1)
    for index in range(count):
        if index == _WARM_UP:
            used = time.process_time()
        time.sleep(max(due - time.perf_counter(), 0))
        due = max(due + 1 / _RATE, time.perf_counter())
        start = time.perf_counter()
        backend.detect(views[index % len(views)], selection, StageTimes())
        if index >= _WARM_UP:
            cell.times.append((time.perf_counter() - start) * 1e3)
    time.sleep(max(due - time.perf_counter(), 0))
    cell.cpu += (time.process_time() - used) * 1e3
    cell.frames += count - _WARM_UP


def _speed(crowd: int, work: Callable[[], None]) -> float:
    """Return the rounds a second that so many other processes do while `work()` runs."""
    others = [subprocess.Popen([sys.executable, '-c', _NEIGHBOUR], stdout=subprocess.PIPE)
              for _ in range(crowd)]
    try:
        for process in others:
            process.stdout.readline()
        work()
        for process in others:
            process.terminate()
        return sum(float(process.stdout.readline()) for process in others)
    finally:
        for process in others:
            process.kill()
            process.wait()
            process.stdout.close()
