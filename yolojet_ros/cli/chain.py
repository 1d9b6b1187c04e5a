"""Run camera, detector and monitor as nodes for a while and return the figures."""

from __future__ import annotations

from pathlib import Path
import time
from typing import Any, Dict

from yolojet_ros.cli.processes import nodes, Nodes
from yolojet_ros.core.errors import RunFailed, UserError

_START_SECONDS = 30
_MOST_SECONDS = 1e6  # what the monitor takes
RESULTS = ('summary.json', 'annotated.png', 'annotated.mp4')


def run_chain(
    out: Path, purpose: str, seconds: float, detector: Dict[str, Any], camera: Dict[str, Any],
    draw: bool = True,
) -> Dict[str, Any]:
    """
    Run the chain and return the monitor's summary.

    :param out: folder for results and logs; exists
    :param purpose: what the namespace of this run begins with
    :param seconds: how long the camera publishes
    :param detector: parameters of the detector node
    :param camera: parameters of the camera node
    :param draw: leave annotated.png and annotated.mp4
    :raises UserError: if a node fails, with its last words.
    :raises RunFailed: if a node is ended by somebody else.
    """
    if not 0 < seconds <= _MOST_SECONDS:
        raise UserError(f'the duration is {seconds:g} s; give more than 0, at most '
                        f'{_MOST_SECONDS:g}')
    for name in RESULTS:
        (out / name).unlink(missing_ok=True)
    with nodes(out, purpose) as running:
        detecting = running.start('detector', {'autostart': True, **detector})
        monitor = running.start(
            'monitor', {'out': out, 'seconds': float(seconds), 'draw': draw}, show=True)
        wait_for(running, 'detector', detecting, 'waiting for images')
        wait_for(running, 'monitor', monitor, 'watching')
        filming = running.start('camera', {
            'duration': float(seconds), 'wait_for_subscribers': 1 + draw, **camera})
        end = time.monotonic() + seconds + _START_SECONDS
        while monitor.poll() is None:
            if time.monotonic() > end:
                raise UserError(f'the run did not end within {_START_SECONDS} s of its time; '
                                f'see the logs in {out}')
            running.check('camera', filming)
            running.check('detector', detecting)
            time.sleep(0.1)
        running.check('monitor', monitor)
        return running.result('monitor', out / 'summary.json')


def wait_for(running: Nodes, name: str, process: Any, words: str) -> None:
    """Wait until a node listens, so that not a single message is lost to its start."""
    end = time.monotonic() + _START_SECONDS
    log = running.log(name)
    while True:
        lines = log.read_text(errors='replace').splitlines()
        if any(words in line for line in lines):
            return
        for line in lines:
            if 'cannot configure: ' in line:
                raise UserError(line.split('cannot configure: ', 1)[1])
            if 'is no parameter of this node' in line:  # so not what was asked for would run
                raise UserError(line.split(']: ', 1)[-1])
        running.check(name, process)
        if process.poll() == 0:
            raise RunFailed(f'the {name} node was ended before it was ready; see {log}')
        if time.monotonic() > end:
            raise UserError(f'the {name} was not ready after {_START_SECONDS} s; see {log}')
        time.sleep(0.05)
