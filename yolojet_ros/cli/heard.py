"""What detectors publish, heard by a benchmark, and tables of it."""

from __future__ import annotations

from contextlib import contextmanager
import re
import struct
import threading
import time
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from yolojet_ros.core.text import aligned

COUNTS = ('received', 'processed', 'dropped_superseded', 'lost_in_middleware')
_STAGE = re.compile(r'(?!age)(.+)_ms_p(\d+)')  # of a stage in diagnostics
_STAMP = struct.Struct('<4xiI')  # of the header of a packed message
_LAST_SECONDS = 2.5  # in which the last results and the diagnostics that count them come
_Came = Tuple[str, int, float, int]


class Heard:
    """
    The results and counts of detectors, taken by a thread of this process.

    Each is known by the prefix of its topics, such as /robot or /robot/front.
    """

    def __init__(self, prefixes: Sequence[str]) -> None:
        self._statuses = {}
        for prefix in prefixes:  # of a detector alone, and of one of its cameras
            namespace, _, camera = prefix.rpartition('/')
            self._statuses[f'{prefix}/detector: detector'] = prefix
            self._statuses[f'{namespace}/detector: detector {camera}'] = prefix
        self._lock = threading.Lock()
        self._came: List[_Came] = []
        self._counts = {prefix: dict.fromkeys(COUNTS, 0) for prefix in prefixes}
        self._stages: Dict[Tuple[str, int], Dict[str, float]] = {}

    def on_result(self, prefix: str, packed: bytes, published: float) -> None:
        """Take a packed message and the moment that it was published, NaN if that is unknown."""
        now = time.time_ns()
        seconds, nanoseconds = _STAMP.unpack_from(packed)
        with self._lock:
            self._came.append((prefix, seconds * 10**9 + nanoseconds, published, now))

    def on_diagnostics(self, message: Any) -> None:
        """Take diagnostics."""
        for status in message.status:
            prefix = self._statuses.get(status.name)
            if prefix is not None:
                values = {item.key: item.value for item in status.values}
                with self._lock:
                    self._counts[prefix] = {key: int(values.get(key, 0)) for key in COUNTS}
                    for key, value in values.items():
                        stage = _STAGE.fullmatch(key)
                        if stage:
                            self._stages.setdefault((prefix, int(stage[2])), {})[stage[1]] = (
                                float(value))

    def take(self) -> List[_Came]:
        """Return (prefix, stamp, published, received) of what came since, in ns."""
        with self._lock:
            came, self._came = self._came, []
            return came

    def counts(self) -> Dict[str, Dict[str, int]]:
        """Wait for diagnostics that know all that has happened; return counts by prefix."""
        time.sleep(_LAST_SECONDS)
        with self._lock:
            return dict(self._counts)

    def stages(self, prefix: str, percent: int = 50) -> Dict[str, float]:
        """Return milliseconds of each stage, medians or 99 % of a detector's latest results."""
        with self._lock:
            return dict(self._stages.get((prefix, percent), {}))


def counted(before: Dict[str, int], after: Dict[str, int]) -> Dict[str, int]:
    """Return what was counted between; `all_`, since the images of the warm-up are among it."""
    return {f'all_{key}': after[key] - before[key] for key in COUNTS}


@contextmanager
def heard(prefixes: Sequence[str]) -> Iterator[Heard]:
    """Yield what listens to detectors while the block runs."""
    from yolojet_ros.ros import middleware
    middleware.prepare()
    from diagnostic_msgs.msg import DiagnosticArray
    import rclpy
    from rclpy.context import Context
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.subscription import Subscription
    from vision_msgs.msg import Detection2DArray

    context, results = Context(), Heard(prefixes)
    rclpy.init(context=context)
    node = rclpy.create_node('listener', context=context)
    tells = hasattr(Subscription, 'CallbackType')  # when a message was published; not Humble

    def listen(prefix: str) -> None:
        def told(packed: bytes, info: Dict[str, Any]) -> None:
            results.on_result(prefix, packed, info['source_timestamp'] or float('nan'))

        def untold(packed: bytes) -> None:
            results.on_result(prefix, packed, float('nan'))
        node.create_subscription(
            Detection2DArray, f'{prefix}/detections', told if tells else untold, 1000, raw=True)

    for prefix in prefixes:
        listen(prefix)
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


def percentile(values: Sequence[float], percent: float) -> Optional[float]:
    """Return a percentile; None of values that are not known."""
    import numpy as np
    value = float(np.percentile(values, percent))
    return round(value, 3) if np.isfinite(value) else None


def print_table(
    columns: Sequence[Tuple[str, str]], rows: Sequence[Dict[str, Any]],
) -> None:
    """
    Print rows below their headings.

    :param columns: heading, and a format such as '{sent:.1f}'
    """
    lines = [[name for name, _ in columns]] + [
        [_cell(form, row) for _, form in columns] for row in rows]
    print(aligned(lines))


def _cell(form: str, row: Dict[str, Any]) -> str:
    key = form[1:form.index('}')].split(':')[0]
    return '-' if row[key] is None else form.format(**row)
