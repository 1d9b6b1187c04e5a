"""Read a dataclass from what JSON or YAML made of a file that anybody may have written."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, MISSING
import math
import re
import reprlib
from typing import Any, get_args, get_origin, get_type_hints, Iterable, Type, TypeVar, Union

Record = TypeVar('Record')
_MAX_TEXT = 4096
# What ends a line, moves the cursor or turns the direction of writing.
_CONTROL = re.compile('[\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069]')
_NAMES = {str: 'a text of one line', int: 'an integer', float: 'a number', bool: 'true or false'}


def read_record(kind: Type[Record], data: Any, strict: bool = True) -> Record:
    """
    Return `kind` with the values of a mapping, each of the type that its field has.

    An integer is accepted for a float; a list becomes a tuple where the field is one. The
    texts of a record are of one line, because they end up in logs; those in a list or a dict
    are free.

    :param strict: refuse keys that are no field, instead of passing over them
    :raises ValueError: naming the key that is wrong, missing or unknown.
    """
    if not isinstance(data, dict):
        raise ValueError(f'it holds {reprlib.repr(data)}, not keys with values')
    items, hints = {item.name: item for item in fields(kind)}, get_type_hints(kind)
    unknown = sorted(set(map(str, data)) - set(items))
    if strict and unknown:
        raise ValueError(f'unknown key {reprlib.repr(unknown[0])}')
    missing = [name for name, item in items.items() if name not in data
               and item.default is MISSING and item.default_factory is MISSING]
    if missing:
        raise ValueError(f'{missing[0]} is missing')
    return kind(**{name: _value(name, data[name], hints[name]) for name in items if name in data})


def _value(name: str, value: Any, hint: Any) -> Any:
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any or (origin is Union and value is None):
        return value
    if origin is Union:  # Optional
        return _value(name, value, parts[0])
    if is_dataclass(hint):
        return read_record(hint, value)
    if origin in (list, tuple):
        if isinstance(value, list) and parts[0] is str and _all_texts(value):
            return origin(value)
        if not isinstance(value, (list, tuple)):
            raise ValueError(f'{name} is {reprlib.repr(value)}, not a list')
        return origin(_value(f'{name}[{index}]', part, parts[0])
                      for index, part in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise ValueError(f'{name} is {reprlib.repr(value)}, not values with names')
        if parts[1] is str and _all_texts(value.values()):
            return value
        return {key: _value(f'{name}.{key:.40}', part, parts[1]) for key, part in value.items()}
    if not _fits(value, hint):
        raise ValueError(f'{name} is {reprlib.repr(value)}, not {_NAMES[hint]}')
    return float(value) if hint is float else value


def _all_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _fits(value: Any, kind: type) -> bool:
    if kind is str:
        return isinstance(value, str) and len(value) <= _MAX_TEXT and not _CONTROL.search(value)
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float and isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and abs(value) < 2**63
