"""When systemd's watchdog is fed: real nodes, a real socket, and what makes them hang."""

import os
import signal
import time

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from models import raw_output, write_model  # noqa: E402
from rclpy.qos import qos_profile_sensor_data  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from ros_peers import NodeProcess, Peer, ROOT  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from service_manager import ServiceManager  # noqa: E402

_WATCHDOG = 0.8  # s
_SECONDS = 60  # that what must come may take on a busy machine
_DETECTOR = 'yolojet_ros.nodes.detector_node'
_BLACK, _WHITE = (np.full((192, 320, 3), level, np.uint8) for level in (0, 255))
_PATH = os.pathsep.join([str(ROOT), str(ROOT / 'test')])


class Watched:
    """A node as a service: its process, what it tells systemd, and its camera."""

    def __init__(self, folder, name, peer, module=_DETECTOR, **parameters):
        self.systemd = ServiceManager(folder / f'{name}.sock', _WATCHDOG)
        self.process = NodeProcess(
            module, folder / f'{name}.log', parameters, {'__ns': f'/{name}'},
            env={**self.systemd.environment, 'PYTHONPATH': _PATH, 'BROKEN': name})
        self.peer, self.name = peer, name
        self.camera = peer.node.create_publisher(
            Image, f'/{name}/image_raw', qos_profile_sensor_data)

    def send(self, image):
        self.peer.send(image, publisher=self.camera)


@pytest.fixture(scope='module')
def services(tmp_path_factory):
    """Start all services of this file at once."""
    folder = tmp_path_factory.mktemp('services')
    answer = raw_output([[160, 96, 80, 60]], [[0.95, 0, 0]], (320, 192))
    models = {
        'loads': {'endless': True}, 'hangs': {'hanging': True}, 'fails': {'fragile': True},
        'executor': {}, 'results': {}}
    peer, made = Peer(), {}
    for name, what in models.items():
        model = write_model(folder / f'{name}.onnx', answer, **what)
        module = 'broken_detector' if name in ('executor', 'results') else _DETECTOR
        made[name] = Watched(folder, name, peer, module, model=str(model), autostart=True)
    made['missing'] = Watched(folder, 'missing', peer, model=str(folder / 'no.onnx'),
                              autostart=True)
    made['camera'] = Watched(folder, 'camera', peer, 'yolojet_ros.nodes.camera_node',
                             width=320, height=192)
    yield made
    for each in made.values():
        each.process.stop(signal.SIGKILL)
        each.systemd.close()
    peer.close()


def _feeds(service, times=3):
    """Wait until a service has fed the watchdog some more times, each in time."""
    before = service.systemd.fed
    service.peer.spin_until(lambda: service.systemd.fed >= before + times, _SECONDS,
                            service.process.log)


def _starves(service, image=None):
    """Wait until the watchdog has got nothing for two of its times, while images come."""
    def starving():
        if image is not None:
            service.send(image)
        service.systemd.take()
        fed = [moment for moment, text in service.systemd.heard if text == 'WATCHDOG=1']
        return fed and time.monotonic() - fed[-1] > 2 * _WATCHDOG
    service.peer.spin_until(starving, _SECONDS, service.process.log)


def test_a_model_that_loads_long_asks_for_time_and_is_not_ready(services):
    service = services['loads']
    service.peer.spin_until(lambda: service.systemd.take().count(
        'EXTEND_TIMEOUT_USEC=30000000') >= 2, _SECONDS, service.process.log)
    assert service.systemd.status == 'loading the model'
    assert 'READY=1' not in service.systemd.take()
    service.process.stop(signal.SIGKILL)  # it computes all the time


def test_ready_comes_after_the_start_and_the_idle_are_fed(services):
    for name in ('hangs', 'fails', 'executor', 'results', 'camera'):
        service = services[name]
        _feeds(service)
        told = service.systemd.take()
        assert told.count('READY=1') == 1
        assert told.index('READY=1') < told.index('WATCHDOG=1')


def test_a_model_that_is_not_there_is_said_and_no_new_process_mends_it(services):
    service = services['missing']
    _feeds(service)
    service.peer.spin_until(lambda: 'no model file' in service.systemd.status, _SECONDS)
    assert 'READY=1' in service.systemd.take()


def test_fed_while_frames_flow_and_not_when_the_network_hangs(services):
    service = services['hangs']

    def flowing():
        service.send(_BLACK)
        return service.systemd.status == 'detector: detecting'
    service.peer.spin_until(flowing, _SECONDS, service.process.log)
    _feeds(service)
    hung = time.monotonic()
    _starves(service, _WHITE)
    # A network that is slow for once is not one that hangs.
    assert time.monotonic() - hung > 5
    service.process.wait_for_output('an image has been in work for')
    assert 'an image has been in work for' in service.systemd.status
    service.process.stop(signal.SIGKILL)


def test_not_fed_after_the_network_failed(services):
    service = services['fails']
    _starves(service, _WHITE)
    assert 'the network has failed' in service.systemd.status


def test_not_fed_by_an_executor_that_hangs(services):
    service = services['executor']
    client = service.peer.node.create_client(SetParameters, '/executor/detector/set_parameters')
    service.peer.spin_until(client.service_is_ready, _SECONDS)
    client.call_async(SetParameters.Request(parameters=[_threshold()]))
    _starves(service)


def _threshold():
    from rclpy.parameter import Parameter
    return Parameter('score_threshold', value=0.4).to_parameter_msg()


def test_not_fed_where_images_come_and_no_results(services):
    service = services['results']
    service.peer.spin_until(lambda: service.camera.get_subscription_count(), _SECONDS)
    _starves(service, _BLACK)
    assert 'an image has been in work for' in service.systemd.status


@pytest.mark.parametrize('name', ['missing', 'camera', 'fails'])
def test_the_end_is_told(services, name):
    service = services[name]
    # What systemd does not take, it is not told.
    service.peer.spin_until(lambda: 'READY=1' in service.systemd.take(), _SECONDS)
    assert service.process.stop() == 0, service.process.output
    assert service.systemd.take()[-1] == 'STOPPING=1'
    output = service.process.output
    assert 'Traceback' not in output, output
