"""The command `track`: judge the tracker."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List

from yolojet_ros.core.errors import UserError

if TYPE_CHECKING:
    from yolojet_ros.tracking.evaluation import Sequence

DESCRIPTION = """\
Score the tracker's ids against ground truth: HOTA, IDF1, MOTA, id switches, and how
many gaps in the detection of an object kept its id.

Without FOLDER on synthetic scenes, with detections simulated from the truth (noise,
misses, doubtful scores, false alarms) and pillars that objects pass behind. With
FOLDER on a MOT-format sequence (gt/gt.txt, det/det.txt, seqinfo.ini) or a folder of
them; the detections are those of det/det.txt.
"""

EPILOG = """\
for example:
  ./yolojet track evaluate --plot ids.png
  ./yolojet track evaluate --set lost_seconds=3 --camera-motion off
  ./yolojet track evaluate MOT17/train --camera-motion off
"""

_SIZE = (640, 384)
_LEAST_VISIBILITY = 0.15  # truth that is hidden further is not asked for
_MOST_SCENES, _MOST_SECONDS = 10_000, 86_400.0
_FORGET_SECONDS = 2.0  # an object unseen for longer counts as another one


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser('track', help='judge the tracker')
    commands = parser.add_subparsers(metavar='COMMAND', required=True)
    evaluate = commands.add_parser(
        'evaluate', help='score ids against ground truth', description=DESCRIPTION,
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    evaluate.add_argument('folder', nargs='?', type=Path, help='MOT-format folder')
    evaluate.add_argument(
        '--scenes', type=int, default=4, help='synthetic scenes, seeds 1, 2, ... (default 4)')
    evaluate.add_argument(
        '--seconds', type=float, default=20.0, help='length of a scene (default 20)')
    evaluate.add_argument(
        '--rate', type=float, default=30.0, help='frames per second of a scene (default 30)')
    evaluate.add_argument(
        '--camera-motion', choices=('off', 'auto', 'flow', 'truth'), default='auto',
        help='where the tracker has the camera motion from: nowhere, the images, or (scenes) '
             'the truth (default auto: the images, unless the camera stands still)')
    evaluate.add_argument(
        '--appearance', action='store_true',
        help='describe the look of each box and use it to bring back lost tracks')
    evaluate.add_argument(
        '--set', action='append', default=[], metavar='NAME=VALUE', dest='settings',
        help='set a tracker parameter; may be repeated')
    evaluate.add_argument(
        '--plot', type=Path, metavar='PNG', help='draw the ids over time; with several '
        'sequences the name of each is put before the suffix')
    evaluate.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a table of scores and return 0."""
    from yolojet_ros.tracking import create_tracker
    from yolojet_ros.tracking.evaluation import Evaluator, plot_ids, table, track
    if arguments.plot and not arguments.plot.name:
        raise UserError(f'--plot {arguments.plot} names no file; give the path of a .png file')
    settings = _settings(arguments.settings)
    if arguments.plot and not arguments.plot.name:
        raise UserError('--plot is no file name; give one that ends in .png')
    create_tracker(**settings)  # a wrong setting is told before the work starts
    evaluator, rows = Evaluator(), []
    for sequence in _sequences(arguments):
        ids = track(sequence, create_tracker(**settings))
        rows.append(evaluator.score(sequence, ids))
        if arguments.plot:
            path = arguments.plot
            plot_ids(sequence, ids, path.with_name(f'{path.stem}-{sequence.name}{path.suffix}'))
    print(table(rows + [evaluator.total()]))
    return 0


def _settings(pairs: List[str]) -> Dict[str, Any]:
    settings = {}
    for pair in pairs:
        name, _, text = pair.partition('=')
        try:
            value = float(text)
        except ValueError as error:
            raise UserError(f'--set {pair} has no number; write NAME=VALUE') from error
        settings[name] = int(value) if text.lstrip('-').isdigit() else value
    return settings


def _sequences(arguments: argparse.Namespace) -> Iterator[Sequence]:
    if arguments.folder is None:
        for name, value, most in (('scenes', arguments.scenes, _MOST_SCENES),
                                  ('seconds', arguments.seconds, _MOST_SECONDS)):
            if not 0 < value <= most:
                raise UserError(f'--{name} is {value}; it must be above 0, at most {most:g}, or '
                                'there is nothing to score')
        for seed in range(1, arguments.scenes + 1):
            yield _scene(seed, arguments)
        return
    from yolojet_ros.tracking.mot_format import find_sequences, read_sequence
    if arguments.camera_motion == 'truth':
        raise UserError('a MOT folder does not tell the camera motion; choose auto, flow or off')
    for folder in find_sequences(arguments.folder):
        yield _with_images(read_sequence(folder), arguments)


def _scene(seed: int, arguments: argparse.Namespace) -> Sequence:
    """Film one synthetic scene and detect its objects as a fair detector would."""
    import numpy as np

    from yolojet_ros.core.image_formats import ImageView
    from yolojet_ros.sim.scene import CLASS_NAMES, Scene
    from yolojet_ros.tracking.appearance import describe
    from yolojet_ros.tracking.camera_motion import CameraMotion
    from yolojet_ros.tracking.evaluation import Sequence, TruthFrame
    from yolojet_ros.tracking.simulated_detector import SimulatedDetector
    scene = Scene(*_SIZE, seed=seed, rate=arguments.rate, occluders=3)
    detector = SimulatedDetector(seed)
    truth_warp = arguments.camera_motion == 'truth'
    motion = CameraMotion('off' if truth_warp else arguments.camera_motion)
    identity = _Identities()
    frames = []
    count = round(arguments.seconds * arguments.rate)
    if count < 1:
        raise UserError(f'{arguments.seconds:g} s at {arguments.rate:g} frames per second hold '
                        'no frame; raise --seconds or --rate')
    for _ in range(count):
        frame = scene.read()
        there = frame.visibility >= _LEAST_VISIBILITY
        boxes, scores, classes = detector.detect(
            frame.boxes, frame.visibility, frame.classes, _SIZE, len(CLASS_NAMES))
        seen = np.flatnonzero(scores >= 0.1)
        boxes, scores, classes = boxes[seen], scores[seen], classes[seen]
        warp = frame.warp if truth_warp else motion.look(ImageView.from_bgr(frame.image))
        motion.mask(boxes)
        frames.append(TruthFrame(
            stamp=frame.stamp, boxes=boxes, scores=scores, classes=classes,
            truth_boxes=frame.boxes[there], truth_classes=frame.classes[there],
            truth_ids=identity.of(frame.ids[there], frame.stamp),
            warp=warp,
            embeddings=describe(frame.image, boxes) if arguments.appearance else None))
    return Sequence(f'scene-{seed}', _SIZE, frames)


def _with_images(sequence: Sequence, arguments: argparse.Namespace) -> Sequence:
    """Return the sequence with camera motion and descriptors from its images, as asked for."""
    if arguments.camera_motion == 'off' and not arguments.appearance:
        return sequence
    from yolojet_ros.core.compressed_images import read_image
    from yolojet_ros.core.image_formats import ImageView
    from yolojet_ros.tracking.appearance import describe
    from yolojet_ros.tracking.camera_motion import CameraMotion
    motion = CameraMotion(arguments.camera_motion)
    frames = []
    for number, frame in enumerate(sequence.frames, 1):
        if frame.image is None:
            raise UserError(
                f'the image of frame {number} of {sequence.name} is missing; add it, '
                'or pass --camera-motion off and no --appearance')
        image = read_image(frame.image)
        warp = motion.look(ImageView.from_bgr(image))
        motion.mask(frame.boxes)
        frames.append(replace(
            frame, warp=warp,
            embeddings=describe(image, frame.boxes) if arguments.appearance else None))
    return replace(sequence, frames=frames)


class _Identities:
    """Give an object that was out of sight for long a new identity, as MOTChallenge does."""

    def __init__(self) -> None:
        self._known: Dict[int, Any] = {}
        self._count = 0

    def of(self, keys: Any, stamp: float) -> Any:
        """Return the identities int64[n] of the objects `keys` seen at `stamp`."""
        import numpy as np
        result = []
        for key in keys.tolist():
            identity, last = self._known.get(key, (-1, float('-inf')))
            if stamp - last > _FORGET_SECONDS:
                identity, self._count = self._count, self._count + 1
            self._known[key] = (identity, stamp)
            result.append(identity)
        return np.array(result, np.int64)
