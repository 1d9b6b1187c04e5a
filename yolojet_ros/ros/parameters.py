"""ROS parameters from parameter dataclasses, and back."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Type, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from yolojet_ros.core.errors import UserError

Params = TypeVar('Params')


def declare(
    node: Node, name: str, default: Any, description: str, minimum: Optional[float] = None,
    maximum: Optional[float] = None, constraints: str = '', read_only: bool = False,
    dynamic: bool = False,
) -> None:
    """
    Declare one parameter with a full descriptor.

    An empty tuple as default declares a list. Its type is dynamic, because an
    empty list has no type in ROS; `parse_list` checks what arrives. `dynamic`
    does so for a value that YAML may read as another type.
    """
    is_list = isinstance(default, tuple)
    descriptor = ParameterDescriptor(
        description=description, additional_constraints=constraints, read_only=read_only,
        dynamic_typing=dynamic or is_list)
    if minimum is not None and isinstance(default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(minimum), to_value=float(maximum))]
    elif minimum is not None and isinstance(default, int):
        descriptor.integer_range = [
            IntegerRange(from_value=int(minimum), to_value=int(maximum), step=1)]
    node.declare_parameter(name, [] if is_list else default, descriptor)


def declare_dataclass(node: Node, params: Type, prefix: str = '') -> None:
    """Declare every field of a dataclass of knobs (core/knobs.py), names after `prefix`."""
    for item in fields(params):
        declare(node, prefix + item.name, item.default, item.metadata['description'],
                item.metadata['minimum'], item.metadata['maximum'])


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
        parse = _LISTS.get(item.name)
        arguments[item.name] = parse(item.name, parse_list(value)) if parse else value
    return params(**arguments)


def parse_list(value: Any) -> List[Any]:
    """Return a list parameter's entries; `['']` is empty, as YAML files often need it."""
    entries = list(value) if value is not None and not isinstance(value, (str, bytes)) else [value]
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
            raise UserError(f'{name} holds {entry!r}; it must be a list of {what}')
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
                f'{name} holds {entry!r}; each entry must be NAME:VALUE, such as "person:0.5"')
    return tuple(pairs)


def _polygon(name: str, entries: Sequence[Any]) -> Tuple[Tuple[float, float], ...]:
    try:
        numbers = [float(entry) for entry in entries]
    except (TypeError, ValueError):
        raise UserError(
            f'{name} is {list(entries)!r}; it must be numbers x1, y1, x2, y2, ...') from None
    if len(numbers) % 2:
        raise UserError(
            f'{name} has {len(numbers)} numbers; it must be pairs x1, y1, x2, y2, ...')
    return tuple(zip(numbers[::2], numbers[1::2]))


_LISTS: Dict[str, Callable[[str, Sequence[Any]], tuple]] = {
    'classes': _class_names,
    'class_thresholds': _class_thresholds,
    'roi': _polygon,
}
