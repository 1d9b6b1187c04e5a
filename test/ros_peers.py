"""Start nodes as processes and talk to them over DDS, as a robot would."""

from __future__ import annotations

import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import shared_memory
from yolojet_ros.ros import middleware

middleware.prepare()

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
import numpy as np  # noqa: E402
from rcl_interfaces.srv import (  # noqa: E402
    DescribeParameters, GetParameters, SetParameters, SetParametersAtomically)
import rclpy  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import qos_profile_sensor_data  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from vision_msgs.msg import Detection2DArray  # noqa: E402

from yolojet_ros.ros.images import fill_image  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
# Domains above 101 use ports that the system hands out; each test process has its own.
DOMAIN = 1 + os.getpid() % 100


def environment(**values):
    """Return the environment of a process on the tests' own domain, with `values` in it."""
    return {**os.environ, 'ROS_DOMAIN_ID': str(DOMAIN), 'PYTHONPATH': str(ROOT),
            'RCUTILS_LOGGING_BUFFERED_STREAM': '0', **values}


class NodeProcess:
    """
    A node in a process of its own, on the tests' own domain.

    :param module: module to run
    :param parameters: ROS parameters by name
    :param remaps: remappings by topic
    :param ros_args: further arguments, such as ('--log-level', 'detector:=debug')
    """

    def __init__(self, module, log, parameters=None, remaps=None, env=None, python=None,
                 ros_args=()):
        arguments = ['--ros-args', *ros_args]
        for name, value in (parameters or {}).items():
            arguments += ['-p', f'{name}:={_yaml(value)}']
        for old, new in (remaps or {}).items():
            arguments += ['-r', f'{old}:={new}']
        self.log = Path(log)
        with self.log.open('w') as stream:
            self.process = subprocess.Popen(
                [python or sys.executable, '-m', module, *arguments], cwd=ROOT,
                env=environment(**(env or {})), stdout=stream, stderr=subprocess.STDOUT)

    @property
    def output(self):
        """Return what the process has printed so far."""
        return self.log.read_text(errors='replace')

    def wait_for_output(self, text, seconds=20):
        """Wait until `text` was printed."""
        wait_until(lambda: text in self.output, seconds, lambda: f'{text!r} in:\n{self.output}')

    def memory(self):
        """Return resident memory in MiB."""
        pages = int(Path(f'/proc/{self.process.pid}/statm').read_text().split()[1])
        return pages * os.sysconf('SC_PAGE_SIZE') / 2**20

    def threads(self):
        """Return how many threads the process has."""
        return len(list(Path(f'/proc/{self.process.pid}/task').iterdir()))

    def alive(self):
        """Return whether the process runs."""
        return self.process.poll() is None

    def stop(self, number=signal.SIGINT):
        """Send a signal and return the exit code."""
        if self.alive() and number == signal.SIGKILL:
            shared_memory.kill(self.process.pid)
        elif self.alive():
            self.process.send_signal(number)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            shared_memory.kill(self.process.pid)
            raise AssertionError(f'did not stop within 10 s:\n{self.output}') from None


def _yaml(value):
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else str(value)


def wait_until(condition, seconds=10, describe=lambda: ''):
    """Wait until `condition()` is true and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        time.sleep(0.01)
    raise AssertionError(f'not within {seconds} s: {describe()}')


class Peer:
    """The other side: a camera, a consumer and an operator of one detector."""

    def __init__(self, node='detector', image_topic='image_raw'):
        self.context = Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.node = rclpy.create_node('peer', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.detector = node
        self.results = []
        self.statuses = []
        self.image_publisher = self.node.create_publisher(Image, image_topic, qos_profile_sensor_data)
        self.node.create_subscription(
            Detection2DArray, 'detections', self.results.append, 50)
        self.node.create_subscription(
            DiagnosticArray, '/diagnostics',
            lambda message: self.statuses.extend(message.status), 50)
        self._clients = {}

    def close(self):
        """Leave the domain."""
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def spin_until(self, condition, seconds=10, what=''):
        """Take messages until `condition()` is true; return it."""
        end = time.monotonic() + seconds
        while True:
            result = condition()
            if result:
                return result
            if time.monotonic() > end:
                raise AssertionError(f'not within {seconds} s: {what}')
            self.executor.spin_once(timeout_sec=0.05)

    def call(self, kind, service, request, seconds=20):
        """Call a service of the detector and return the response."""
        name = f'/{self.detector}/{service}'
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
        client = self._clients[name]
        self.spin_until(client.service_is_ready, seconds, f'{name} is not there')
        future = client.call_async(request)
        self.spin_until(future.done, seconds, f'{name} does not answer')
        return future.result()

    # ---- operator

    def change_state(self, transition):
        """Request a lifecycle transition by name; return whether it succeeded."""
        number = getattr(Transition, f'TRANSITION_{transition.upper()}')
        request = ChangeState.Request(transition=Transition(id=number))
        return self.call(ChangeState, 'change_state', request).success

    def state(self):
        """Return the lifecycle state's name."""
        return self.call(GetState, 'get_state', GetState.Request()).current_state.label

    def set_parameters(self, **values):
        """Set parameters together; '.' is written '__'. Return '' or why they were refused."""
        request = SetParametersAtomically.Request(parameters=[
            _parameter(name.replace('__', '.'), value) for name, value in values.items()])
        result = self.call(
            SetParametersAtomically, 'set_parameters_atomically', request).result
        return '' if result.successful else (result.reason or 'no reason')

    def set_each(self, *messages):
        """Set parameter messages one by one, as `ros2 param` does; return why each was refused."""
        request = SetParameters.Request(parameters=list(messages))
        results = self.call(SetParameters, 'set_parameters', request).results
        return ['' if result.successful else (result.reason or 'no reason') for result in results]

    def get_parameter(self, name):
        """Return a parameter's message."""
        request = GetParameters.Request(names=[name])
        return self.call(GetParameters, 'get_parameters', request).values[0]

    def describe(self, *names):
        """Return the parameters' descriptors."""
        request = DescribeParameters.Request(names=list(names))
        return self.call(DescribeParameters, 'describe_parameters', request).descriptors

    # ---- camera and consumer

    def wait_for_subscriber(self, publisher=None):
        """Wait until images get through to the detector and results back to us."""
        publisher = publisher or self.image_publisher
        self.spin_until(publisher.get_subscription_count, 20, 'nobody subscribes')
        # The two sides of a connection learn of each other at different moments.
        for _ in range(40):
            self.send(publisher=publisher, frame_id='handshake')
            end = time.monotonic() + 0.25
            while not self.results and time.monotonic() < end:
                self.executor.spin_once(timeout_sec=0.05)
            if self.results:
                return
        raise AssertionError('no image gets through')

    def send(self, image=None, stamp=None, frame_id='camera', publisher=None, **fields):
        """Publish an image; `fields` overwrite the message's. Return the message."""
        message = Image()
        fill_image(message, np.zeros((384, 640, 3), np.uint8) if image is None else image, 'bgr8')
        message.header.frame_id = frame_id
        set_stamp(message.header, time.time() if stamp is None else stamp)
        for name, value in fields.items():
            setattr(message, name, value)
        (publisher or self.image_publisher).publish(message)
        return message

    def detect(self, image=None, **arguments):
        """Publish an image and return its result."""
        self.results.clear()
        self.send(image, **arguments)
        self.spin_until(lambda: self.results, 10, 'no result')
        return self.results[-1]

    def status(self, condition=lambda values: True, seconds=10, about=None):
        """
        Return (status, its values as dict) of the next diagnostics that fit.

        `about` is what stands behind the node's name; else what the node is for.
        """
        node = self.detector.lstrip('/')
        about = about or ('camera' if node == 'camera' else 'detector')
        self.statuses.clear()

        def found():
            for status in self.statuses:
                values = {item.key: item.value for item in status.values}
                name, _, what = status.name.partition(': ')
                if (name.lstrip('/') == node and what.split()[0] == about
                        and condition(values)):
                    return status, values
            return None
        return self.spin_until(found, seconds, 'no such diagnostics')


def _parameter(name, value):
    kind = Parameter.Type.STRING_ARRAY if value == [] else None
    if kind:
        return Parameter(name, kind, value).to_parameter_msg()
    return Parameter(name, value=value).to_parameter_msg()


def set_stamp(header, seconds):
    """Set a header's stamp from seconds."""
    header.stamp.sec = int(seconds)
    header.stamp.nanosec = int((seconds - int(seconds)) * 1e9)
