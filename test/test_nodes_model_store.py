"""Telling a node, over DDS, that the store has another active version."""

import threading
import time

from ros_peers import DOMAIN
import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import Trigger

from yolojet_ros.cli import model_store_node
from yolojet_ros.cli.model_store_node import load_model
from yolojet_ros.core.errors import RunFailed


@pytest.fixture
def answer(monkeypatch):
    """Offer /camera/detector/load_model, and return the dict that says what it answers."""
    monkeypatch.setenv('ROS_DOMAIN_ID', str(DOMAIN))
    answer = {'success': True, 'message': '1.2.0 runs since frame 712', 'seconds': 0.0}

    def load(_, response):
        time.sleep(answer['seconds'])
        response.success, response.message = answer['success'], answer['message']
        return response

    context = Context()
    rclpy.init(args=[], context=context, domain_id=DOMAIN)
    node = rclpy.create_node('detector', namespace='/camera', context=context)
    node.create_service(Trigger, '~/load_model', load)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=_spin, args=(executor, context))
    thread.start()
    yield answer
    rclpy.shutdown(context=context)
    thread.join(10)


def _spin(executor, context):
    while context.ok():
        try:
            executor.spin_once(timeout_sec=0.1)
        except Exception:  # the context ends in between
            if context.ok():
                raise


def test_its_answer_is_ours(answer, monkeypatch):
    said = []
    assert load_model('/camera/detector', 20, said.append) == (
        '/camera/detector: 1.2.0 runs since frame 712')
    answer.update(success=False, message='the boxes differ')
    with pytest.raises(RunFailed, match='has not taken it: the boxes differ'):
        load_model('camera/detector', 20, said.append)
    assert said == []
    answer.update(seconds=1.5)
    with pytest.raises(RunFailed, match='has not answered within 1 s'):
        load_model('/camera/detector', 1, said.append)
    assert said[0].startswith('/camera/detector is loading ... ')
    monkeypatch.setattr(model_store_node, '_FOUND_SECONDS', 0.5)
    with pytest.raises(RunFailed, match='no service /detector/load_model'):
        load_model('/detector', 20, said.append)
