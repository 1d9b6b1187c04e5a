"""Labelled images: stills of the synthetic scene, COCO annotations, image folders."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
import json
import multiprocessing
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import cv2
import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.sim.scene import sample

IMAGE_SUFFIXES = frozenset(('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp'))

# Below this visible share even a person would guess; such objects are neither right nor wrong.
MIN_VISIBILITY = 0.25
# Shorter side in pixels of the image below which an object is not asked for.
MIN_SIDE = 6.0

# Every use of the scene draws from seeds of its own, so that nothing held out was trained on.
SEEDS_PER_RUN = 10_000_000
VALIDATION_SEED = 1_000_000_000
TEST_SEED = 2_000_000_000
CALIBRATION_SEED = 3_000_000_000


@dataclass(frozen=True)
class LabelledImage:
    """
    An image with its truth.

    image: uint8[H, W, 3], BGR
    boxes: float32[n, 4], xyxy in pixels
    classes: int64[n]
    clear: bool[n], whether a detector is asked to find the object; one that is too small
        or hidden to be asked for may be found without penalty
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    clear: np.ndarray


def scene_still(seed: int, size: Tuple[int, int]) -> LabelledImage:
    """Render the still of the synthetic scene with this seed at (width, height)."""
    frame = sample(seed, *size)
    sides = (frame.boxes[:, 2:] - frame.boxes[:, :2]).min(1, initial=np.inf)
    clear = (frame.visibility >= MIN_VISIBILITY) & (sides >= MIN_SIDE)
    return LabelledImage(frame.image, frame.boxes, frame.classes.astype(np.int64), clear)


def scene_stills(
    count: int, first_seed: int, size: Tuple[int, int] = (640, 384), workers: int = 0,
) -> Iterator[LabelledImage]:
    """
    Yield the stills of `count` consecutive seeds, in order.

    :param workers: processes that render; 0 renders in this one.
    """
    yield from in_processes(
        partial(scene_still, size=size), range(first_seed, first_seed + count), workers)


def in_processes(function, items, workers: int) -> Iterator:
    """Yield function(item) of each item in order, computed by `workers` processes."""
    if workers < 1:
        yield from map(function, items)
        return
    # Spawned, not forked: a fork of a process that uses CUDA or threads may hang.
    with multiprocessing.get_context('spawn').Pool(workers, cv2.setNumThreads, (1,)) as pool:
        yield from pool.imap(function, items, chunksize=16)


def read_image(path: Path) -> np.ndarray:
    """
    Read an image file as uint8 BGR [H, W, 3].

    :raises UserError: if it is missing or no image.
    """
    try:
        # imdecode instead of imread: imread cannot open non-ASCII paths everywhere.
        data = np.frombuffer(Path(path).read_bytes(), np.uint8)
    except OSError as error:
        raise UserError(f'cannot read the image {path}: {error.strerror}') from error
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise UserError(
            f'{path} ({data.size} bytes) is not an image that can be decoded; '
            'remove or replace it')
    return image


def image_files(folder: Path) -> List[Path]:
    """
    List the image files of a folder by name.

    :raises UserError: if there is no such folder or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f'{folder} is not a folder; give one that holds images')
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise UserError(
            f'{folder} holds no image ({", ".join(sorted(IMAGE_SUFFIXES))}); '
            'give a folder with images')
    return files


def coco_images(
    annotations: Path, folder: Path, names: Tuple[str, ...],
) -> Iterator[LabelledImage]:
    """
    Yield the images of a COCO detection data set.

    :param annotations: the JSON file with 'images', 'annotations' and 'categories'.
    :param folder: where the images lie.
    :param names: class names of the model; categories are matched to them by name.
    :raises UserError: if the file is not COCO, or shares no class with the model.
    """
    images, objects, classes = _read_coco(Path(annotations), names)
    for image in images:
        found = objects.get(image['id'], [])
        boxes = np.array([o['bbox'] for o in found], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        yield LabelledImage(
            read_image(Path(folder) / image['file_name']), boxes,
            np.array([classes[o['category_id']] for o in found], np.int64),
            np.array([not o.get('iscrowd', 0) for o in found], bool))


def _read_coco(path: Path, names: Tuple[str, ...]):
    try:
        data = json.loads(path.read_text(encoding='utf-8'))
        images, categories = data['images'], data['categories']
        classes = {c['id']: names.index(c['name']) for c in categories if c['name'] in names}
        objects: Dict[int, list] = {}
        for entry in data['annotations']:
            if entry['category_id'] in classes:
                objects.setdefault(entry['image_id'], []).append(entry)
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}') from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path} is not a COCO detection file ({error!r}); it needs "images", '
            '"annotations" and "categories"') from error
    if not classes:
        known = ', '.join(str(c['name']) for c in categories[:10])
        raise UserError(
            f'{path} has the classes {known}, none of which the model knows '
            f'({", ".join(names[:10])})')
    return images, objects, classes
