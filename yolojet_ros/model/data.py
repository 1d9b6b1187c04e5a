"""Labelled images: stills of the synthetic scene, COCO annotations, image folders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
import json
import multiprocessing
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import cv2
import numpy as np

from yolojet_ros.core.compressed_images import IMAGE_SUFFIXES, read_image
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.text import one_line
from yolojet_ros.sim.scene import CLASS_NAMES, sample


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
    instances, rotated, keypoints: what some tasks need, as in sim.frame.SceneFrame; None where
        it is not labelled
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    clear: np.ndarray
    instances: Optional[np.ndarray] = None
    rotated: Optional[np.ndarray] = None
    keypoints: Optional[np.ndarray] = None


@dataclass(frozen=True)
class LabelledSet:
    """
    Images with the names of what is labelled in them.

    source: name, for messages
    names: of the classes, by the index that the images use
    count: how many images
    images: to go through once
    """

    source: str
    names: Tuple[str, ...]
    count: int
    images: Iterable[LabelledImage]

    def only(self, wanted: Sequence[str]) -> LabelledSet:
        """
        Return the set with no labels but of the classes `wanted`.

        :raises UserError: if one of them is not labelled.
        """
        unknown = [name for name in wanted if name not in self.names]
        if unknown:
            raise UserError(
                f'{self.source} has no object of class "{unknown[0]}"; it has '
                f'{some_names(self.names)}')
        index = np.array([wanted.index(n) if n in wanted else -1 for n in self.names])

        def relabelled(image: LabelledImage) -> LabelledImage:
            classes = index[image.classes]
            keep = classes >= 0
            rows = {name: getattr(image, name)[keep] for name in ('rotated', 'keypoints')
                    if getattr(image, name) is not None}
            if image.instances is not None:
                number = np.where(keep, np.cumsum(keep), 0)
                rows['instances'] = np.append(0, number).astype(np.uint8)[image.instances]
            return replace(image, boxes=image.boxes[keep], classes=classes[keep],
                           clear=image.clear[keep], **rows)

        return replace(self, names=tuple(wanted), images=map(relabelled, self.images))


def some_names(names: Sequence[str]) -> str:
    """Join the first names for a message."""
    return ', '.join(names[:10]) + (f' and {len(names) - 10} more' if len(names) > 10 else '')


def scene_set(count: int, first_seed: int, turned: bool = False) -> LabelledSet:
    """Return stills of the synthetic scene; see sample() for `turned`."""
    return LabelledSet(
        'the scene', CLASS_NAMES, count, scene_stills(count, first_seed, turned=turned))


def scene_still(seed: int, size: Tuple[int, int], turned: bool = False) -> LabelledImage:
    """Render the still of the synthetic scene with this seed at (width, height)."""
    frame = sample(seed, *size, turned=turned)
    sides = (frame.boxes[:, 2:] - frame.boxes[:, :2]).min(1, initial=np.inf)
    clear = (frame.visibility >= MIN_VISIBILITY) & (sides >= MIN_SIDE)
    return LabelledImage(
        frame.image, frame.boxes, frame.classes.astype(np.int64), clear, frame.instances,
        frame.rotated, frame.keypoints)


def scene_stills(
    count: int, first_seed: int, size: Tuple[int, int] = (640, 384), workers: int = 0,
    turned: bool = False,
) -> Iterator[LabelledImage]:
    """
    Yield the stills of `count` consecutive seeds, in order.

    :param workers: processes that render; 0 renders in this one.
    :param turned: turn objects by any angle in the picture.
    """
    yield from in_processes(
        partial(scene_still, size=size, turned=turned), range(first_seed, first_seed + count),
        workers)


def in_processes(function, items, workers: int) -> Iterator:
    """Yield function(item) of each item in order, computed by `workers` processes."""
    if workers < 1:
        yield from map(function, items)
        return
    # Spawned, not forked: a fork of a process that uses CUDA or threads may hang.
    with multiprocessing.get_context('spawn').Pool(workers, cv2.setNumThreads, (1,)) as pool:
        yield from pool.imap(function, items, chunksize=16)


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


def coco_set(annotations: Path, folder: Path) -> LabelledSet:
    """
    Return a COCO detection data set; its classes are the categories that have an object.

    :param annotations: the JSON file with 'images', 'annotations' and 'categories'.
    :param folder: where the images lie.
    :raises UserError: if the file is not COCO; an image that cannot be read is told later.
    """
    annotations = Path(annotations)
    try:
        data = json.loads(annotations.read_text(encoding='utf-8'))
        return _coco_set(annotations.name, data, Path(folder))
    except OSError as error:
        raise UserError(f'cannot read {annotations}: {error.strerror}') from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f'{annotations} is not a COCO detection file ({one_line(repr(error), 100)}); it needs '
            '"images", "annotations" and "categories"') from error


def _coco_set(source: str, data: Dict[str, Any], folder: Path) -> LabelledSet:
    categories = {entry['id']: str(entry['name']) for entry in data['categories']}
    objects: Dict[Any, List[Tuple[Any, str, bool]]] = {}
    for entry in data['annotations']:
        box = np.array(entry['bbox'], np.float32).reshape(4)
        objects.setdefault(entry['image_id'], []).append(
            (box, categories[entry['category_id']], not entry.get('iscrowd', 0)))
    labelled = {name for found in objects.values() for _, name, _ in found}
    names = tuple(dict.fromkeys(n for n in categories.values() if n in labelled))
    images = [(entry['id'], str(entry['file_name'])) for entry in data['images']]

    def labelled_image(image: Tuple[Any, str]) -> LabelledImage:
        found = objects.get(image[0], [])
        boxes = np.array([box for box, _, _ in found], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return LabelledImage(
            read_image(folder / image[1]), boxes,
            np.array([names.index(name) for _, name, _ in found], np.int64),
            np.array([clear for _, _, clear in found], bool))

    return LabelledSet(source, names, len(images), map(labelled_image, images))
