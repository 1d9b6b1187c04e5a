"""Images to calibrate with: a folder, a bag, or the synthetic scene, letterboxed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Iterable, Iterator, List

import numpy as np

from yolojet_ros.core.compressed_images import decode, read_image
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.installing import install_command
from yolojet_ros.core.image_formats import ImageError, ImageView
from yolojet_ros.core.letterbox import Letterboxer
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.model.data import CALIBRATION_SEED, image_files, scene_stills

_IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')


def network_inputs(source: str, count: int, card: ModelCard) -> List[np.ndarray]:
    """
    Prepare calibration images exactly as the runtime prepares frames.

    :param source: 'scene', a folder of images, or a ROS bag.
    :param count: how many images; they are spread evenly over the source.
    :returns: tensors [1, 3, h, w] as the model takes them; float32 for one that takes halves.
    :raises UserError: if there are fewer images than `count`, or one cannot be read.
    """
    if count < 1:
        raise UserError(f'calibration needs at least one image, not {count}')
    takes = replace(card.input, dtype='float32') if card.half else card.input
    letterboxer = Letterboxer(card.input_size, takes)
    return [letterboxer(ImageView.from_bgr(np.ascontiguousarray(image)))[0].copy()
            for image in _images(source, count)]


def _images(source: str, count: int) -> Iterable[np.ndarray]:
    if source == 'scene':
        return (still.image for still in scene_stills(count, CALIBRATION_SEED))
    path = Path(source)
    if not path.exists():
        raise UserError(f'no calibration images at {path}; give "scene", a folder or a bag')
    if (path / 'metadata.yaml').is_file() or path.suffix in ('.mcap', '.db3', '.bag'):
        return _bag_images(path, count)
    files = image_files(path)
    _require(len(files), count, path)
    return (read_image(files[i * len(files) // count]) for i in range(count))


def _require(found: int, count: int, path: Path) -> None:
    if found < count:
        raise UserError(
            f'{path} has {found} images, fewer than the {count} asked for; add images or '
            'ask for fewer with --images')


def _bag_images(path: Path, count: int) -> Iterator[np.ndarray]:
    try:
        from rosbags.highlevel import AnyReader, AnyReaderError
        from rosbags.typesys import get_typestore, Stores
    except ImportError as error:
        raise UserError(
            f'reading a bag needs rosbags; run "{install_command("rosbags")}"') from error
    folder = path.parent if path.suffix == '.db3' else path
    try:
        reader = AnyReader([folder], default_typestore=get_typestore(Stores.LATEST))
        reader.open()
    except AnyReaderError as error:
        raise UserError(f'cannot read the bag {path} ({error}); check the recording') from error
    try:
        topics = [c for c in reader.connections if c.msgtype in _IMAGE_TYPES]
        total = sum(c.msgcount for c in topics)
        _require(total, count, path)
        wanted = {i * total // count for i in range(count)}
        for index, (topic, _, data) in enumerate(reader.messages(topics)):
            if index in wanted:
                yield _decode(reader.deserialize(data, topic.msgtype), topic.topic)
    finally:
        reader.close()


def _decode(message, topic: str) -> np.ndarray:
    data = np.asarray(message.data, np.uint8)
    try:
        if not hasattr(message, 'encoding'):
            return decode(data)
        return ImageView(data, message.width, message.height, message.step, message.encoding,
                         bool(message.is_bigendian)).bgr()
    except ImageError as error:
        raise UserError(f'an image of {topic} cannot be used: {error}') from error
