"""The command `detect`: run a model on images and videos, without ROS."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from yolojet_ros.cli.numbers import whole
from yolojet_ros.core.text import listed

DESCRIPTION = """\
Run a model on images, the images of folders, and videos, without ROS.

Prints what is seen, one line a file, or all of it as JSON, in pixels of the image as it is
shown (turned as its EXIF data says). --save draws it.
"""

EPILOG = """\
for example:
  ./yolojet detect street.jpg --model yolo11n.onnx --save seen
  ./yolojet detect photos/ film.mp4 --model yolo11n-seg.onnx --json > seen.json
  ./yolojet detect photos/ --set score_threshold=0.5 --set 'classes=[crate, cone]'

JSON: [{"image": PATH, "width": W, "height": H, "detections": [{"box": [x1, y1, x2, y2],
"score": S, "class_id": I, "class": NAME}]}]; of videos with "frame", from 0 on. Some models add
to a detection: angle (radians, clockwise) and polygon (corners [x, y]); keypoints
([x, y, confidence]); mask_rle (COCO's RLE). A classifier gives "classification" beside no
detections: its best classes, {"score", "class_id", "class"}.

An input that cannot be read is named on stderr, the others are processed; the exit code is 2 then.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        'detect', help='run a model on images and videos', description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('inputs', nargs='+', metavar='IMAGE|FOLDER|VIDEO')
    parser.add_argument('--model', metavar='FILE',
                        help='an .onnx or .engine file (default: the demo model)')
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.add_argument('--save', type=Path, metavar='DIR',
                        help='write annotated copies of images, and of videos as .mp4, to DIR')
    parser.add_argument('--backend', choices=('auto', 'tensorrt', 'onnxruntime'), default='auto',
                        help='what runs the network (default: auto)')
    parser.add_argument('--device', type=whole(0, 63), default=0, metavar='N',
                        help='index of the GPU, for TensorRT (default: 0)')
    parser.add_argument('--input-size', metavar='WxH', default='',
                        help="the network's input, for a model that leaves it open")
    parser.add_argument(
        '--set', action='append', default=[], metavar='NAME=VALUE', dest='settings',
        help='set score_threshold, iou_threshold, class_thresholds, classes, agnostic_nms, '
             'max_detections, min_box_size or roi, as in config/detect.yaml; may be repeated')
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 0 if every input could be used, else 2."""
    # A broken picture is told in one sentence, by us.
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'OFF')
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
    from yolojet_ros.cli.detect_files import detect_files, input_files, output_files
    from yolojet_ros.cli.detect_output import JsonOutput, say, TextOutput
    from yolojet_ros.core.detection_records import rle_encoder
    from yolojet_ros.core.filters import FilterParams
    from yolojet_ros.core.knob_values import parse_size, read_settings
    from yolojet_ros.inference.demo_model import demo_model
    from yolojet_ros.inference.load import load_backend
    from yolojet_ros.pipeline.detector import Detector
    from yolojet_ros.pipeline.stream import Stream

    filters = read_settings(FilterParams, arguments.settings)
    size = parse_size('--input-size', arguments.input_size)
    inputs, absent = input_files(arguments.inputs)
    targets = output_files(inputs, arguments.save)
    backend = load_backend(
        demo_model() if arguments.model is None else arguments.model, arguments.backend,
        arguments.device, input_size=size)
    try:
        # Masks and keypoints are computed where they are told or drawn.
        backend.extras = arguments.json or arguments.save is not None
        if arguments.json and backend.card.task == 'segment':
            rle_encoder()
        stream = Stream(backend.card, filters)
        if arguments.model is None:
            say('no --model is given: the demo model runs, which knows only '
                f'{listed(backend.card.names)}')
        for sentence in absent:
            say(sentence)
        with (JsonOutput if arguments.json else TextOutput)(backend.card.names) as output:
            refused = detect_files(
                Detector(backend), stream, list(zip(inputs, targets)), output)
        return 2 if refused or absent else 0
    finally:
        backend.close()
