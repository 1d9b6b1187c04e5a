"""The command `bench`: the figures of the README, measured on this machine."""

from __future__ import annotations

import argparse
from functools import partial
import json
from pathlib import Path
import platform
import tempfile
import time
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

from yolojet_ros.cli.numbers import image_size, whole
from yolojet_ros.core.errors import UserError

_FRAMES = 400
_SIZE = (1280, 720)
_FILM_FRAMES = 90

_MOST_SECONDS = 86400
_MOST_RATE = 10000  # Hz

_BENCHMARKS = (
    'node', 'scene', 'messages', 'tracker', 'transport', 'cpu', 'samplers', 'flood', 'cameras',
    'update')
_LOADS = ('flood', 'cameras', 'update')
_PIPELINE = ''  # the benchmark without a name


class _Option(NamedTuple):
    """An option of some benchmarks, and what it is where it is not given."""

    word: str
    benchmarks: Tuple[str, ...]
    default: Any


_OPTIONS = {
    'model': _Option('--model', (_PIPELINE, 'node', 'cpu', *_LOADS), None),
    'rate': _Option('--rate', ('cameras', 'update'), None),
    'seconds': _Option('--seconds', ('node', 'transport', 'cpu', 'samplers', *_LOADS), 10.0),
    'size': _Option('--size', _LOADS, _SIZE),
    'backend': _Option('--backend', _LOADS, 'auto'),
    'without_network': _Option('--without-network', _LOADS, False),
    'settings': _Option('--set', _LOADS, ()),
    'json': _Option('--json', _LOADS, False)}

DESCRIPTION = """\
Measure what the README claims. Without options: image to boxes and to tracked boxes,
and with ONNX Runtime the bare network, in the same run, taken in turns.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        'bench', help='measure the figures of the README on this machine',
        description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', type=Path, metavar='FILE',
                        help='an .onnx file or an engine (default: the demo model)')
    what = parser.add_mutually_exclusive_group()
    what.add_argument('--node', action='store_true',
                      help='measure what the node adds, over real DDS, at 30 Hz 1280x720')
    what.add_argument('--scene', action='store_true',
                      help='measure how fast the synthetic scene renders on one core')
    what.add_argument('--messages', action='store_true',
                      help='measure how fast detections become bytes')
    what.add_argument('--tracker', action='store_true',
                      help='measure an update of the tracker with 10 to 300 objects')
    what.add_argument('--transport', action='store_true',
                      help='measure how images of an ordinary camera driver arrive')
    what.add_argument('--cpu', action='store_true',
                      help='measure threads and spinning of ONNX Runtime, beside other processes')
    what.add_argument('--samplers', action='store_true',
                      help='measure what it costs the node to tell of the machine')
    what.add_argument('--flood', type=_rates, metavar='HZ,HZ,...', help=(
        'measure what a node makes of so many ready-made images in a second, one rate after '
        'the other, such as 30,60,120,240,480'))
    what.add_argument('--cameras', type=whole(1, 64), metavar='N', help=(
        'measure N cameras through one node against a node for each'))
    what.add_argument('--update', action='store_true', help=(
        'measure what a node loses while it changes over to another version of its model'))
    parser.add_argument('--rate', type=whole(1, _MOST_RATE), metavar='HZ', help=(
        'images in a second of each camera of --cameras (default: 5) or of --update (30)'))
    parser.add_argument('--seconds', type=float, metavar='S', help=(
        'length of each run of --node, --transport, --cpu, --samplers, --flood, --cameras and '
        '--update (default: 10)'))
    parser.add_argument('--size', type=image_size, metavar='WxH', help=(
        'size of the images of --flood, --cameras and --update (default: 1280x720)'))
    parser.add_argument('--backend', choices=('auto', 'tensorrt', 'onnxruntime'), help=(
        'what runs the network of --flood, --cameras and --update (default: auto)'))
    parser.add_argument('--without-network', action='store_true', default=None, help=(
        'put one that takes no time in the place of the network of --flood, --cameras and '
        '--update'))
    parser.add_argument('--set', action='append', metavar='NAME=VALUE', dest='settings', help=(
        'a parameter of the nodes of --flood, --cameras and --update, VALUE as in '
        'config/detect.yaml; may be repeated (cameras are called camera_0, camera_1, ...)'))
    parser.add_argument('--json', action='store_true', default=None, help=(
        'print the rows of --flood, --cameras or --update as JSON'))
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run one benchmark and return the exit code."""
    _fill_in(arguments)
    if not 0 < arguments.seconds <= _MOST_SECONDS:
        raise UserError(f'--seconds is {arguments.seconds:g}; it must be above 0, at most '
                        f'{_MOST_SECONDS}')
    if not arguments.json:
        print(f'{platform.machine()}, Python {platform.python_version()}')
    if arguments.node:
        return _bench_node(arguments)
    if arguments.scene:
        return _bench_scene()
    if arguments.messages:
        return _bench_messages()
    if arguments.tracker:
        return _bench_tracker()
    if arguments.flood or arguments.cameras or arguments.update:
        return _bench_load(arguments)
    if arguments.transport:
        from yolojet_ros.cli.bench_transport import bench_transport
        return bench_transport(arguments.seconds)
    if arguments.cpu:
        from yolojet_ros.cli.bench_cpu import measure
        measure(_model(arguments), arguments.seconds)
        return 0
    if arguments.samplers:
        from yolojet_ros.cli.bench_samplers import measure
        measure(arguments.seconds)
        return 0
    return _bench_pipeline(arguments)


def _fill_in(arguments: argparse.Namespace) -> None:
    """
    Set the options that are not given.

    :raises UserError: if one is given that the chosen benchmark does not take.
    """
    chosen = next((name for name in _BENCHMARKS if getattr(arguments, name)), _PIPELINE)
    for name, option in _OPTIONS.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, option.default)
        elif chosen not in option.benchmarks:
            takers = ', '.join(f'--{taker}' if taker else 'the benchmark without a name'
                               for taker in option.benchmarks)
            raise UserError(
                f'{option.word} is an option of {takers}, '
                + (f'not of --{chosen}; leave it out' if chosen else
                   'which is not given; leave it out, or name its benchmark, too'))


def _model(arguments: argparse.Namespace) -> Path:
    from yolojet_ros.inference.demo_model import model_or_demo
    return model_or_demo(arguments.model)


def _timed(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e3


def _heading(title: str) -> None:
    print(f'{title:34} {"p50":>8} {"p99":>8}')


def _row(name: str, times: List[float]) -> None:
    import numpy as np
    p50, p99 = np.percentile(times, (50, 99))
    print(f'{name:34} {p50:8.3f} {p99:8.3f}')


def _rates(text: str) -> List[float]:
    """Return the rates of HZ,HZ,... for argparse."""
    return [whole(1, _MOST_RATE)(item) for item in text.split(',')]


def _bench_load(arguments: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix='yolojet-bench-') as folder:
        return _measure_load(arguments, Path(folder))


def _measure_load(arguments: argparse.Namespace, folder: Path) -> int:
    from yolojet_ros.cli import bench_cameras, bench_flood, bench_update
    from yolojet_ros.core.knob_values import parse_size, read_words

    model, size, seconds = _model(arguments), arguments.size, arguments.seconds
    settings = read_words(arguments.settings)
    for name in ('autostart', 'backend', 'cameras', 'model'):
        if name in settings:
            raise UserError(f'--set {name} is for the benchmark to set; leave it out'
                            + (f', or use --{name}' if name != 'autostart' else ''))
    if arguments.without_network:
        from yolojet_ros.cli.idle_network import write_idle_network
        real, model = model, folder / f'{model.stem}_without_network.onnx'
        write_idle_network(real, model, parse_size('input_size', settings.get('input_size', '')))
    detector = {'model': model, 'backend': arguments.backend, **settings}
    images = f'{size[0]}x{size[1]} bgr8 by a process of its own'
    counts = 'from "all sent" on, images with those of the warm-up'
    if arguments.flood:
        title = (f'{model.name}, {images}, {seconds:g} s each; milliseconds from stamp to result '
                 'received and to its publication (age), and of CPU: of the node for a result, of '
                 f'the sender for an image; of best: where not all came out; {counts}')
        rows = bench_flood.measure(arguments.flood, seconds, size, detector)
        show = bench_flood.print_rows
    elif arguments.update:
        rate = arguments.rate or 30
        title = (f'{model.name}, {images}, {rate} Hz, {seconds:g} s; milliseconds from stamp to '
                 'result received, and between two results')
        rows = bench_update.measure(rate, seconds, size, detector)
        show = bench_update.print_rows
    else:
        rate = arguments.rate or 5
        title = (f'{model.name}, {images} for each camera, {rate} Hz, {seconds:g} s; '
                 'milliseconds from stamp to result received, and percent of a core, memory and '
                 f'GPU memory of all nodes together; {counts}')
        rows = bench_cameras.measure(arguments.cameras, rate, seconds, size, detector)
        show = bench_cameras.print_rows
    if arguments.json:
        print(json.dumps({'model': model.name, 'width': size[0], 'height': size[1],
                          'seconds': seconds, 'rows': rows}, indent=2))
    else:
        print(title)
        show(rows)
    return 0


def _bench_pipeline(arguments: argparse.Namespace) -> int:
    import numpy as np

    from yolojet_ros.cli.bench_tracking import BARE, BOXES, film, measure, MOVING, STILL
    from yolojet_ros.core.letterbox import Letterboxer
    from yolojet_ros.inference.load import load_backend

    backend = load_backend(_model(arguments))
    card, bare = backend.card, None
    if backend.name == 'onnxruntime':  # `gpu-check` measures engines alone
        tensor = Letterboxer(card.input_size, card.input)(film(_SIZE, False)[0])[0].copy()
        bare = partial(backend.run, tensor)
    found = measure(backend, _FRAMES, _SIZE, bare)
    print(f'{card.source} {card.input_size[0]}x{card.input_size[1]}, '
          f'{backend.description}, {_SIZE[0]}x{_SIZE[1]} bgr8, '
          f'{np.mean(found[BOXES].detections):.1f} detections a frame, {_FRAMES} frames')
    _heading('ms')
    for name, timing in found.items():
        _row('bare session.run' if name == BARE else name, timing.times)
    p50 = {name: np.median(timing.times) for name, timing in found.items()}
    print('stages with a moving camera: ' + ', '.join(
        f'{stage} {np.median(laps):.3f}' for stage, laps in found[MOVING].stages.items()))
    print(f'a look at a camera that rests: {np.median(found[STILL].stages["motion"]):.3f}, mean '
          f'{np.mean(found[STILL].stages["motion"]):.3f} (goal: <= 0.05)')
    if bare:
        print(f'image to boxes / bare session.run: {p50[BOXES] / p50[BARE]:.2f} (goal: <= 1.50)')
    print(f'tracked boxes / boxes: camera still {p50[STILL] / p50[BOXES]:.2f}, moving '
          f'{p50[MOVING] / p50[BOXES]:.2f} (goal: <= {1.1 if bare else 1.3:.2f})')
    return 0


def _bench_scene() -> int:
    import cv2

    from yolojet_ros.sim.scene import sample, Scene

    cv2.setNumThreads(1)
    _heading('one core, ms')
    for width, height in ((320, 192), (640, 384), (1280, 720), (1920, 1080)):
        scene = Scene(width, height, seed=1)
        scene.read()
        _row(f'film {width}x{height}', [_timed(scene.read) for _ in range(150)])
    seeds = iter(range(200))
    _row('still 320x192', [_timed(lambda: sample(next(seeds), 320, 192)) for _ in range(200)])
    return 0


def _bench_messages() -> int:
    import numpy as np
    from rclpy.serialization import serialize_message
    from std_msgs.msg import Header

    from yolojet_ros.core.detections import Detections
    from yolojet_ros.ros.cdr import DetectionsWriter
    from yolojet_ros.ros.messages import detections_message

    names = [f'class_{index}' for index in range(7)]
    writer, header = DetectionsWriter(names), Header(frame_id='camera')
    _heading('Detection2DArray to bytes, ms')
    for count in (10, 50, 300):
        rng = np.random.default_rng(count)
        found = Detections(
            rng.uniform(0, 700, (count, 4)).astype(np.float32),
            rng.uniform(0, 1, count).astype(np.float32),
            rng.integers(0, 7, count).astype(np.int32), np.arange(count))
        _row(f'{count} detections, packed here',
             [_timed(lambda: writer(header, found)) for _ in range(200)])
        _row(f'{count} detections, message by rclpy', [
            _timed(lambda: serialize_message(detections_message(header, found, names)))
            for _ in range(200)])
    return 0


def _bench_tracker() -> int:
    import numpy as np

    from yolojet_ros.tracking import create_tracker

    _heading('tracker update, ms')
    for count in (10, 50, 100, 300):
        rng, tracker = np.random.default_rng(count), create_tracker()
        side = 100 * np.sqrt(count)  # px; as crowded for few objects as for many
        centers, speed = rng.uniform(0, side, (count, 2)), rng.normal(0, 2, (count, 2))
        half, times = rng.uniform(15, 45, (count, 2)), []
        for index in range(_FRAMES):
            centers = (centers + speed) % side
            seen = rng.random(count) > 0.1
            noisy = (centers + rng.normal(0, 1, (count, 2)))[seen]
            boxes = np.hstack((noisy - half[seen], noisy + half[seen])).astype(np.float32)
            scores = rng.uniform(0.2, 0.95, len(boxes)).astype(np.float32)
            classes = np.zeros(len(boxes), np.int32)
            times.append(_timed(lambda: tracker.update(boxes, scores, classes, index / 30)))
        _row(f'{count} objects', times)
    return 0


def _bench_node(arguments: argparse.Namespace) -> int:
    from yolojet_ros.cli.chain import run_chain

    model, seconds = _model(arguments), arguments.seconds
    rows = []
    with tempfile.TemporaryDirectory(prefix='yolojet-bench-') as name:
        folder = Path(name)
        camera = {'source': _record_film(folder / 'film.mp4'), 'rate': 30.0}
        for count in (10, 50):
            summary = run_chain(
                folder, f'bench_{count}', seconds,
                # Nothing is filtered, so exactly the best `count` are published. A tracker
                # would be fed hundreds of such boxes, and load the machine with them.
                detector={'model': model, 'score_threshold': 0.0, 'iou_threshold': 1.0,
                          'max_detections': count, 'tracking': False},
                camera=camera, draw=False)
            rows.append((count, summary))
        echo = _bench_echo(folder, seconds, camera)
    print(f'{model.name}, {_SIZE[0]}x{_SIZE[1]} bgr8 at 30 Hz, {seconds:g} s each')
    for count, summary in rows:
        frames, stages = summary['frames'], summary['stages_ms_p50']
        mean = summary['detections'] / max(frames['results_received'], 1)
        print(f"""\
{mean:.1f} detections a frame:
  published {frames['published']}, received {frames['received']}, \
lost in transport {frames['lost_in_transport']} (goal: 0), processed {frames['processed']}
  node's own overhead {stages['overhead']} ms p50 (goal: <= {1 if count == 10 else 2}); before it \
{stages['queued']} in the queue and {stages['take']} to unpack the image; pipeline \
{stages['pipeline']} ms p50""")
    print(f"""\
transport and conversion alone (echo node): {echo['cpu_percent_of_a_core']} % of one core \
(goal: < 40), image age on arrival {echo['age_ms_p50']} ms p50, received {echo['received']}""")
    return 0


def _record_film(path: Path) -> Path:
    """Record some seconds of the scene: playing them costs less than rendering."""
    from yolojet_ros.core.video import video_file
    from yolojet_ros.sim.scene import Scene

    scene = Scene(*_SIZE, seed=1)
    with video_file(path) as add:
        for _ in range(_FILM_FRAMES):
            add(scene.read().image)
    return path


def _bench_echo(folder: Path, seconds: float, camera: Dict[str, Any]) -> Dict[str, Any]:
    from yolojet_ros.cli.processes import nodes

    with nodes(folder, 'bench_echo') as running:
        running.start('echo', {'out': folder / 'echo.json'})
        filming = running.start(
            'camera', {'duration': float(seconds), 'wait_for_subscribers': 1, **camera})
        filming.wait(seconds + 60)
        running.check('camera', filming)
    return running.result('echo', folder / 'echo.json')
