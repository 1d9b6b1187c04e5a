"""The benchmark of transports: images of an ordinary camera driver on their way to us."""

from __future__ import annotations

from pathlib import Path
import subprocess
import tempfile
from typing import Dict, List, Mapping, NamedTuple, Optional

from yolojet_ros.cli import plain_camera
from yolojet_ros.cli.processes import nodes
from yolojet_ros.core.errors import UserError


class Case(NamedTuple):
    """One row: a camera, and how many nodes listen to it."""

    width: int
    height: int
    rate: float  # Hz
    qos: str  # reliable, best_effort, transient_local; own: our camera node
    listeners: int = 1


_ORDINARY = ('best_effort', 'reliable', 'transient_local')
CASES = (
    *(Case(640, 480, 10, qos) for qos in _ORDINARY),
    Case(640, 480, 30, 'best_effort'),
    Case(1280, 720, 10, 'best_effort'),
    *(Case(1280, 720, 30, qos) for qos in _ORDINARY),
    Case(1280, 720, 30, 'best_effort', 2),
    Case(1920, 1080, 5, 'best_effort'),
    *(Case(1920, 1080, 30, qos) for qos in _ORDINARY),
    *(Case(3840, 2160, 5, qos) for qos in ('best_effort', 'reliable', 'own')),
    Case(3840, 2160, 10, 'reliable'),
)


def bench_transport(seconds: float) -> int:
    """Print a row for each case and return the exit code."""
    from yolojet_ros.ros import middleware
    said = middleware.prepare_transport()
    print(f'{said}; a socket holds {middleware.socket_buffer() / 1e6:.1f} MB\n'
          f'rgb8 images of a driver with untouched defaults, {seconds:g} s each; from stamp to '
          'callback of a node that converts and answers them\n\n'
          '| camera | size, rate | requested | arrived | p50 / p99 ms | CPU ms an image |\n'
          '|---|---|---|---|---|---|')
    for case in CASES:
        with tempfile.TemporaryDirectory(prefix='yolojet-bench-') as folder:
            count = max(round(case.rate * seconds), 2)
            for row in measure(Path(folder), case, count):
                print(_line(case, count, row), flush=True)
    return 0


def measure(
    folder: Path, case: Case, count: int, environment: Optional[Mapping[str, str]] = None,
) -> List[Dict]:
    """
    Send `count` images and return what each listener found (nodes/echo_node.py).

    :param environment: of an ordinary driver; None for one that configures nothing
    :raises UserError: if a process fails.
    """
    with nodes(folder, 'bench_transport') as running:
        listeners = [
            running.start('echo', {'out': folder / f'echo_{index}.json'}, number=index)
            for index in range(case.listeners)]
        if case.qos == 'own':
            camera = running.start('camera', {
                'source': _picture(folder, case), 'rate': float(case.rate),
                'duration': (count - 0.5) / case.rate, 'wait_for_subscribers': case.listeners,
                'encoding': 'rgb8'})
            camera.wait(count / case.rate + 60)
            running.check('camera', camera)
        else:
            driver = subprocess.run(
                plain_camera.command(case.width, case.height, case.rate, count, case.qos,
                                     case.listeners, running.namespace),
                env=plain_camera.plain_environment() if environment is None else environment,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            if driver.returncode:
                raise UserError(f'the camera ended: {driver.stderr.strip()[-300:]}')
        for listener in listeners:
            running.check('echo', listener)
    return [running.result('echo', folder / f'echo_{index}.json')
            for index in range(case.listeners)]


def _picture(folder: Path, case: Case) -> Path:
    import cv2
    import numpy as np
    path = folder / 'picture.png'
    cv2.imwrite(str(path), np.zeros((case.height, case.width, 3), np.uint8))
    return path


def _line(case: Case, count: int, row: Dict) -> str:
    who = 'our camera node' if case.qos == 'own' else case.qos
    if case.listeners > 1:
        who += f', one of {case.listeners} listeners'
    times = (f'{row["age_ms_p50"]:.1f} / {row["age_ms_p99"]:.1f}' if row['received'] else '-')
    return (f'| {who} | {case.width}x{case.height}, {case.rate:g} Hz | {row["reliability"]} '
            f'| {row["received"]} of {count} | {times} | {row["cpu_ms_an_image"]:.1f} |')
