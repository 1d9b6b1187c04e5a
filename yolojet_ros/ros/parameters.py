"""ROS parameters from parameter dataclasses, and back; wrong ones refused with a sentence."""

from __future__ import annotations

from dataclasses import fields
import math
from typing import Any, Dict, Iterable, List, Optional, Sequence, Type

from rcl_interfaces.msg import (
    FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult)
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.knob_values import LISTS, polygon
from yolojet_ros.core.text import nearest, one_line, shown

_WANTED = {bool: 'true or false', int: 'an integer', float: 'a number', str: 'a text'}
_TYPES = {Parameter.Type.BOOL: bool, Parameter.Type.INTEGER: int, Parameter.Type.DOUBLE: float,
          Parameter.Type.STRING: str}
_MAX_DEPTH = 10000
_QOS_CHOICES = {
    'reliability': ('auto', 'reliable', 'best_effort', 'system_default', *(
        ('best_available',) if hasattr(ReliabilityPolicy, 'BEST_AVAILABLE') else ())),
    'history': tuple(policy.name.lower() for policy in (
        HistoryPolicy.KEEP_LAST, HistoryPolicy.KEEP_ALL, HistoryPolicy.SYSTEM_DEFAULT)),
}
QOS_POLICIES = (*_QOS_CHOICES, 'depth')


class CheckedParameters:
    """
    A mixin for nodes: a request to set parameters is done or refused with a sentence.

    It stands before rclpy's own check, which takes no integer for a float, deletes
    what can be of any type, and raises for a name that it does not know.
    """

    def set_parameters_atomically(
        self, parameter_list: Sequence[Parameter],
    ) -> SetParametersResult:
        """Set all or none of the parameters; never raises."""
        try:
            wanted = [_conform(self, parameter) for parameter in parameter_list]
            result = super().set_parameters_atomically(wanted)
            for parameter in parameter_list if result.successful else ():
                _describe_polygon(self, parameter.name)
            if result.successful:
                self.after_parameters([parameter.name for parameter in parameter_list])
            return result
        except UserError as error:
            return SetParametersResult(successful=False, reason=str(error))
        except Exception as error:  # a node must not die of what it is asked for
            return SetParametersResult(
                successful=False, reason=(
                    f'refused for {type(error).__name__}: {one_line(str(error))}'))

    def after_parameters(self, names: Sequence[str]) -> None:
        """Do what parameters call for that have been set."""

    def meant(self, name: str, known: Iterable[str]) -> str:
        """Say which of the known names was meant by one that is none of them, or nothing."""
        return nearest(name, known)

    def how_to_change(self, name: str) -> str:
        """Say what to do where a parameter is fixed now."""
        return f'start the node again with -p {name}:=VALUE'


def _conform(node: Any, parameter: Parameter) -> Parameter:
    """Return a parameter in the type that was declared, or raise UserError."""
    name = parameter.name
    if not node.has_parameter(name):
        if name.startswith('qos_overrides.'):  # declared with the subscription, later
            raise UserError(f'{shown(name)} is read from the start only; '
                            + node.how_to_change(name))
        raise UserError(f'{shown(name)} is no parameter of this node'
                        + node.meant(name, node.get_parameters_by_prefix('')))
    if parameter.type_ == Parameter.Type.NOT_SET:
        raise UserError(f'{name} cannot be deleted; set the value that you want instead')
    descriptor = node.describe_parameter(name)
    if descriptor.read_only:
        raise UserError(f'{name} is fixed now; {node.how_to_change(name)}')
    kind = None if descriptor.dynamic_typing else _TYPES.get(Parameter.Type(descriptor.type))
    if kind is None:
        return parameter
    return Parameter(name, value=_checked(name, parameter.value, kind, descriptor))


def _checked(name: str, value: Any, kind: type, descriptor: ParameterDescriptor) -> Any:
    """Return the value as `kind`, which an integer can be where a float is wanted."""
    if kind is float and type(value) is int:
        value = float(value)
    limits = [*descriptor.floating_point_range, *descriptor.integer_range]
    wanted = _WANTED[kind]
    if limits:
        wanted += f' from {limits[0].from_value} to {limits[0].to_value}'
    elif kind is str and type(value) in (bool, int, float):
        wanted += ', in quotes'
    if type(value) is not kind or kind is float and not math.isfinite(value) or limits and not (
            limits[0].from_value <= value <= limits[0].to_value):
        raise UserError(f'{name} is {shown(value)}; set {wanted}')
    return value


def declare(
    node: Node, name: str, default: Any, description: str, minimum: Optional[float] = None,
    maximum: Optional[float] = None, constraints: str = '', read_only: bool = False,
    dynamic: bool = False, choices: Sequence[str] = (),
) -> None:
    """
    Declare one parameter with a full descriptor.

    An empty tuple as default declares a list. Its type is dynamic, because an
    empty list has no type in ROS; `parse_list` checks what arrives. `dynamic`
    does so for a value that YAML may read as another type.

    :param choices: the texts that it may be; checked here, at the start, only
    :raises UserError: if the start value has the wrong type or is out of its range.
    """
    is_list = isinstance(default, tuple)
    kind = None if dynamic or is_list else type(default)
    descriptor = ParameterDescriptor(
        description=description, read_only=read_only, dynamic_typing=kind is None,
        additional_constraints=constraints or ('one of ' + ', '.join(choices) if choices else ''))
    if minimum is not None and isinstance(default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(minimum), to_value=float(maximum))]
    elif minimum is not None and isinstance(default, int):
        descriptor.integer_range = [
            IntegerRange(from_value=int(minimum), to_value=int(maximum), step=1)]
    value = _start_value(node, name, [] if is_list else default)
    if kind is not None:
        value = _checked(name, value, kind, descriptor)
        check_choice(name, value, choices)
    node.declare_parameter(name, value, descriptor, ignore_override=True)


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """:raises UserError: if there are choices and the value is none of them."""
    if choices and value not in choices:
        raise UserError(f'{name} is {shown(value)}; it must be one of ' + ', '.join(choices))


def _start_value(node: Node, name: str, default: Any) -> Any:
    """Return what command line and params files say of a parameter, else the default."""
    # With any type, so that the check and its sentence are ours.
    found = node.declare_parameter(name, default, ParameterDescriptor(dynamic_typing=True))
    node.undeclare_parameter(name)
    return default if found.value is None else found.value


def declare_qos_overrides(node: Node, topic: str, profile: QoSProfile) -> None:
    """
    Declare ROS's QoS overrides of a subscription: reliability, history and depth.

    Reliability is `auto` where the user says nothing: the subscription chooses it.

    :param topic: as resolved
    :param profile: what else holds where the user says nothing
    :raises UserError: naming the parameter, its value and the allowed ones.
    """
    for policy, name in zip(QOS_POLICIES, qos_override_names(topic)):
        if node.has_parameter(name):
            continue
        value = getattr(profile, policy)
        if policy == 'depth':
            declare(node, name, value, f'Images that may wait, of the subscription of {topic}.',
                    1, _MAX_DEPTH, read_only=True)
        else:
            default = 'auto' if policy == 'reliability' else value.name.lower()
            declare(node, name, default, f'{policy} of the subscription of {topic}.',
                    read_only=True, choices=_QOS_CHOICES[policy])


def qos_override_names(topic: str) -> List[str]:
    """Return the names of the QoS overrides of a subscription."""
    return [f'qos_overrides.{topic}.subscription.{policy}' for policy in QOS_POLICIES]


def start_values(node: Node) -> Dict[str, Any]:
    """Return the parameters given by command line and params files."""
    # rclpy tells them by no public name. Without it they are checked when they are declared.
    given = getattr(node, '_parameter_overrides', {})
    return {name: given[name].value for name in sorted(given)}


def warn_of_unknown(node: CheckedParameters, later: Iterable[str] = ()) -> None:
    """
    Name the given parameters that this node does not have, each with the nearest it has.

    :param later: names that will be declared later
    """
    known = [*node.get_parameters_by_prefix(''), *later]
    for name in start_values(node):
        if name not in known:
            node.get_logger().warning(
                f'{shown(name)} is no parameter of this node and has no effect'
                + node.meant(name, known))


def declare_dataclass(
    node: Node, params: Type, prefix: str = '', dynamic: Sequence[str] = (),
) -> None:
    """
    Declare every field of a dataclass of knobs (core/knobs.py), names after `prefix`.

    :param dynamic: names of those that may be of any type; `params` checks them
    """
    for item in fields(params):
        declare(node, prefix + item.name, item.default, item.metadata['description'],
                item.metadata['minimum'], item.metadata['maximum'],
                dynamic=item.name in dynamic)
        _describe_polygon(node, prefix + item.name)


def _describe_polygon(node: Node, name: str) -> None:
    """Let a polygon say its type: rclpy takes that of its value, and makes one up for none."""
    if LISTS.get(name) is polygon:
        node.describe_parameter(name).type = Parameter.Type.DOUBLE_ARRAY.value
