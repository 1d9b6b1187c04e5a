"""
The card file beside a model, `MODEL.card.yaml`: what the user says where a model does not.

    head: yolox                # a key of core.head.HEADS
    task: pose                 # detect, segment, pose, obb or classify
    names: [crate, barrel]
    keypoints: [17, 3]
    input: {fit: top_left, pad: 114, order: bgr, scale: 1.0, mean: [0, 0, 0], std: [1, 1, 1]}

Every key may be missing; those that are there override what the model says.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
import os
from pathlib import Path
from typing import Any, Dict, Mapping, Tuple, Union

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import read_text
from yolojet_ros.core.head import BY_KEY, MAX_CLASSES, TASKS
from yolojet_ros.core.image_input import Fit, ImageInput
from yolojet_ros.core.text import listed, shown
from yolojet_ros.core.yaml_text import read_yaml

# Where the text lies in a model's metadata once it is read.
KEY = 'yolojet_card'
_SUFFIX = '.card.yaml'
_MAX_BYTES = 1 << 14
_KEYS = ('head', 'task', 'names', 'keypoints', 'input')
_INPUT_KEYS = ('fit', 'pad', 'order', 'scale', 'mean', 'std', 'antialias')


@dataclass(frozen=True)
class CardFile:
    """
    What a card file says.

    head, task: '' if it does not say
    names: () if it does not say
    keypoints: (count, values), () if it does not say
    input: fields of ImageInput
    """

    head: str = ''
    task: str = ''
    names: Tuple[str, ...] = ()
    keypoints: Tuple[int, ...] = ()
    input: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def name(source: str) -> str:
        """Return how the card file of a model file is called."""
        return Path(source).stem + _SUFFIX

    @classmethod
    def metadata(cls, model: Union[str, Path]) -> Dict[str, str]:
        """
        Return what the card file beside `model` adds to its metadata; nothing without one.

        :raises UserError: if the file cannot be read.
        """
        path = Path(model).with_name(cls.name(Path(model).name))
        if not os.path.lexists(path):
            return {}
        try:
            return {KEY: read_text(path, _MAX_BYTES)}
        except ValueError as error:
            raise UserError(
                f'{path} cannot be read ({error}); write it again, or take it away') from None

    @classmethod
    def parse(cls, text: str, source: str) -> CardFile:
        """
        Read the text of a card file; an empty one says nothing.

        :param source: file name of the model, for messages
        :raises UserError: naming what is wrong.
        """
        file = cls.name(source)
        try:
            said = read_yaml(text) or {}
        except ValueError as error:
            raise UserError(
                f'{file} cannot be read ({error}); lines like "head: yolox" are expected'
            ) from None
        _check_keys(file, '', said, _KEYS)
        takes = said.get('input') or {}
        _check_keys(file, ' under input', takes, _INPUT_KEYS)
        card = cls(
            _choice(file, 'head', said, tuple(BY_KEY)), _choice(file, 'task', said, TASKS),
            _names(file, said.get('names')), _keypoints(file, said.get('keypoints')), takes)
        card.applied(ImageInput(), file)
        return card

    def applied(self, default: ImageInput, file: str = '') -> ImageInput:
        """
        Return the input that the card asks for where `default` is the head's.

        :raises UserError: naming the value that is out of its range.
        """
        changes = {name: tuple(value) if isinstance(value, list) else value
                   for name, value in self.input.items()}
        if 'fit' in changes:
            kinds = [kind.value for kind in Fit]
            if changes['fit'] not in kinds:
                raise UserError(
                    f'{file} says fit: {shown(changes["fit"])}; {", ".join(kinds)} are known')
            changes['fit'] = Fit(changes['fit'])
        try:
            return replace(default, **changes)
        except (UserError, TypeError) as error:
            raise UserError(f'{file}: {error}') from None


def _check_keys(file: str, where: str, said: Any, known: Tuple[str, ...]) -> None:
    if not isinstance(said, dict):
        raise UserError(
            f'{file} has {shown(said)}{where}; lines "KEY: VALUE" are expected, with the keys '
            + ', '.join(known))
    odd = [key for key in said if key not in known]
    if odd:
        raise UserError(f'{file} has the key {shown(odd[0])}{where}; {", ".join(known)} are known')


def _choice(file: str, key: str, said: Dict, known: Tuple[str, ...]) -> str:
    value = said.get(key, '')
    if value and value not in known:
        raise UserError(f'{file} says {key}: {shown(value)}; {listed(known, 30)} are known')
    return value or ''


def _names(file: str, value: Any) -> Tuple[str, ...]:
    if isinstance(value, dict) and all(index in value for index in range(len(value))):
        value = [value[index] for index in range(len(value))]
    if value is None:
        return ()
    if not isinstance(value, list) or not 0 < len(value) <= MAX_CLASSES:
        raise UserError(f'{file} says names: {shown(value)}; a list of 1 to {MAX_CLASSES} names '
                        'is expected')
    odd = [name for name in value if name is None or isinstance(name, (bool, list, dict))]
    if odd:
        raise UserError(f'{file} has the name {shown(odd[0])}; put quotes around it')
    names = tuple(map(str, value))
    if any(not name.isprintable() or not 0 < len(name) <= 200 for name in names):
        raise UserError(f'{file} has a name of no or more than 200 characters, or with ones that '
                        'cannot be printed; give short names')
    return names


def _keypoints(file: str, value: Any) -> Tuple[int, ...]:
    if value is None:
        return ()
    if not (isinstance(value, list) and len(value) == 2 and type(value[0]) is int
            and 0 < value[0] <= 256 and type(value[1]) is int and value[1] in (2, 3)):
        raise UserError(f'{file} says keypoints: {shown(value)}; [COUNT, 2] or [COUNT, 3] is '
                        'expected')
    return tuple(value)
