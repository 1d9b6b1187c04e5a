"""`yolojet health` asks real nodes, and one that plays what they cannot."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from models import raw_output, write_model  # noqa: E402
from ros_peers import environment, NodeProcess, Peer, ROOT, set_stamp  # noqa: E402
from yolojet_ros.ros.topics import LATEST  # noqa: E402


def _ask(*arguments, timeout=30, **values):
    """Start the command; what should be found may take long on a busy machine."""
    return subprocess.Popen(
        [sys.executable, '-m', 'yolojet_ros', 'health', f'--timeout={timeout}', *arguments],
        env=environment(**values), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _answer(process):
    output, errors = process.communicate(timeout=90)
    return process.returncode, output + errors


@pytest.fixture(scope='module')
def nodes(tmp_path_factory):
    """Start nodes in different states; return the detector that works, and its camera."""
    folder = tmp_path_factory.mktemp('health')
    model = str(write_model(folder / 'model.onnx', raw_output(
        [[160, 96, 80, 60]], [[0.95, 0, 0]], (320, 192))))
    detector = 'yolojet_ros.nodes.detector_node'
    made = [
        NodeProcess(detector, folder / 'a', {'model': model, 'autostart': True}),
        NodeProcess('yolojet_ros.nodes.camera_node', folder / 'b', {
            'width': 320, 'height': 192, 'rate': 10.0}),
        NodeProcess(detector, folder / 'c', {'model': model}, {'__ns': '/idle'}),
        NodeProcess(detector, folder / 'd', {'model': model, 'autostart': True},
                    {'__ns': '/blind'}),
        NodeProcess(detector, folder / 'e', {'model': 'no.onnx', 'autostart': True},
                    {'__ns': '/wrong'})]
    peer = Peer(node='/detector')
    peer.spin_until(lambda: peer.results, 60, 'no result')
    made[3].wait_for_output('has no publisher', 60)
    yield made
    for process in made:
        process.stop(signal.SIGKILL)
    peer.close()


def test_each_node_is_told_from_the_others(nodes):
    cases = {
        (): (0, ('/detector is well: detector: detecting', 'model.onnx by onnxruntime')),
        ('--node', 'camera'): (0, ('/camera is well: camera: ', 'images/s')),
        ('--node', '/idle/detector'): (0, ('not active',)),
        ('--node', '/blind/detector'): (0, ('/blind/image_raw has no publisher',)),
        ('--node', '/blind/detector', '--strict'): (1, ('warns: ', 'has no publisher')),
        ('--node', '/wrong/detector'): (1, ('is not well: ', 'no model file', 'see its log')),
        ('--node', 'a b'): (2, ('give the full name of a node',)),
        ('--timeout', '0'): (2, ('give a whole number from 1',))}
    asked = [_ask(*arguments) for arguments in cases]
    for process, (code, words) in zip(asked, cases.values()):
        found, text = _answer(process)
        assert found == code and all(word in text for word in words), text
        assert code == 2 or text.count('\n') == 1


def test_json_holds_all_of_it(nodes):
    code, text = _answer(_ask('--json'))
    told = json.loads(text)
    assert code == 0 and told['healthy'] and told['node'] == '/detector'
    assert 0 <= told['age_s'] <= 2 and told['statuses'][0]['level'] == 'OK'
    assert float(told['statuses'][0]['values']['rate_out_hz']) > 0


def test_who_is_not_there_or_stands_still_is_not_well(nodes):
    os.kill(nodes[2].process.pid, signal.SIGSTOP)
    try:
        time.sleep(2.5)  # until its last word is old
        absent = _ask('--node', '/no', timeout=4)
        still = _ask('--node', '/idle/detector', timeout=4)
        code, text = _answer(absent)
        assert code == 1 and '/no does not answer on /diagnostics' in text
        code, text = _answer(still)
        assert code == 1 and ('does not answer' in text or 'has said nothing for' in text)
    finally:
        os.kill(nodes[2].process.pid, signal.SIGCONT)


@pytest.fixture
def actor():
    """Return a peer that publishes diagnostics of its own making."""
    peer = Peer()
    yield peer
    peer.close()


def test_the_last_word_of_a_node_that_hangs_is_known_for_what_it_is(actor):
    publisher = actor.node.create_publisher(DiagnosticArray, '/diagnostics', LATEST)
    message = DiagnosticArray(status=[DiagnosticStatus(name='/old: detector', message='fine')])
    set_stamp(message.header, time.time() - 50)
    publisher.publish(message)
    code, text = _answer(_ask('--node', '/old', timeout=8))
    assert code == 1 and '/old has said nothing for ' in text and 'last word: fine' in text


def test_a_node_in_simulated_time_is_known_by_its_second_word(actor):
    publisher = actor.node.create_publisher(DiagnosticArray, '/diagnostics', LATEST)
    message = DiagnosticArray(status=[DiagnosticStatus(name='/sim: detector', message='fine')])
    set_stamp(message.header, 5.0)
    asked = _ask('--node', '/sim')
    actor.node.create_timer(0.3, lambda: publisher.publish(message))
    actor.spin_until(lambda: asked.poll() is not None, 60)
    assert _answer(asked)[0] == 0


def test_without_ros_it_is_one_sentence(tmp_path):
    (tmp_path / 'rclpy').mkdir()
    (tmp_path / 'rclpy' / '__init__.py').write_text('raise ImportError("no rclpy")\n')
    code, text = _answer(_ask(PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)])))
    assert code == 2 and text.count('\n') == 1 and 'there is no ROS 2 here' in text
