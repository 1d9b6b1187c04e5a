"""
What is in a report of `yolojet profile`; times in milliseconds, {p50, p99} where it is two.

format, yolojet, date
machine: name, cpu, cores, system, python, ros, packages {name: version}
options: seconds, size [width, height], rate, control_rate, backend
model: file, task, classes, input_size, backend, description, warnings
idle: use at rest, before the model was loaded
pipeline: image to tracked boxes in one process, one image at a time, as fast as it goes: images,
    images_per_second, latency_ms, latencies_ms (some), stages_ms {stage: {}}, gpu_stages_ms
    {stage: median on the GPU} of an engine, use, joules_per_image
node: the node over DDS at the rate: the same, of results received; sent, results, and with the
    warm-up superseded, lost; transport_ms {image, result} (medians)
use: {value: {mean, max}} of operate/samplers/sample.py, power_of, throttling [reasons]
joules_per_image: all, above_idle, of (what the power was measured of); or None
control: rate, period_ms, of ('node' or 'pipeline'), share {p50, p99}
layers: file, of, runs, total_ms, ms {layer: ms}
backends: [{backend, description, latency_ms, stages_ms, agreement} or {backend, skipped}]
samples: seconds, a list of each value, phases [[name, start, end]]
notes: [what disturbs the figures]
skipped: {part: why it is not there}; failed: parts that were to be there
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Tuple

FORMAT = 'yolojet-profile-1'

# Stages by their name in times and diagnostics, in the order of an image's way.
STAGES = (
    ('queued', 'queued'), ('take', 'take, unpack'), ('letterbox', 'letterbox'),
    ('copy_in', 'copy to the GPU'), ('network', 'network'),
    ('gpu', 'GPU: letterbox to NMS'), ('decode_nms', 'decode and NMS'),
    ('motion', "camera's motion"), ('wait', 'wait for the network'), ('look', 'look'),
    ('track', 'tracking'), ('message', 'message'), ('publish', 'publish'))
# Sums of others, and what comes after the result.
_SUMS = ('pipeline', 'overhead')

VALUES = (
    ('temperature_c', 'hottest part', 'C', 1.0), ('gpu_temperature_c', 'GPU', 'C', 1.0),
    ('cpu_temperature_c', 'CPU', 'C', 1.0), ('power_w', 'power', 'W', 1.0),
    ('gpu_percent', 'GPU utilisation', '%', 1.0),
    ('gpu_memory_bytes', 'GPU memory', 'MiB', 2**-20), ('gpu_clock_mhz', 'GPU clock', 'MHz', 1.0),
    ('cpu_clock_mhz', 'CPU clock', 'MHz', 1.0), ('cpu_percent', 'CPU, all cores', '%', 1.0),
    ('process_cpu_percent', 'CPU of the process', '% of a core', 1.0),
    ('rss_bytes', 'memory of the process', 'MiB', 2**-20),
    ('memory_bytes', 'memory of all', 'MiB', 2**-20), ('swap_bytes', 'swap', 'MiB', 2**-20))

PARTS = (('pipeline', 'in one process, as fast as it goes'), ('node', 'node over DDS'))


def stages(part: Dict[str, Any]) -> Iterator[Tuple[str, float, float]]:
    """Yield label, median and p99 of the stages of a part, in order; sums are left out."""
    found, known = part['stages_ms'], [name for name, _ in STAGES]
    for name, label in STAGES:
        if name in found:
            yield label, found[name]['p50'], found[name]['p99']
    for name in found:
        if name not in known and name not in _SUMS:
            yield name, found[name]['p50'], found[name]['p99']


def present(report: Dict[str, Any]) -> List[Tuple[str, str]]:
    """Return the names and titles of the measured parts."""
    return [(name, title) for name, title in PARTS if name in report]


def shortened(name: str, most: int) -> str:
    """Return a layer's name with its middle left out where it is longer."""
    half = (most - 2) // 2
    return name if len(name) <= most else f'{name[:half]}..{name[-half:]}'
