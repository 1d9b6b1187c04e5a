"""Transitions of a real lifecycle node whose callbacks raise."""

import pytest
import rclpy
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn

from yolojet_ros.core.errors import UserError
from yolojet_ros.ros.lifecycle import transition

_TRANSITIONS = ('configure', 'activate', 'deactivate', 'cleanup', 'shutdown', 'error')


def _callback(name):
    def callback(self, state):
        if name in self.raising:
            raise self.raising[name]
        return TransitionCallbackReturn.SUCCESS
    callback.__name__ = f'on_{name}'
    return transition(callback)


class _Node(LifecycleNode):
    def __init__(self, raising, **arguments):
        self.raising, self.failures = raising, []
        super().__init__('fragile', **arguments)

    def keep_failure(self, text):
        self.failures.append(text)


for _name in _TRANSITIONS:
    setattr(_Node, f'on_{_name}', _callback(_name))


@pytest.fixture
def make():
    context = Context()
    rclpy.init(context=context)
    nodes = []

    def function(**raising):
        nodes.append(_Node(raising, context=context))
        return nodes[-1]
    yield function
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def _state(node):
    return node._state_machine.current_state[1]


@pytest.mark.parametrize('name,error,state', [
    ('configure', UserError('no model'), 'unconfigured'),
    ('configure', KeyError('roi'), 'unconfigured'),
    ('activate', UserError('odd QoS'), 'inactive'),
    ('activate', RuntimeError('odd\nQoS'), 'unconfigured'),
    ('deactivate', UserError('busy'), 'unconfigured'),
    ('deactivate', ValueError('busy'), 'unconfigured'),
    ('cleanup', OSError('busy'), 'unconfigured'),
])
def test_what_a_transition_raises_is_kept_and_the_state_is_right(make, name, error, state):
    node = make(**{name: error})
    for step in ('configure', 'activate', 'deactivate', 'cleanup'):
        result = getattr(node, f'trigger_{step}')()
        if step == name:
            break
        assert result == TransitionCallbackReturn.SUCCESS
    assert result != TransitionCallbackReturn.SUCCESS
    assert _state(node) == state
    (text,) = node.failures
    assert text.startswith(f'cannot {name}: ') and '\n' not in text
    assert isinstance(error, UserError) or type(error).__name__ in text


def test_an_error_while_freeing_ends_in_finalized(make):
    node = make(configure=KeyError('roi'), error=ValueError('worse'))
    node.trigger_configure()
    assert _state(node) == 'finalized'
    assert len(node.failures) == 2 and 'worse' in node.failures[1]
