"""Who may talk to the nodes: the SROS 2 policy against the running graph, and what it refuses."""

from collections import defaultdict
from contextlib import suppress
from importlib.util import find_spec
import json
import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from models import write_model, write_task_model  # noqa: E402
import numpy as np  # noqa: E402
import rclpy  # noqa: E402
from rclpy.context import Context  # noqa: E402
from ros_peers import DOMAIN, environment, NodeProcess, Peer, ROOT, wait_until  # noqa: E402
import security_policy  # noqa: E402
from yolojet_ros.nodes.engine_builder_node import EngineBuilderNode  # noqa: E402
from yolojet_ros.nodes.outputs.outputs import OUTPUTS  # noqa: E402

try:
    from bondpy.bondpy import Bond
except ImportError:
    Bond = None

_NODES = {'detector', 'camera', 'engine_builder', 'monitor', 'echo'}
_TASKS = ('detect', 'segment', 'pose', 'obb', 'classify')
# What the policy has and the graph not, where bondpy is not installed, and before Jazzy.
_ABSENT = set() if Bond else {'/bond'}
if find_spec('rclpy.type_description_service') is None:
    _ABSENT |= {f'/{name}/get_type_description' for name in _NODES}


class _Graph:
    """What the nodes have, as far as it was seen: {node: {direction: names}}."""

    def __init__(self, peer):
        self._node = peer.node
        self.seen = defaultdict(lambda: defaultdict(set))

    def nodes(self):
        """Return the names of all nodes but the one that looks."""
        return {name for name, _ in self._node.get_node_names_and_namespaces()} - {'peer'}

    def take(self, node, **awaited):
        """Add what a node has to what was seen of it, once it has what is awaited; return it."""
        wait_until(lambda: node in self.nodes(), 20, self.nodes)
        found = wait_until(lambda: self._with(node, awaited), 20,
                           lambda: f'{node}: {awaited}, but {self._with(node, {})}')
        self._add(node, found)
        return found

    def take_all(self, node, allowed):
        """Add what a node has until that is all that it is allowed, or for some seconds."""
        def complete():
            if node in self.nodes():
                self._add(node, self._with(node, {}))
            return all(names - _ABSENT <= self.seen[node][direction]
                       for direction, names in allowed.items())
        with suppress(AssertionError):  # whoever compares says it better
            wait_until(complete, 5)

    def _add(self, node, names_by_direction):
        for direction, names in names_by_direction.items():
            self.seen[node][direction] |= names

    def _with(self, node, awaited):
        look = self._node
        has = {direction: {name for name, _ in ask(node, '/')} for direction, ask in (
            ('publish', look.get_publisher_names_and_types_by_node),
            ('subscribe', look.get_subscriber_names_and_types_by_node),
            ('reply', look.get_service_names_and_types_by_node),
            ('request', look.get_client_names_and_types_by_node))}
        return has if all(names <= has[key] for key, names in awaited.items()) else None


def _models(folder):
    """Return a model file a task."""
    extra = {'detect': (), 'segment': [[0, 1]], 'pose': [[10, 20, 0.9]], 'obb': [[0.5]]}
    found = {task: write_task_model(
        folder / f'{task}.onnx', task, [[160, 96, 80, 60]], [[0.95, 0, 0]], more)
        for task, more in extra.items()}
    found['classify'] = write_model(
        folder / 'classify.onnx', np.array([[0.2, 0.7, 0.1]]), metadata={'task': 'classify'})
    return found


def _detect(peer, graph, task, model, image, namespaces=('',), **parameters):
    """Bring the detector through all states with a model; return what it had when active."""
    assert peer.set_parameters(model=str(model), **parameters) == ''
    assert peer.change_state('configure') and peer.change_state('activate')
    prefixes = [f'{namespace}/' for namespace in namespaces]
    has = graph.take(
        'detector', subscribe={prefix + image for prefix in prefixes},
        publish={prefix + kind.topic for prefix in prefixes for kind in OUTPUTS
                 if task in kind.tasks})
    assert peer.change_state('deactivate') and peer.change_state('cleanup')
    return has


@pytest.fixture(scope='module')
def graph(tmp_path_factory):
    """Return what all nodes have been seen to have; `cameras`: the detector of two cameras."""
    folder = tmp_path_factory.mktemp('graph')
    models = _models(folder)
    processes = [
        NodeProcess(f'yolojet_ros.nodes.{name}_node', folder / f'{name}.log', parameters)
        for name, parameters in (
            ('detector', {}), ('camera', {'use_sim_time': True}),
            ('monitor', {'use_sim_time': True, 'out': str(folder)}),
            ('echo', {'use_sim_time': True, 'out': str(folder / 'echo.json')}))]
    peer, context = Peer(), Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    # Its process would be gone before anybody can ask: there is nothing to build.
    builder = EngineBuilderNode(context=context, parameter_overrides=[
        rclpy.parameter.Parameter('use_sim_time', value=True)])
    graph = _Graph(peer)
    try:
        for task in _TASKS:
            _detect(peer, graph, task, models[task], 'image_raw')
        _detect(peer, graph, 'detect', models['detect'], 'image_raw/compressed',
                transport='compressed')
        assert peer.set_parameters(use_sim_time=True) == ''
        graph.take('detector', subscribe={'/clock'})
        allowed = security_policy.read(security_policy.POLICY)
        for node in _NODES:
            graph.take_all(node, allowed[f'/yolojet/{node}'])
        graph.all_nodes = graph.nodes()
        single = {key: set(names) for key, names in graph.seen['detector'].items()}
        graph.cameras = _detect(
            peer, graph, 'segment', models['segment'], 'image_raw', ('/front', '/rear'),
            cameras=['front', 'rear'], transport='raw')
        graph.seen['detector'] = single
        yield graph
    finally:
        builder.destroy_node()
        rclpy.shutdown(context=context)
        peer.close()
        codes = [process.stop() for process in processes]
    assert codes == [0] * len(processes)


def test_each_node_has_an_enclave(graph):
    assert set(security_policy.read(security_policy.POLICY)) == {
        f'/yolojet/{name}' for name in _NODES}
    assert graph.all_nodes == _NODES, 'a process has one node, that of its enclave'


@pytest.mark.parametrize('node', sorted(_NODES))
@pytest.mark.parametrize('direction', security_policy.DIRECTIONS)
def test_the_policy_allows_what_the_node_has_and_no_more(graph, node, direction):
    allowed = security_policy.read(security_policy.POLICY)[f'/yolojet/{node}'][direction]
    has = graph.seen[node][direction]
    assert has - allowed == set(), 'the policy forbids what the node has'
    assert allowed - has - _ABSENT == set(), 'the policy allows what no node has'


def test_for_several_cameras_a_profile_is_repeated(graph):
    names = security_policy.read(
        security_policy.POLICY, ('/front', '/rear'))['/yolojet/detector']
    for direction in security_policy.DIRECTIONS:
        assert graph.cameras[direction] <= names[direction]
    for camera in ('front', 'rear'):
        assert {f'/{camera}/detections', f'/{camera}/class_mask'} <= graph.cameras['publish']
        assert {f'/{camera}/image_raw', f'/{camera}/camera_motion'} <= graph.cameras['subscribe']


# ---- enforced


def _secured(keystore, enclave):
    """Return the environment of a node in an enclave."""
    return {'ROS_SECURITY_ENABLE': 'true', 'ROS_SECURITY_STRATEGY': 'Enforce',
            'ROS_SECURITY_KEYSTORE': str(keystore), 'ROS_SECURITY_ENCLAVE_OVERRIDE': enclave}


@pytest.fixture(scope='module')
def keys(tmp_path_factory):
    """Return a keystore that was made of the policies and of nothing else."""
    keystore = pytest.importorskip('keystore')
    return keystore.make(tmp_path_factory.mktemp('keys'), DOMAIN, security_policy.POLICY,
                         security_policy.OPERATOR)


def test_who_operates_may_call_all_services_and_hear_all_topics():
    policy = security_policy.read(security_policy.POLICY)
    operator = security_policy.read(security_policy.OPERATOR)['/yolojet/operator']
    watched = [policy[f'/yolojet/{name}'] for name in ('detector', 'camera')]
    assert operator['request'] == set.union(*(names['reply'] for names in watched))
    assert operator['subscribe'] == {'/clock'}.union(*(names['publish'] for names in watched))
    assert operator['publish'] == {'/parameter_events', '/rosout'}


@pytest.mark.parametrize('file', [security_policy.POLICY, security_policy.OPERATOR])
def test_the_schema_of_sros2_accepts_it(file):
    pytest.importorskip('sros2', reason='sros2 is a ROS package, not installed here')
    from sros2.policy import load_policy
    load_policy(file)


def test_without_keys_no_node_starts_and_one_sentence_says_why(keys, tmp_path):
    refused = {name: NodeProcess(
        'yolojet_ros.nodes.camera_node', tmp_path / name, env=env) for name, env in (
            ('no store', {**_secured('', ''), 'ROS_SECURITY_ENCLAVE_OVERRIDE': ''}),
            ('no enclave', _secured(keys, '/yolojet/nobody')))}
    codes = {name: process.process.wait(30) for name, process in refused.items()}
    assert codes == {'no store': 2, 'no enclave': 2}
    assert 'ROS_SECURITY_KEYSTORE is not set' in refused['no store'].output
    assert "nobody' does not exist; make it with" in refused['no enclave'].output
    assert all('Traceback' not in process.output for process in refused.values())


@pytest.fixture
def secured(keys, tmp_path):
    """Start camera and detector in their enclaves; skip where Fast DDS has no security."""
    started = [NodeProcess(
        f'yolojet_ros.nodes.{name}_node', tmp_path / name, values,
        env=_secured(keys, f'/yolojet/{name}')) for name, values in (
            ('camera', {'rate': 10.0}), ('detector', {'autostart': True}))]
    try:
        wait_until(lambda: 'publishing' in started[0].output or not started[0].alive(), 30)
        if not started[0].alive():
            assert 'Fast DDS was built without security' in started[0].output
            assert [process.process.wait(30) for process in started] == [2, 2]
            pytest.skip('this Fast DDS was built without security')
        yield started
    finally:
        for process in started:
            process.stop()


def test_only_who_has_an_identity_hears_images_and_sets_parameters(secured, keys):
    environments = {'operator': environment(**_secured(keys, '/yolojet/operator')),
                    'stranger': environment()}
    processes = {name: subprocess.Popen(
        [sys.executable, ROOT / 'test' / 'listening_node.py', '15' if name == 'operator' else '6'],
        env=env, stdout=subprocess.PIPE, text=True) for name, env in environments.items()}
    said = {name: json.loads(process.communicate(timeout=40)[0])
            for name, process in processes.items()}
    assert said['operator']['images'] and said['operator']['detections'], 'camera to detector'
    assert said['operator']['set'] is True
    assert said['stranger'] == {
        'images': 0, 'detections': 0, 'set': False, 'nodes': ['operator']}, 'knows itself only'
