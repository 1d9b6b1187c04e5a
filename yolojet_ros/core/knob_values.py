"""Dataclasses of knobs (core/knobs.py) from values that somebody gave, by their names."""

from __future__ import annotations

import array
from dataclasses import fields
import re
from typing import (
    Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Type, TypeVar)

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.text import nearest, shown
from yolojet_ros.core.yaml_text import read_yaml

Params = TypeVar('Params')
_LONGEST = 1 << 14  # characters of a setting


def read_dataclass(
    params: Type[Params], values: Mapping[str, Any], prefix: str = '',
) -> Params:
    """
    Build a dataclass of knobs from parameter values by full name.

    :raises UserError: naming the parameter that is wrong.
    """
    arguments: Dict[str, Any] = {}
    for item in fields(params):
        value = values[prefix + item.name]
        parse = LISTS.get(item.name)
        arguments[item.name] = parse(item.name, parse_list(value)) if parse else value
    return params(**arguments)


def read_settings(params: Type[Params], settings: Sequence[str]) -> Params:
    """
    Build a dataclass of knobs from words NAME=VALUE, VALUE as in a YAML file.

    >>> read_settings(FilterParams, ['score_threshold=0.3', 'classes=[crate, cone]'])

    :raises UserError: naming the setting that is wrong.
    """
    values = {item.name: item.default for item in fields(params)}
    for name, value in read_words(settings).items():
        if name not in values:
            raise UserError(f'{shown(name)} cannot be set' + (
                nearest(name, values) or '; there are ' + ', '.join(values)))
        values[name] = value
    return read_dataclass(params, values)


def read_words(settings: Sequence[str]) -> Dict[str, Any]:
    """
    Return the values of words NAME=VALUE, VALUE as in a YAML file.

    :raises UserError: naming the word that is wrong.
    """
    values: Dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting[:_LONGEST].partition('=')
        if not equals:
            raise UserError(f'{shown(setting)} sets nothing; write NAME=VALUE')
        try:
            values[name] = read_yaml(text)
        except ValueError as error:
            raise UserError(f'the value of {name} cannot be read ({error}); write it as in a '
                            'YAML file') from None
    return values


def parse_size(name: str, value: str) -> Optional[Tuple[int, int]]:
    """
    Return (width, height) of a text such as 640x384, None of an empty one.

    :raises UserError: if it is none.
    """
    found = re.fullmatch(r'([1-9]\d{0,4})x([1-9]\d{0,4})', value, re.ASCII)
    if value and not found:
        raise UserError(
            f'{name} is {shown(value)}; set width and height in pixels, such as 640x384, or '
            'leave it empty')
    return (int(found[1]), int(found[2])) if found else None


def parse_list(value: Any) -> List[Any]:
    """Return a list parameter's entries; `['']` is empty, as YAML files often need it."""
    is_list = isinstance(value, (list, tuple, array.array))
    entries = list(value) if is_list else [value]
    return [] if entries in ([''], [None]) else entries


def parse_names(name: str, value: Any) -> Tuple[str, ...]:
    """
    Return the entries of a list of strings.

    :raises UserError: if an entry is none.
    """
    return _strings(name, parse_list(value), 'names')


def _class_names(name: str, entries: Sequence[Any]) -> Tuple[str, ...]:
    return _strings(name, entries, 'class names')


def _strings(name: str, entries: Sequence[Any], what: str) -> Tuple[str, ...]:
    for entry in entries:
        if not isinstance(entry, str):
            raise UserError(f'{name} holds {shown(entry)}; it must be a list of {what}')
    return tuple(entries)


def _class_thresholds(name: str, entries: Sequence[Any]) -> Tuple[Tuple[str, float], ...]:
    pairs = []
    for entry in entries:
        class_name, colon, value = str(entry).rpartition(':')
        try:
            pairs.append((class_name.strip(), float(value)))
        except ValueError:
            colon = ''
        if not colon:
            raise UserError(
                f'{name} holds {shown(entry)}; each entry must be NAME:VALUE, '
                'such as "person:0.5"')
    return tuple(pairs)


def polygon(name: str, entries: Sequence[Any]) -> Tuple[Tuple[float, float], ...]:
    """
    Return the corners of a list x1, y1, x2, y2, ...

    :raises UserError: if they are no numbers, or not pairs.
    """
    try:
        if any(isinstance(entry, bool) for entry in entries):
            raise TypeError
        numbers = [float(entry) for entry in entries]
    except (TypeError, ValueError):
        raise UserError(
            f'{name} is {shown(list(entries))}; it must be numbers x1, y1, x2, y2, ...') from None
    if len(numbers) % 2:
        raise UserError(
            f'{name} has {len(numbers)} numbers; it must be pairs x1, y1, x2, y2, ...')
    return tuple(zip(numbers[::2], numbers[1::2]))


LISTS: Dict[str, Callable[[str, Sequence[Any]], tuple]] = {
    'classes': _class_names,
    'class_thresholds': _class_thresholds,
    'roi': polygon,
}
