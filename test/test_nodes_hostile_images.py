"""A live detector and images that are too large, cut off or none at all."""

import time

import numpy as np
import pytest

from image_samples import huge_png, jpeg, PROGRESSIVE, resized_header
from models import raw_output, write_model
from ros_peers import NodeProcess, Peer, set_stamp
from sensor_msgs.msg import CompressedImage

_SIZE = (320, 192)
_IMAGE = np.zeros((384, 640, 3), np.uint8)


@pytest.fixture(params=['compressed', 'raw'])
def running(request, tmp_path):
    """Yield (process, peer, publisher or None) of an active detector."""
    model = write_model(tmp_path / 'model.onnx', raw_output(
        [[160, 96, 80, 60]], [[0.95, 0, 0]], _SIZE))
    process = NodeProcess('yolojet_ros.nodes.detector_node', tmp_path / 'log', {
        'model': str(model), 'autostart': True, 'transport': request.param})
    peer, publisher = Peer(), None
    try:
        if request.param == 'compressed':
            publisher = peer.node.create_publisher(CompressedImage, 'image_raw/compressed', 5)
            peer.spin_until(publisher.get_subscription_count, 20)
            good = jpeg(image=_IMAGE)
            peer.spin_until(lambda: _send(publisher, good) and _result(peer, 0.3), 20)
        else:
            peer.wait_for_subscriber()
        yield process, peer, publisher
        assert process.alive()
    finally:
        peer.close()
        assert process.stop() == 0, process.output


def _send(publisher, data):
    message = CompressedImage(format='jpeg', data=data)
    set_stamp(message.header, time.time())
    publisher.publish(message)
    return message


def _result(peer, seconds):
    """Take messages for a while; return whether a result came."""
    peer.results.clear()
    end = time.monotonic() + seconds
    while not peer.results and time.monotonic() < end:
        peer.executor.spin_once(timeout_sec=0.02)
    return bool(peer.results)


@pytest.mark.parametrize('running', ['compressed'], indirect=True)
def test_a_good_image_is_answered_at_once_whatever_came_before(running):
    process, peer, publisher = running
    before = process.memory()
    # 36 million and 900 million pixels by their headers, a scan a time too many, half a picture.
    bad = (huge_png(), resized_header(jpeg(image=_IMAGE), 0xc0, 65500, 65500),
           resized_header(jpeg(*PROGRESSIVE, image=_IMAGE), 0xc2, 16000, 9000),
           jpeg(image=np.random.default_rng(0).integers(0, 256, _IMAGE.shape, np.uint8))[:60000])
    for data in bad * 3:
        _send(publisher, data)
        time.sleep(0.05)  # for the worker to take it, instead of the next one
        message, start = _send(publisher, jpeg(image=_IMAGE)), time.monotonic()
        peer.spin_until(
            lambda: any(result.header == message.header for result in peer.results), 5)
        assert time.monotonic() - start < 1
    _, values = peer.status(lambda values: values.get('dropped_decode') == '3')
    assert values['dropped_size'] == '9'
    assert process.memory() - before < 150
    assert 'million pixels' in process.output and 'Traceback' not in process.output


def test_the_limit_acts_on_the_next_image(running):
    _, peer, publisher = running

    def answered():
        if publisher:
            _send(publisher, jpeg(image=_IMAGE))
        else:
            peer.send(_IMAGE)
        return _result(peer, 2)

    assert answered()
    assert peer.set_parameters(max_image_pixels=640 * 384 - 1) == ''
    assert not answered()
    peer.status(lambda values: values.get('dropped_size') == '1')
    assert peer.set_parameters(max_image_pixels=640 * 384) == ''
    assert answered()
    assert 'max_image_pixels' in peer.set_parameters(max_image_pixels=0)
