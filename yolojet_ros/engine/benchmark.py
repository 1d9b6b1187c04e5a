"""How far the pipeline is from the least that its copy and its engine take."""

from __future__ import annotations

from collections import deque
import time
from typing import Any, Callable, Dict, List, Sequence

import numpy as np

from yolojet_ros.core.filters import FilterParams, Selection
from yolojet_ros.core.decode import detect, of_image
from yolojet_ros.core.detections import Detections
from yolojet_ros.core.image_formats import ImageView
from yolojet_ros.core.letterbox import Letterboxer
from yolojet_ros.core.stage_times import StageTimes
from yolojet_ros.inference.cuda.device import Device
from yolojet_ros.inference.cuda.graph import Graph
from yolojet_ros.inference.tensorrt_backend import TensorRTBackend
from yolojet_ros.inference.tensorrt_session import Session

_WARM_UP = 30
_CHUNKS = (2, 4, 8)


def summarize(times_ms: Sequence[float]) -> Dict[str, float]:
    """Return median and p99."""
    return {'median': float(np.median(times_ms)), 'p99': float(np.percentile(times_ms, 99))}


def repeat(work: Callable[[int], None], runs: int) -> Dict[str, float]:
    """Return median and p99 in milliseconds of `work(index)`."""
    for index in range(_WARM_UP):
        work(index)
    times = []
    for index in range(runs):
        start = time.perf_counter()
        work(index)
        times.append((time.perf_counter() - start) * 1e3)
    return summarize(times)


def copies(device: Device, images: Sequence[np.ndarray], runs: int) -> Dict[str, Dict]:
    """
    Return the time of every way to bring ordinary host memory to the GPU, waiting included.

    :param device: current
    :param images: uint8[k] arrays, used in turn
    """
    stream = device.stream()
    nbytes = images[0].nbytes
    target, pinned = device.allocate(nbytes), device.pinned(nbytes, np.uint8)

    def direct(index: int) -> None:
        device.copy_in(target, images[index % len(images)])

    def staged(parts: int) -> Callable[[int], None]:
        edges = np.linspace(0, nbytes, parts + 1).astype(int)
        spans = list(zip(edges[:-1], edges[1:]))

        def work(index: int) -> None:
            image = images[index % len(images)]
            for start, end in spans:
                part = pinned.array[start:end]
                np.copyto(part, image[start:end])
                device.copy_in(target, part, stream, int(start))
            stream.synchronize()
        return work

    found = {'pageable': repeat(direct, runs)}
    for parts in (1, *_CHUNKS):
        found[f'pinned, {parts} parts'] = repeat(staged(parts), runs)
    target.free()
    pinned.free()
    return found


def engine_alone(session: Session, runs: int) -> Dict[str, float]:
    """Return latency of the bare engine as a graph, and its throughput back to back."""
    handle = session.stream.handle
    session.execution.enqueue(handle)
    session.stream.synchronize()
    graph = Graph(handle, lambda: session.execution.enqueue(handle))

    def work(_: int) -> None:
        graph.launch()
        session.stream.synchronize()

    result = repeat(work, runs)
    start = time.perf_counter()
    for _ in range(runs):
        graph.launch()
    session.stream.synchronize()
    result['per_second'] = runs / (time.perf_counter() - start)
    graph.close()
    return result


def pipeline(
    backend: TensorRTBackend, views: Sequence[ImageView], selection: Selection, runs: int,
) -> Dict[str, float]:
    """Return the latency from host image to boxes on the host."""
    return repeat(
        lambda index: backend.detect(views[index % len(views)], selection, StageTimes()), runs)


def throughput(
    backend: TensorRTBackend, views: Sequence[ImageView], selection: Selection, runs: int,
    images: int = 1,
) -> float:
    """
    Return the images in a second, with as many runs in flight as the backend takes.

    :param images: of each run
    """
    def submit(index: int) -> None:
        chosen = [views[(index * images + place) % len(views)] for place in range(images)]
        backend.submit(chosen, [selection] * images, [StageTimes() for _ in chosen])

    for index in range(max(len(views), 2 * backend.depth)):
        submit(index)
        backend.collect()
    waiting: deque = deque()
    start = time.perf_counter()
    for index in range(runs):
        if len(waiting) == backend.depth:
            waiting.popleft()
            backend.collect()
        submit(index)
        waiting.append(index)
    for _ in waiting:
        backend.collect()
    return runs * images / (time.perf_counter() - start)


def numbers_of_images(
    backend: TensorRTBackend, views: Sequence[ImageView], runs: int,
) -> Dict[str, Any]:
    """Return images in a second by the number of images in a run, and what that changes."""
    selection = FilterParams().resolve(backend.card.names)
    rates = {number: throughput(backend, views, selection, runs, number)
             for number in range(1, backend.max_batch + 1)}
    return {'rates': rates, 'changes': changes_with_company(backend, views, selection, runs)}


def changes_with_company(
    backend: TensorRTBackend, views: Sequence[ImageView], selection: Selection, rounds: int,
) -> Dict[str, float]:
    """
    Tell whether an image gives the same whatever else is in its run, in any order of runs.

    :returns: 'neighbours', the share of images whose result changes with the others in a run of
        as many; 'number', with the number of images in a run; 'pixels', the largest change of a
        box that stays.
    """
    def run(chosen: Sequence[int]) -> List[Detections]:
        backend.submit([views[index] for index in chosen], [selection] * len(chosen),
                       [StageTimes() for _ in chosen])
        return backend.collect()

    rng = np.random.default_rng(4)
    alone = [run([index])[0] for index in range(len(views))]
    # Each image in a run of each size with nothing but itself.
    among = {number: [run([index] * number)[0] for index in range(len(views))]
             for number in range(1, backend.max_batch + 1)}
    seen = neighbours = number = 0
    pixels = 0.0
    for _ in range(rounds):
        chosen = rng.integers(len(views), size=rng.integers(1, backend.max_batch + 1))
        for index, found in zip(chosen, run(chosen)):
            seen += 1
            neighbours += not _same(found, among[len(chosen)][index])
            number += not _same(found, alone[index])
            if len(found) == len(alone[index]) > 0:
                pixels = max(pixels, float(np.abs(found.boxes - alone[index].boxes).max()))
    return {'neighbours': neighbours / seen, 'number': number / seen, 'pixels': pixels}


def _same(found: Detections, other: Detections) -> bool:
    return all(np.array_equal(getattr(found, name), getattr(other, name))
               for name in ('boxes', 'scores', 'classes'))


def stages(backend: TensorRTBackend, view: ImageView, selection: Selection, runs: int) \
        -> Dict[str, float]:
    """
    Return the GPU time of each step in milliseconds: the mean over repeated graphs of it.

    Each step is recorded 20 times in a row, so that the launch of the graph does not count.
    """
    frame = backend.prepare([view], selection)
    steps = {
        'letterbox': lambda: frame.enqueue_letterbox(1),
        'network': lambda: frame.enqueue_network(1),
        'network + decode + NMS': lambda: (frame.enqueue_network(1), frame.enqueue_decode(1)),
        'network + decode + NMS + extras': lambda: (
            frame.enqueue_network(1), frame.enqueue_decode(1), frame.enqueue_gather(1),
            frame.enqueue_paint()),
    }
    found = {}
    with backend.device.current():
        for name, step in steps.items():
            def twenty(step=step) -> None:
                for _ in range(20):
                    step()
            frame.stream.synchronize()
            graph = Graph(frame.stream.handle, twenty)
            start, end = backend.device.event(), backend.device.event()
            times: List[float] = []
            for _ in range(max(runs // 20, 5)):
                start.record(frame.stream)
                graph.launch()
                end.record(frame.stream)
                end.synchronize()
                times.append(start.time_till(end) / 20)
            found[name] = float(np.median(times))
            graph.close()
    both = found.pop('network + decode + NMS')
    found['decode + NMS'] = both - found['network']
    found['masks, keypoints, angles'] = found.pop('network + decode + NMS + extras') - both
    return found


def host_twins(
    session: Session, backend: TensorRTBackend, views: Sequence[ImageView], selection: Selection,
    runs: int,
) -> Dict[str, float]:
    """Return the latency of the same engine between the NumPy letterbox and the NumPy NMS."""
    card = backend.card
    letterboxer = Letterboxer(card.input_size, card.input)

    def work(index: int) -> None:
        tensor, letterbox = letterboxer(views[index % len(views)])
        outputs = session.run_all(tensor)
        detect(of_image(outputs, card.head, 0), card.head, letterbox, selection)

    return repeat(work, runs)
