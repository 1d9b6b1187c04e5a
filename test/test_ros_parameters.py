"""Parameters: the file in config/, and what becomes of list values."""

from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node
import yaml

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.filters import FilterParams
from yolojet_ros.core.knob_values import parse_list
from yolojet_ros.nodes import detector_parameters
from yolojet_ros.nodes.detector_parameters import DetectorParameters

_FILE = Path(__file__).parent.parent / 'config' / 'detect.yaml'


@pytest.fixture
def make_node():
    context = Context()
    rclpy.init(context=context)
    nodes = []

    def make(*arguments):
        node = Node('detector', context=context, cli_args=['--ros-args', *arguments])
        detector_parameters.declare(node)
        nodes.append(node)
        return node
    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def _flat(values, prefix=''):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, prefix + name + '.')
        else:
            yield prefix + name, value


def test_the_file_holds_every_parameter_with_its_default(make_node):
    node = make_node()
    written = dict(_flat(yaml.safe_load(_FILE.read_text())['/**']['ros__parameters']))
    declared = {name: item.value for name, item in node.get_parameters_by_prefix('').items()
                if name != 'use_sim_time' and not name.startswith('start_type_description')}
    assert set(written) == set(declared)
    assert written.pop('autostart') is True, 'the file is what the launch file starts with'
    for name, value in written.items():
        if value == ['']:
            assert parse_list(declared[name]) == []
        else:
            assert value == declared[name], name


def test_the_file_can_be_loaded_and_read(make_node):
    node = make_node('--params-file', str(_FILE))
    assert DetectorParameters.read(node).filters == DetectorParameters.read(make_node()).filters


def test_every_parameter_has_a_description_and_numbers_have_a_range(make_node):
    node = make_node()
    for name, item in node.get_parameters_by_prefix('').items():
        descriptor = node.describe_parameter(name)
        if name in ('use_sim_time', 'start_type_description_service'):
            continue
        assert len(descriptor.description) > 10, name
        if type(item.value) in (int, float):
            assert descriptor.integer_range or descriptor.floating_point_range, name


@pytest.mark.parametrize('value,expected', [
    ([], []), ([''], []), (None, []), (['a'], ['a']), (['a', ''], ['a', '']), ('a', ['a']),
    ([1, 2], [1, 2])])
def test_empty_lists_have_many_faces(value, expected):
    assert parse_list(value) == expected


@pytest.mark.parametrize('argument,words', [
    ("classes:=[1, 2]", 'list of class names'), ("class_thresholds:=[crate]", 'NAME:VALUE'),
    ("roi:=[0.1, 0.2, 0.3]", 'pairs'), ("roi:=[here]", 'numbers'), ('backend:=gpu', 'one of'),
    ("camera_motion:='on'", 'one of off, auto, flow, topic')])
def test_a_wrong_start_value_is_named(make_node, argument, words):
    with pytest.raises(UserError, match=words):
        DetectorParameters.read(make_node('-p', argument))


def test_an_unknown_class_is_echoed_harmlessly_and_with_a_few_of_the_others():
    filters = FilterParams(classes=('x\n\x1b[31m' + 'y' * 100_000,))
    with pytest.raises(UserError, match='100007 in all.*its classes are c0, c1, ') as error:
        filters.resolve([f'c{index}' for index in range(10_000)])
    assert str(error.value).isprintable() and len(str(error.value)) < 500
    assert '10000 in all' in str(error.value)


@pytest.mark.parametrize('value', ['off', "'off'", 'false'])
def test_off_is_off_however_yaml_reads_it(make_node, value):
    node = make_node('-p', f'camera_motion:={value}')
    assert DetectorParameters.read(node).camera_motion == 'off'


def test_a_good_start_value_is_taken(make_node):
    node = make_node('-p', "class_thresholds:=['crate:0.5', 'traffic light:0.3']",
                     '-p', 'roi:=[0, 0, 1, 0, 1, 1]', '-p', 'tracker.lost_seconds:=3.0')
    read = DetectorParameters.read(node)
    assert read.filters.class_thresholds == (('crate', 0.5), ('traffic light', 0.3))
    assert read.filters.roi == ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))
    assert read.tracker.lost_seconds == 3.0
