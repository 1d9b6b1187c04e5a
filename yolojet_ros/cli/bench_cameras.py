"""`bench --cameras`: several cameras through one node, against a node for each."""

from __future__ import annotations

from pathlib import Path
import shutil
import subprocess
import tempfile
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

from yolojet_ros.cli.chain import wait_for
from yolojet_ros.cli.flood_camera import Senders
from yolojet_ros.cli.heard import counted, Heard, heard, percentile, print_table
from yolojet_ros.cli.processes import cpu_seconds, nodes, resident_bytes

_COLUMNS = (
    ('', '{what}'), ('sent/s', '{sent_hz:.1f}'), ('results/s', '{results_hz:.1f}'),
    ('least camera', '{least_hz:.1f}'), ('p50', '{latency_ms_p50:.1f}'),
    ('p99', '{latency_ms_p99:.1f}'), ('CPU', '{cpu_percent:.0f} %'),
    ('memory', '{memory_mb:.0f} MB'), ('GPU', '{gpu_mb} MB'),
    ('all sent', '{all_sent}'), ('superseded', '{all_dropped_superseded}'),
    ('lost', '{all_lost_in_middleware}'))


def measure(
    cameras: int, rate: float, seconds: float, size: Tuple[int, int], detector: Dict[str, Any],
) -> List[Dict[str, Any]]:
    """
    Run one camera in one node, so many in one node, and so many with a node each.

    :param rate: images in a second, of each camera
    :param detector: parameters of the nodes
    :return: for each: what was sent and came back in a second, of all cameras and of the slowest;
        milliseconds from stamp to result; `all_`: what was sent and the nodes' counts of it, of
        all cameras and with the warm-up before what is measured; percent of a core, and MB of
        all nodes; MB that the GPU has lost, None without
    :raises UserError: if a process fails, with its last words.
    """
    names = [f'camera_{index}' for index in range(cameras)]
    several = f'{cameras} camera' + 's' * (cameras > 1)
    return [
        _measured('one camera', [('', names[:1])], rate, seconds, size, detector),
        _measured(f'{several}, one node', [('', names)], rate, seconds, size, detector),
        _measured(f'{several}, a node each', [(name, []) for name in names], rate,
                  seconds, size, detector)]


def _measured(
    what: str, arrangement: Sequence[Tuple[str, Sequence[str]]], rate: float, seconds: float,
    size: Tuple[int, int], detector: Dict[str, Any],
) -> Dict[str, Any]:
    """:param arrangement: of each node, the namespace below ours, and the names of its cameras."""
    before = _gpu_megabytes()
    with tempfile.TemporaryDirectory(prefix='yolojet-bench-') as folder, \
            nodes(Path(folder), 'cameras') as running:
        processes, prefixes = [], []
        for below, cameras in arrangement:
            process = running.start('detector', {
                'autostart': True, **({'cameras': list(cameras)} if cameras else {}), **detector},
                below=below)
            wait_for(running, f'detector{below}', process, 'waiting for images')
            processes.append(process)
            base = '/'.join(filter(None, (running.namespace, below)))
            prefixes += [f'{base}/{name}' for name in cameras] or [base]
        with heard(prefixes) as results:
            row = _row(prefixes, [process.pid for process in processes], results, rate, seconds,
                       size)
        row['memory_mb'] = sum(resident_bytes(process.pid) for process in processes) / 1e6
        row['gpu_mb'] = None if before is None else _gpu_megabytes() - before
        for (below, _), process in zip(arrangement, processes):
            running.check(f'detector{below}', process)
    return {'what': what, **row}


def _row(
    prefixes: Sequence[str], pids: Sequence[int], results: Heard, rate: float, seconds: float,
    size: Tuple[int, int],
) -> Dict[str, Any]:
    import numpy as np
    counts = results.counts()
    with Senders([f'{prefix}/image_raw' for prefix in prefixes], *size, rate, seconds) as senders:
        senders.begin()
        used, start = sum(map(cpu_seconds, pids)), time.monotonic()
        sent = senders.end()
        used, wall = sum(map(cpu_seconds, pids)) - used, time.monotonic() - start
        last = time.time_ns()
    after = results.counts()
    firsts = {prefix: one.first for prefix, one in zip(prefixes, sent)}
    came = [(prefix, (received - stamp) * 1e-6) for prefix, stamp, _, received in results.take()
            if stamp >= firsts[prefix] and received <= last]
    latencies = [latency for _, latency in came] or [np.nan]
    each = [sum(prefix == other for other, _ in came) for prefix in prefixes]
    both = [counted(counts[prefix], after[prefix]) for prefix in prefixes]
    return {
        'sent_hz': round(sum(one.sent / one.seconds for one in sent), 2),
        'results_hz': round(len(came) / wall, 2), 'least_hz': round(min(each) / wall, 2),
        'latency_ms_p50': percentile(latencies, 50), 'latency_ms_p99': percentile(latencies, 99),
        'cpu_percent': round(100 * used / wall, 1),
        'all_sent': sum(one.warm_up + one.sent for one in sent),
        **{key: sum(one[key] for one in both) for key in both[0]}}


def _gpu_megabytes() -> Optional[int]:
    """Return what is in use on all GPUs, None where there is none."""
    if not shutil.which('nvidia-smi'):
        return None
    done = subprocess.run(
        ['nvidia-smi', '--query-gpu=memory.used', '--format=csv,noheader,nounits'],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return sum(map(int, done.stdout.split())) if done.returncode == 0 else None


def print_rows(rows: Sequence[Dict[str, Any]]) -> None:
    """Print the table."""
    print_table(_COLUMNS, rows)
