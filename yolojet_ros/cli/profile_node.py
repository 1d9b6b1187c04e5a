"""`profile`: the real node over DDS, at a steady rate of images."""

from __future__ import annotations

import argparse
from pathlib import Path
import tempfile
import time
from typing import Any, Dict, List, Optional, Sequence

from yolojet_ros.cli.chain import wait_for
from yolojet_ros.cli.flood_camera import Senders
from yolojet_ros.cli.heard import heard
from yolojet_ros.cli.processes import nodes
from yolojet_ros.cli.profile_pipeline import percentiles, thinned
from yolojet_ros.operate.samplers.recorder import Recorder

# One after the other from the image's arrival on; `pipeline` is the sum of its own stages.
_ON_THE_WAY = ('queued', 'take', 'pipeline', 'overhead')


def measure(model: Path, arguments: argparse.Namespace, recorder: Recorder) -> Dict[str, Any]:
    """
    Return `node` of the report.

    :raises UserError: if the node does not start or run, or nothing comes out of it.
    """
    parameters = {'model': model, 'backend': arguments.backend, 'autostart': True,
                  **({'device': arguments.device} if arguments.device else {})}
    with tempfile.TemporaryDirectory(prefix='yolojet-profile-') as folder, \
            nodes(Path(folder), 'profile') as running:
        process = running.start('detector', parameters)
        wait_for(running, 'detector', process, 'waiting for images')
        with heard([running.namespace]) as results, Senders(
                [f'{running.namespace}/image_raw'], *arguments.size, arguments.rate,
                arguments.seconds) as senders:
            senders.begin()
            recorder.watch(process.pid)
            with recorder.phase('node'):
                sent = senders.end()[0]
            recorder.watch(None)
            last = time.time_ns()
            counts = results.counts()[running.namespace]
            came = [item for item in results.take() if item[1] >= sent.first and item[3] <= last]
            stages = {percent: results.stages(running.namespace, percent)
                      for percent in (50, 99)}
        running.check('detector', process)
    latencies = [(received - stamp) * 1e-6 for _, stamp, _, received in came]
    found = {
        'sent': sent.sent, 'results': len(came),
        'images_per_second': round(len(came) / sent.seconds, 2),
        'superseded': counts['dropped_superseded'], 'lost': counts['lost_in_middleware'],
        'latency_ms': percentiles(latencies) if latencies else {'p50': None, 'p99': None},
        'latencies_ms': thinned(latencies), 'use': recorder.use('node'),
        'stages_ms': {stage: {'p50': value, 'p99': stages[99].get(stage)}
                      for stage, value in stages[50].items()}}
    found['transport_ms'] = _transport(came, stages[50])
    return found


def _transport(came: Sequence[tuple], stages: Dict[str, float]) -> Dict[str, Optional[float]]:
    """
    Return medians: `image` from its stamp to the node's queue, `result` to who listens.

    That of the image is what is left of the age of its result, so a difference of medians.
    None where the middleware does not tell when a result was published (Humble).
    """
    ages: List[float] = [(published - stamp) * 1e-6 for _, stamp, published, _ in came
                         if published == published]  # no NaN
    if not ages or not all(stage in stages for stage in _ON_THE_WAY):
        return {'image': None, 'result': None}
    age = percentiles(ages)['p50']
    result = percentiles([(received - published) * 1e-6 for _, _, published, received in came
                          if published == published])['p50']
    known = sum(stages[stage] for stage in _ON_THE_WAY)
    return {'image': round(max(age - known, 0.0), 4), 'result': round(result, 4)}
