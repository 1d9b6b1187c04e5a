"""The doctor in a running graph: real cameras and listeners over DDS, and images of its own."""

import copy
import re
import sys
import threading
import time

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from doctor_machines import check  # noqa: E402
from ros_peers import DOMAIN, environment, set_stamp  # noqa: E402
import rclpy  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from vision_msgs.msg import Detection2DArray  # noqa: E402

from yolojet_ros.cli import image_test  # noqa: E402
from yolojet_ros.operate.doctor.system import Probed, System  # noqa: E402

RELIABLE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
SIMULATED = 1000.0  # s that /clock tells


class Told(System):
    """A graph as a probe has told of it, changed."""

    def __init__(self, told):
        super().__init__(environ=environment())
        self._told = told

    def probe(self, name, *arguments):
        """Return what was told."""
        return Probed({**self._told, 'ended': True})


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """Return an engine without a card."""
    path = tmp_path_factory.mktemp('model') / 'yolo.engine'
    path.write_bytes(b'plan')
    return path


@pytest.fixture(scope='module')
def system(model):
    """Return this machine while cameras, listeners and a simulator run."""
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    executor = SingleThreadedExecutor(context=context)
    nodes = {}
    for name in ('driver', 'consumer', 'detector', 'sim'):
        nodes[name] = rclpy.create_node(name, context=context)
        executor.add_node(nodes[name])
    nodes['detector'].declare_parameter('model', str(model))
    nodes['sim'].declare_parameter('model', '')
    nodes['sim'].set_parameters([rclpy.parameter.Parameter('use_sim_time', value=True)])
    driver, ages = nodes['driver'], {'good': 0.0, 'late': -100.0, 'sim': None, 'bad': 0.0}
    publishers = {name: driver.create_publisher(
        Image, f'/{name}/image_raw', BEST_EFFORT if name == 'bad' else RELIABLE) for name in ages}
    clock = driver.create_publisher(Clock, '/clock', RELIABLE)
    nodes['detector'].create_publisher(Detection2DArray, '/good/detections', 5)
    for owner, name, qos in (('detector', 'good', BEST_EFFORT), ('sim', 'sim', BEST_EFFORT),
                             ('consumer', 'bad', RELIABLE)):
        nodes[owner].create_subscription(Image, f'/{name}/image_raw', lambda message: None, qos)

    def publish():
        for name, age in ages.items():
            message = Image()
            set_stamp(message.header, SIMULATED if age is None else time.time() - age)
            publishers[name].publish(message)
        message = Clock()
        message.clock.sec = int(SIMULATED)
        clock.publish(message)

    driver.create_timer(0.05, publish)

    def spin():
        try:
            executor.spin()
        except ExternalShutdownException:
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    yield System(environ=environment())
    context.try_shutdown()
    thread.join()
    for node in nodes.values():
        node.destroy_node()


@pytest.fixture
def told(system):
    """Return what the probe tells of that graph, to be changed."""
    system.limit = 30.0
    probed = system.probe('graph', '')
    assert probed.crash == '', probed
    return copy.deepcopy(probed.told)


def test_a_listener_that_fits_no_camera_is_named(system):
    finding = check(system, 'cameras')
    assert finding.status == 'fail'
    assert finding.found == ('/bad/image_raw: /driver offers BEST_EFFORT, VOLATILE, /consumer '
                             'requests RELIABLE, VOLATILE')
    assert finding.command.startswith(
        'qos_overrides./bad/image_raw.subscription.reliability: best_effort')


def test_a_graph_that_is_well(told):
    told['cameras'] = [item for item in told['cameras'] if not item['unfit']]
    finding = check(Told(told), 'cameras')
    assert finding.status == 'ok'
    assert '/good/image_raw (RELIABLE, VOLATILE, 1 listeners)' in finding.found
    assert check(Told({**told, 'cameras': []}), 'cameras').status == 'skipped'


def test_what_a_parameter_file_requests_counts(told, tmp_path):
    told['cameras'] = [dict(item, unfit=[]) for item in told['cameras']]
    path = tmp_path / 'params.yaml'
    text = ('/**:\n  ros__parameters:\n    qos_overrides:\n      {topic}:\n'
            '        subscription: {{reliability: reliable}}\n')
    path.write_text(text.format(topic='/bad/image_raw'))
    finding = check(Told(told), 'cameras', params_file=str(path))
    assert finding.status == 'fail' and 'requests RELIABLE images of /bad/image_raw' in (
        finding.found)
    path.write_text(text.format(topic='/good/image_raw'))
    assert check(Told(told), 'cameras', params_file=str(path)).status == 'ok'


def test_a_topic_that_nobody_publishes(told):
    told['cameras'] = [dict(item, unfit=[]) for item in told['cameras']]
    (good,) = [item for item in told['cameras'] if item['name'] == '/good/image_raw']
    good['publishers'] = []
    finding = check(Told(told), 'cameras')
    assert finding.status == 'warn' and finding.found.startswith(
        '/detector listens to /good/image_raw, which nobody publishes; there are /bad/image_raw')


def test_stamps_of_another_clock(system):
    finding = check(system, 'stamps')
    assert finding.status == 'warn'
    assert finding.found == 'an image of /late/image_raw is 100.00 s in the future by the clock '\
        'of a detector'
    assert 'in the future; set the clocks alike' in finding.meaning


def test_stamps_of_a_simulator(told):
    late = told['stamps'].pop('/late/image_raw')
    assert set(told['stamps']) == {f'/{name}/image_raw' for name in ('good', 'sim', 'bad')}
    assert set(late) == {'stamp', 'system', 'simulated'}
    finding = check(Told(told), 'stamps')
    assert finding.status == 'ok' and '/sim/image_raw 0 ms' in finding.found
    told['parameters']['/sim']['use_sim_time'] = False
    finding = check(Told(told), 'stamps')
    assert finding.status == 'warn' and finding.command == 'ros2 param set /sim use_sim_time true'
    told['parameters'] = {'/detector': {'use_sim_time': True}}
    assert check(Told(dict(told, stamps={
        '/good/image_raw': told['stamps']['/good/image_raw']})), 'stamps').command == (
        'ros2 param set /detector use_sim_time false')
    told['stamps']['/good/image_raw'].pop('simulated')
    assert 'nobody publishes /clock' in check(Told(told), 'stamps').found
    told['stamps']['/good/image_raw']['stamp'] = 0
    assert 'are stamped 0' in check(Told(told), 'stamps').found
    assert check(Told({**told, 'stamps': {}}), 'stamps').status == 'skipped'


def test_types_of_messages_on_the_wire(system, told):
    if not told['hashes']:
        pytest.skip('this ROS 2 tells no type hashes')
    assert check(system, 'message_types').status == 'ok'
    told['hashes'][0][1] = 'RIHS01_' + '0' * 64
    finding = check(Told(told), 'message_types')
    assert finding.status == 'fail'
    assert finding.found.startswith('/detector has another vision_msgs/msg/Detection2DArray')
    assert check(Told({'hashes': []}), 'message_types').status == 'skipped'


def test_the_engine_of_the_running_detector(system, model):
    finding = check(system, 'engine')
    assert finding.found.startswith(f'{model.name} has no {model.name}.json')


def test_rclpy_and_messages_work():
    here = System(environ=environment())
    assert check(here, 'rclpy').found.startswith('ROS 2 ') and check(here, 'rclpy').status == 'ok'
    assert check(here, 'vision_msgs').status in ('ok', 'skipped')


def test_a_graph_that_cannot_be_joined():
    here = System(environ=environment(ROS_DOMAIN_ID='robot'))
    finding = check(here, 'cameras')
    assert finding.status == 'fail' and finding.found.startswith('the graph cannot be looked at')


def test_images_get_from_one_process_to_another():
    here = System(environ=environment())
    finding = check(here, 'images', images=image_test.command())
    arrived = dict(reversed(pair) for pair in re.findall(
        r'(\d+) of 20 (\S+) images arrived, [\d.]+ ms old \(p99 [\d.]+\)', finding.found))
    # A busy machine may lose one of those that nobody sends again.
    assert set(arrived) == {'best-effort', 'reliable'}, finding
    assert min(map(int, arrived.values())) >= 10, finding


@pytest.mark.parametrize('code, words', [
    ('print(\'@yolojet-doctor {"rows": [{"qos": "reliable", "sent": 20, "received": 0}], '
     '"ended": true}\')', 'no image gets from one process'),
    ('print(\'@yolojet-doctor {"rows": [{"qos": "reliable", "sent": 20, "received": 18, '
     '"p50": 8, "p99": 9}], "ended": true}\')', 'images are lost on their way'),
    ('print(\'@yolojet-doctor {"rows": [{"qos": "reliable", "sent": 20, "received": 20, '
     '"p50": 80, "p99": 90}], "ended": true}\')', 'arrive late'),
    ('print(\'@yolojet-doctor {"error": "the echo node was ended", "ended": true}\')',
     'cannot run: the echo node was ended'),
    ('import os; print("participant"); os.abort()', 'SIGABRT')])
def test_images_that_do_not_arrive(code, words):
    finding = check(System(environ=environment()), 'images', images=[sys.executable, '-c', code])
    assert finding.status in ('warn', 'fail') and words in f'{finding.found} {finding.meaning}'
