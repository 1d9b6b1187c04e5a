"""
Data sets in the YOLO folder format: data.yaml, images/ and labels/, one text file an image.

A line of a label file is one object, in shares of the image's sides: its class, then for
detect the box (cx cy w h), for segment a polygon (x y x y ..), for pose the box and its
keypoints (x y or x y v each), for obb four corners in order.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import cv2
import numpy as np

from yolojet_ros.core.compressed_images import IMAGE_SUFFIXES, read_image
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import read_text
from yolojet_ros.core.text import one_line, shown
from yolojet_ros.core.yaml_text import read_yaml
from yolojet_ros.model.data import LabelledImage, LabelledSet

_MAX_YAML = 1 << 18
_MAX_LABELS = 1 << 26
# Programs that write labels round; what is farther outside is a mistake.
_ROUNDING = 1e-3
# Shares of the image's side and area: less is nothing, whatever the number of pixels.
_LEAST_SIDE, _LEAST_AREA = 1e-6, 1e-9
# An image of instances is uint8.
_MOST_MASKS = 255
_FINER = 4


@dataclass(frozen=True)
class YoloFolder:
    """
    What a data.yaml describes.

    source: the file
    names: of the classes
    task: what the labels are for
    label_keypoints: how many a line has and values of each (2 or 3); (0, 0) for no keypoints
    keypoint_flip: for pose, which keypoint becomes which in a mirror image; None if not said
    train, val: images
    """

    source: Path
    names: Tuple[str, ...]
    task: str
    label_keypoints: Tuple[int, int]
    keypoint_flip: Optional[Tuple[int, ...]]
    train: Tuple[Path, ...]
    val: Tuple[Path, ...]

    @classmethod
    def read(cls, path: Path, task: str) -> YoloFolder:
        """
        Read a data.yaml and list its images.

        :raises UserError: if something in it is missing or wrong; labels are read later.
        """
        path = Path(path)
        try:
            content = read_yaml(read_text(path, _MAX_YAML))
        except ValueError as error:
            raise UserError(
                f'{path} cannot be read ({one_line(str(error), 120)}); give the data.yaml of a '
                'data set in the YOLO folder format') from error
        if not isinstance(content, dict):
            raise UserError(f'{path} holds no "train:", "val:" and "names:"; give a data.yaml')
        keypoints, flip = (0, 0), None
        if task == 'pose' or content.get('kpt_shape') is not None:
            keypoints = _keypoint_shape(path, content)
        if task == 'pose':
            flip = _flip(path, content, keypoints[0])
        return cls(path, _names(path, content), task, keypoints, flip,
                   _images(path, content, 'train'), _images(path, content, 'val'))

    @property
    def keypoints(self) -> Tuple[int, int]:
        """How many keypoints the task finds, and values of each in a label."""
        return self.label_keypoints if self.task == 'pose' else (0, 0)

    def labelled(self, image: Path) -> LabelledImage:
        """
        Read an image with its labels; one without a label file shows no object.

        :raises UserError: if either cannot be used, with the file and the line.
        """
        pixels = read_image(image)
        return self.label(pixels, label_file(image))

    def held_out(self) -> LabelledSet:
        """Return the images under "val", to go through once."""
        return LabelledSet(
            self.source.name, self.names, len(self.val), map(self.labelled, self.val))

    def label(self, pixels: np.ndarray, labels: Path) -> LabelledImage:
        """Put the labels of a file to an image uint8[H, W, 3]."""
        height, width = pixels.shape[:2]
        sides = np.float64([width, height])
        classes: List[int] = []
        boxes: List[np.ndarray] = []
        polygons: List[np.ndarray] = []
        keypoints: List[np.ndarray] = []
        for place, label, values in _lines(labels, len(self.names)):
            points, box = self._shape(place, values)
            classes.append(label)
            boxes.append(box * np.tile(sides, 2))
            if self.task == 'pose':
                keypoints.append(np.concatenate((points[:, :2] * sides, points[:, 2:]), 1))
            elif points is not None:
                polygons.append(points * sides)
        count = len(classes)
        instances = rotated = marks = None
        if self.task == 'segment':
            if count > _MOST_MASKS:
                raise UserError(f'{labels} has {count} objects; {_MOST_MASKS} masks an image are '
                                'possible, so cut the image into parts')
            instances = _paint(polygons, (height, width))
        elif self.task == 'obb':
            rotated = np.float32([_rotated(corners) for corners in polygons]).reshape(-1, 5)
        elif self.task == 'pose':
            marks = np.float32(keypoints).reshape(-1, self.keypoints[0], 3)
        return LabelledImage(
            pixels, np.float32(boxes).reshape(-1, 4), np.array(classes, np.int64),
            np.ones(count, bool), instances, rotated, marks)

    def check(self) -> None:
        """
        Read all label files, so that a bad one is told before training begins.

        :raises UserError: as labelled(), and if nothing is labelled.
        """
        for part, images in (('train', self.train), ('val', self.val)):
            objects = 0
            for image in images:
                for place, _, values in _lines(label_file(image), len(self.names)):
                    self._shape(place, values)
                    objects += 1
            if not objects:
                raise UserError(
                    f'{self.source}: no object is labelled in the {len(images)} images of '
                    f'"{part}"; the labels of the first belong into {label_file(images[0])}')

    def _shape(
        self, place: str, values: np.ndarray,
    ) -> Tuple[Optional[np.ndarray], np.ndarray]:
        """
        Read the numbers behind a class.

        :param place: of the line, for messages.
        :returns: points (a polygon, corners [4, 2] or keypoints [K, 3]; None for a bare box)
            and the upright box xyxy, in shares of the image.
        """
        count = len(values)
        if self.task == 'pose':
            return self._pose(place, values)
        if self.task == 'detect' and count == 4:
            return None, _corners(place, values)
        if self.label_keypoints[0]:
            self._refuse_keypoints(place, count)
            if self.task == 'detect':
                return None, self._pose(place, values)[1]
        # Detection can be learned from the boxes around polygons as well.
        polygon = count >= 6 and count % 2 == 0
        if not polygon or (self.task == 'obb' and count != 8):
            wanted = {'detect': '4 numbers (cx cy w h)',
                      'segment': 'a polygon of 3 or more points (x y each)',
                      'obb': '4 corners (x y each)'}[self.task]
            raise UserError(f'{place}: {count} numbers behind the class; for the task '
                            f'{self.task} there must be {wanted}')
        points = _within(place, values).reshape(-1, 2)
        low, high = points.min(0), points.max(0)
        if abs(_area(points)) < _LEAST_AREA:
            raise UserError(f'{place}: the points enclose no area, since they lie on one line or '
                            'are in a wrong order; remove or redraw the object')
        return points, np.concatenate((low, high))

    def _refuse_keypoints(self, place: str, count: int) -> None:
        """Refuse numbers that may be a polygon as well as a box with keypoints."""
        points, each = self.label_keypoints
        wanted = 4 + points * each
        if self.task == 'detect' and count != wanted:
            raise UserError(
                f'{place}: {count} numbers behind the class; with kpt_shape [{points}, {each}] '
                f'in data.yaml there must be 4 (cx cy w h) or {wanted}, with the keypoints; for '
                'polygons take kpt_shape out')
        if self.task != 'detect' and count == wanted:
            raise UserError(
                f'{place}: by kpt_shape [{points}, {each}] in data.yaml the {count} numbers are '
                f'a box and keypoints, for the task {self.task} a polygon; take kpt_shape out, '
                'or choose the task pose or detect')

    def _pose(self, place: str, values: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        points, each = self.label_keypoints
        if len(values) != 4 + points * each:
            raise UserError(
                f'{place}: {len(values)} numbers behind the class; with kpt_shape [{points}, '
                f'{each}] there must be {4 + points * each}: cx cy w h, then the keypoints')
        marks = values[4:].reshape(points, each)
        shown_how = marks[:, 2] if each == 3 else np.full(points, 2.0)
        if not np.isin(shown_how, (0, 1, 2)).all():
            raise UserError(f'{place}: the third number of a keypoint is 0 (not labelled), '
                            '1 (hidden) or 2 (visible)')
        return (np.concatenate((_within(place, marks[:, :2]), shown_how[:, None]), 1),
                _corners(place, values[:4]))


def label_file(image: Path) -> Path:
    """Name the label file of an image: under labels/ where the image is under images/."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == 'images':
            parts[index] = 'labels'
            break
    return Path(*parts).with_suffix('.txt')


def _lines(path: Path, classes: int) -> Iterator[Tuple[str, int, np.ndarray]]:
    """Yield the place, the class and the numbers of every object in a label file."""
    if not path.exists():
        return
    try:
        lines = read_text(path, _MAX_LABELS).splitlines()
    except ValueError as error:
        raise UserError(f'{path} cannot be read ({one_line(str(error), 80)}); it should hold '
                        'one line of numbers an object') from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f'{path}:{number}'
        try:
            values = np.array([float(word) for word in line.split()])
        except ValueError:
            raise UserError(f'{place}: "{one_line(line, 40)}" are not only numbers; a line is a '
                            'class and its coordinates') from None
        if not np.isfinite(values).all():
            raise UserError(f'{place}: a number is not finite; correct the line')
        if values[0] != int(values[0]) or not 0 <= values[0] < classes:
            raise UserError(f'{place}: class {values[0]:g}, but data.yaml names {classes}: 0 to '
                            f'{classes - 1}')
        yield place, int(values[0]), values[1:]


def _within(place: str, values: np.ndarray) -> np.ndarray:
    """Check that coordinates are shares of the image, and take off what rounding added."""
    if values.size and not (values.min() >= -_ROUNDING and values.max() <= 1 + _ROUNDING):
        worst = values.min() if values.min() < -_ROUNDING else values.max()
        raise UserError(f'{place}: coordinate {worst:g} is outside 0..1; coordinates are shares '
                        'of the image\'s width and height, not pixels')
    return values.clip(0, 1)


def _corners(place: str, box: np.ndarray) -> np.ndarray:
    """Turn cx cy w h into xyxy, cut at the image's border."""
    _within(place, box)
    corners = np.concatenate((box[:2] - box[2:] / 2, box[:2] + box[2:] / 2)).clip(0, 1)
    if not (corners[2:] - corners[:2] > _LEAST_SIDE).all():
        raise UserError(f'{place}: a box of {box[2]:g} x {box[3]:g} is empty; remove it')
    return corners


def _area(points: np.ndarray) -> float:
    """Return the signed area of a polygon [n, 2]."""
    x, y = (points - points[0]).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _paint(polygons: Sequence[np.ndarray], size: Tuple[int, int]) -> np.ndarray:
    """Paint polygons in pixels, smaller ones over larger ones: uint8[H, W], 1 + index."""
    instances = np.zeros(size, np.uint8)
    areas = [cv2.contourArea(polygon.astype(np.float32)) for polygon in polygons]
    for index in np.argsort(areas, kind='stable')[::-1]:
        polygon = polygons[index]
        left, top = np.floor(polygon.min(0)).astype(int)
        right, bottom = np.minimum(np.ceil(polygon.max(0)).astype(int) + 1, size[::-1])
        # OpenCV paints the whole border of a polygon, so it is painted finer and reduced.
        fine = np.zeros(((bottom - top) * _FINER, (right - left) * _FINER), np.uint8)
        # It counts pixels from their middles; four bits are behind the point.
        corners = np.rint(((polygon - (left, top)) * _FINER - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(fine, [corners], 255, cv2.LINE_8, 4)
        share = cv2.resize(fine, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
        instances[top:bottom, left:right][share > 127] = index + 1
    return instances


def _rotated(corners: np.ndarray) -> List[float]:
    """Turn four corners in order into cx, cy, w, h and the angle of the first side."""
    first = (corners[1] - corners[0] + corners[2] - corners[3]) / 2
    second = (corners[2] - corners[1] + corners[3] - corners[0]) / 2
    return [*corners.mean(0), math.hypot(*first), math.hypot(*second),
            math.atan2(first[1], first[0])]


def _names(path: Path, content: Dict[Any, Any]) -> Tuple[str, ...]:
    names = content.get('names')
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise UserError(f'{path}: "names" does not number its classes from 0 on')
        names = [names[key] for key in sorted(names, key=int)]
    if not isinstance(names, list) or not names:
        raise UserError(f'{path} has no "names:" with the names of the classes')
    for index, name in enumerate(names):
        # YAML reads yes, no, on and off as truth values, ~ as nothing, and 1.10 as 1.1.
        if type(name) not in (str, int):
            raise UserError(f'{path}: the name of class {index} is no text but {shown(name)} '
                            'for YAML; put quotes around it')
    if content.get('nc', len(names)) != len(names):
        raise UserError(f'{path}: "nc" is {shown(content["nc"])}, but there are {len(names)} '
                        '"names"; make them agree')
    return tuple(str(name) for name in names)


def _keypoint_shape(path: Path, content: Dict[Any, Any]) -> Tuple[int, int]:
    shape = content.get('kpt_shape')
    if not (isinstance(shape, list) and len(shape) == 2 and all(
            type(n) is int for n in shape) and shape[0] > 0 and shape[1] in (2, 3)):
        raise UserError(f'{path}: keypoints need "kpt_shape: [K, D]", how many there are and 2 '
                        '(x y) or 3 (x y visibility) numbers each')
    return shape[0], shape[1]


def _flip(path: Path, content: Dict[Any, Any], count: int) -> Optional[Tuple[int, ...]]:
    flip = content.get('flip_idx')
    if flip is None:
        return None
    if not (isinstance(flip, list) and len(flip) == count
            and all(type(n) is int for n in flip) and set(flip) == set(range(count))):
        raise UserError(f'{path}: "flip_idx" must hold every number from 0 to {count - 1} once')
    return tuple(flip)


def _images(path: Path, content: Dict[Any, Any], part: str) -> Tuple[Path, ...]:
    """List the images of 'train' or 'val': folders, or text files that list images."""
    given = content.get(part)
    places = given if isinstance(given, list) else [given]
    if not places or not all(isinstance(place, str) and place for place in places):
        raise UserError(f'{path} has no "{part}:" that names a folder of images')
    above = content.get('path') or '.'
    if not isinstance(above, str):
        raise UserError(f'{path}: "path" is no text; name the folder of the data set')
    root = path.parent / above
    found: List[Path] = []
    for place in places:
        base = root / place
        # os.path also answers for names too long to be any; a pipe would be waited for.
        if os.path.isdir(base):
            found += sorted(p for p in base.rglob('*')
                            if p.suffix.lower() in IMAGE_SUFFIXES and os.path.isfile(p))
        elif base.suffix == '.txt' and os.path.isfile(base):
            try:
                listed = read_text(base, _MAX_LABELS).splitlines()
            except ValueError as error:
                raise UserError(
                    f'{base} cannot be read ({one_line(str(error), 80)})') from error
            images = [base.parent / line.strip() for line in listed if line.strip()]
            missing = next((image for image in images if not os.path.isfile(image)), None)
            if missing:
                raise UserError(f'{base} lists {shown(str(missing), 200)}, which is no file')
            found += images
        else:
            raise UserError(f'{path}: "{part}" names {base}, which is no folder and no list of '
                            'images; correct "path" or the name')
    if not found:
        raise UserError(f'{path}: "{part}" has no image ({", ".join(sorted(IMAGE_SUFFIXES))})')
    return tuple(found)
