"""`bench --flood`: what becomes of more images than the node can work on."""

from __future__ import annotations

from pathlib import Path
import tempfile
import time
from typing import Any, Dict, List, Sequence, Tuple

from yolojet_ros.cli.chain import wait_for
from yolojet_ros.cli.flood_camera import Senders
from yolojet_ros.cli.heard import counted, Heard, heard, percentile, print_table
from yolojet_ros.cli.processes import cpu_seconds, nodes

_COLUMNS = (
    ('asked', '{asked:.0f}'), ('sent/s', '{sent_hz:.0f}'), ('results/s', '{results_hz:.1f}'),
    ('of best', '{percent_of_best:.0f} %'),
    ('p50', '{latency_ms_p50:.1f}'), ('p99', '{latency_ms_p99:.1f}'),
    ('age p50', '{age_ms_p50:.1f}'), ('p99', '{age_ms_p99:.1f}'),
    ('node', '{node_cpu_ms:.1f}'), ('sender', '{sender_cpu_ms:.1f}'),
    ('all sent', '{all_sent}'), ('received', '{all_received}'),
    ('superseded', '{all_dropped_superseded}'), ('lost', '{all_lost_in_middleware}'))
_ALL = 0.9  # of what was sent; a little is still under way at the end


def measure(
    rates: Sequence[float], seconds: float, size: Tuple[int, int], detector: Dict[str, Any],
) -> List[Dict[str, Any]]:
    """
    Flood one detector with each rate in turn.

    :param rates: images in a second
    :param seconds: that each is measured for
    :param detector: parameters of the node
    :return: for each rate: what was sent and came back in a second; milliseconds from stamp to
        result received and (`age`) published, None where nothing or no time came; milliseconds
        of CPU, of the node for each result, of the sender for each image; `stages_ms_p50` of the
        last results, None where there were fewer than it is the median of; `all_`: what was sent
        and the node's counts of it, with the warm-up before the time that is measured;
        `percent_of_best` results, None where nearly all that was sent came out, or of one rate
    :raises UserError: if a process fails, with its last words.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix='yolojet-bench-') as folder, \
            nodes(Path(folder), 'flood') as running:
        process = running.start('detector', {'autostart': True, **detector})
        wait_for(running, 'detector', process, 'waiting for images')
        with heard([running.namespace]) as results:
            for rate in rates:
                rows.append(_flood(running.namespace, process.pid, results, rate, seconds, size))
                running.check('detector', process)
    best = max(row['results_hz'] for row in rows) if len(rows) > 1 else 0
    for row in rows:
        missed = row['results'] < _ALL * row['sent']
        row['percent_of_best'] = (
            round(100 * row['results_hz'] / best, 1) if missed and best else None)
    return rows


def _flood(
    namespace: str, pid: int, results: Heard, rate: float, seconds: float,
    size: Tuple[int, int],
) -> Dict[str, Any]:
    import numpy as np

    from yolojet_ros.ros.statistics import WINDOW
    counts = results.counts()[namespace]
    with Senders([f'{namespace}/image_raw'], *size, rate, seconds) as senders:
        senders.begin()
        used = cpu_seconds(pid)
        sent = senders.end()[0]
        used = cpu_seconds(pid) - used
        last = time.time_ns()
    after = results.counts()[namespace]
    all_counts = counted(counts, after)
    # What was finished in the time, whenever it was sent: a result may be late, but not early.
    latencies, ages = zip(*[
        ((came - stamp) * 1e-6, (published - stamp) * 1e-6)
        for _, stamp, published, came in results.take() if stamp >= sent.first and came <= last
    ] or [(np.nan, np.nan)])
    done = int(np.isfinite(latencies).sum())

    return {
        'asked': rate,
        'sent': sent.sent, 'sent_hz': round(sent.sent / sent.seconds, 2),
        'results': done, 'results_hz': round(done / sent.seconds, 2),
        'latency_ms_p50': percentile(latencies, 50), 'latency_ms_p99': percentile(latencies, 99),
        'age_ms_p50': percentile(ages, 50), 'age_ms_p99': percentile(ages, 99),
        'node_cpu_ms': round(1e3 * used / max(done, 1), 3),
        'sender_cpu_ms': round(sent.cpu_ms / max(sent.sent, 1), 3),
        # The node looks back on so many results, whatever was asked for before.
        'stages_ms_p50': results.stages(namespace)
        if all_counts['all_processed'] >= WINDOW else None,
        'all_sent': sent.warm_up + sent.sent, **all_counts}


def print_rows(rows: Sequence[Dict[str, Any]]) -> None:
    """Print the table."""
    print_table(_COLUMNS, rows)
