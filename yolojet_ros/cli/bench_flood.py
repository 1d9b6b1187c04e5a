"""`bench --flood`: what becomes of more images than the node can work on."""

from __future__ import annotations

from contextlib import contextmanager
import json
from pathlib import Path
import struct
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from yolojet_ros.cli import flood_camera
from yolojet_ros.cli.chain import wait_for
from yolojet_ros.cli.processes import cpu_seconds, nodes
from yolojet_ros.core.errors import UserError

_STAMP = struct.Struct('<4xiI')  # of the header of a packed message
_LAST_SECONDS = 2.5  # in which the last results and the diagnostics that count them come
_COUNTS = ('received', 'processed', 'dropped_superseded', 'lost_in_middleware')
_COLUMNS = (
    ('asked', '{asked:.0f}'), ('sent/s', '{sent_hz:.0f}'), ('results/s', '{results_hz:.1f}'),
    ('of best', '{percent_of_best:.0f} %'),
    ('p50', '{latency_ms_p50:.1f}'), ('p99', '{latency_ms_p99:.1f}'),
    ('age p50', '{age_ms_p50:.1f}'), ('p99', '{age_ms_p99:.1f}'),
    ('node', '{node_cpu_ms:.1f}'), ('sender', '{sender_cpu_ms:.1f}'),
    ('received', '{received}'), ('superseded', '{dropped_superseded}'),
    ('lost', '{lost_in_middleware}'))


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
        of CPU, of the node for each result, of the sender for each image; the node's counts,
        with what was sent before and after the time that is measured
    :raises UserError: if a process fails, with its last words.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix='yolojet-bench-') as folder, \
            nodes(Path(folder), 'flood') as running:
        process = running.start('detector', {'autostart': True, **detector})
        wait_for(running, 'detector', process, 'waiting for images')
        with _results(running.namespace) as results:
            for rate in rates:
                rows.append(_flood(running.namespace, process.pid, results, rate, seconds, size))
                running.check('detector', process)
    best = max(row['results_hz'] for row in rows)
    for row in rows:
        row['percent_of_best'] = round(100 * row['results_hz'] / best, 1) if best else None
    return rows


def _flood(
    namespace: str, pid: int, results: _Results, rate: float, seconds: float,
    size: Tuple[int, int],
) -> Dict[str, Any]:
    import numpy as np
    counts = results.counts()
    sender = subprocess.Popen(
        flood_camera.command(f'{namespace}/image_raw', *size, rate, seconds),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        first = _line(sender)['first']
        used = cpu_seconds(pid)
        sent = _line(sender)
        used = cpu_seconds(pid) - used
        last = time.time_ns()
        sender.communicate()
    finally:
        sender.kill()
        sender.wait()
    after = results.counts()
    # What was finished in the time, whenever it was sent: a result may be late, but not early.
    latencies, ages = zip(*[
        ((came - stamp) * 1e-6, (published - stamp) * 1e-6)
        for stamp, published, came in results.take() if stamp >= first and came <= last
    ] or [(np.nan, np.nan)])
    done = int(np.isfinite(latencies).sum())

    def percentile(values: Sequence[float], percent: float) -> Optional[float]:
        value = float(np.percentile(values, percent))
        return round(value, 3) if np.isfinite(value) else None

    return {
        'asked': rate,
        'sent': sent['sent'], 'sent_hz': round(sent['sent'] / sent['seconds'], 2),
        'results': done, 'results_hz': round(done / sent['seconds'], 2),
        'latency_ms_p50': percentile(latencies, 50), 'latency_ms_p99': percentile(latencies, 99),
        'age_ms_p50': percentile(ages, 50), 'age_ms_p99': percentile(ages, 99),
        'node_cpu_ms': round(1e3 * used / max(done, 1), 3),
        'sender_cpu_ms': round(sent['cpu_ms'] / max(sent['sent'], 1), 3),
        **{key: after[key] - counts[key] for key in _COUNTS}}


def _line(sender: subprocess.Popen) -> Dict[str, Any]:
    line = sender.stdout.readline()
    if not line:
        raise UserError(f'the sender ended: {sender.communicate()[1].strip()[-300:]}')
    return json.loads(line)


class _Results:
    """What a detector publishes, taken by a thread of this process."""

    def __init__(self, namespace: str) -> None:
        self._name = f'{namespace}/detector: detector'
        self._lock = threading.Lock()
        self._came: List[Tuple[int, float, int]] = []
        self._reports: List[Dict[str, int]] = []

    def on_result(self, packed: bytes, published: float) -> None:
        now = time.time_ns()
        seconds, nanoseconds = _STAMP.unpack_from(packed)
        with self._lock:
            self._came.append((seconds * 10**9 + nanoseconds, published, now))

    def on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name == self._name:
                values = {item.key: item.value for item in status.values}
                with self._lock:
                    self._reports.append({key: int(values.get(key, 0)) for key in _COUNTS})

    def take(self) -> List[Tuple[int, float, int]]:
        """Return (stamp, published, received) of what came since the last time, in ns."""
        with self._lock:
            came, self._came = self._came, []
            return came

    def counts(self) -> Dict[str, int]:
        """Wait for diagnostics that know all that has happened, and return the node's counts."""
        time.sleep(_LAST_SECONDS)
        with self._lock:
            return self._reports[-1] if self._reports else dict.fromkeys(_COUNTS, 0)


@contextmanager
def _results(namespace: str) -> Iterator[_Results]:
    """Yield what listens to a detector while the block runs."""
    from yolojet_ros.ros import middleware
    middleware.prepare()
    from diagnostic_msgs.msg import DiagnosticArray
    import rclpy
    from rclpy.context import Context
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.subscription import Subscription
    from vision_msgs.msg import Detection2DArray

    context, results = Context(), _Results(namespace)
    rclpy.init(context=context)
    node = rclpy.create_node('flood_results', context=context)
    callback = (
        lambda packed, info: results.on_result(packed, info['source_timestamp'] or float('nan'))
    ) if hasattr(Subscription, 'CallbackType') else lambda packed: results.on_result(packed, float('nan'))
    node.create_subscription(
        Detection2DArray, f'{namespace}/detections', callback, 1000, raw=True)
    node.create_subscription(DiagnosticArray, '/diagnostics', results.on_diagnostics, 50)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            pass

    thread = threading.Thread(target=spin, name='results')
    thread.start()
    try:
        yield results
    finally:
        context.try_shutdown()
        thread.join()
        node.destroy_node()


def print_rows(rows: Sequence[Dict[str, Any]]) -> None:
    """Print the table."""
    lines = [[name for name, _ in _COLUMNS]] + [
        [_cell(form, row) for _, form in _COLUMNS] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print('  '.join(text.rjust(width) for text, width in zip(line, widths)))


def _cell(form: str, row: Dict[str, Any]) -> str:
    return '-' if row[form[1:].split(':')[0].rstrip('}')] is None else form.format(**row)
