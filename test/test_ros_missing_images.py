"""What is said of images that do not arrive, by what was seen of them."""

from collections import namedtuple

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402

from yolojet_ros.ros.missing_images import (  # noqa: E402
    mismatch, no_publisher, what_is_missing)
from yolojet_ros.ros.reception import Reception  # noqa: E402

_Info = namedtuple('_Info', 'node_name qos_profile')
_TYPE = 'sensor_msgs/msg/Image'
_STEADY = [index / 30 for index in range(30)]
_HOLES = [stamp for index, stamp in enumerate(_STEADY) if index % 6]


@pytest.mark.parametrize('publishers, silent, lost, received, stamps, found, perhaps', [
    (1, False, 0, 150, _STEADY, '', ''),
    (1, False, 1, 149, _STEADY, '', ''),
    (2, True, 9, 1, _HOLES, '2 publisher(s) of /image, but no image arrives',
     'the publisher sends nothing (compare ros2 topic hz), or '),
    (1, False, 30, 120, _HOLES, '30 of the last 150 images of /image are lost', ''),
    (1, False, 0, 150, _HOLES,
     'the stamps of /image have holes: 4 images missing between the last 25',
     'the camera skips them, or '),
    (2, False, 0, 150, _HOLES, '', ''),
])
def test_silence_goes_before_losses_and_these_before_holes(
        publishers, silent, lost, received, stamps, found, perhaps):
    assert what_is_missing('/image', publishers, silent, lost, received, stamps) == (
        found, perhaps)


@pytest.mark.parametrize('others, beside, gone, text', [
    ({'b', 'a'}, '/image/compressed', 5.0, f'/image carries a, b, and no {_TYPE}; check the topic '
     'name'),
    ((), '/image/compressed', 5.0, '/image has no publisher, but /image/compressed has: clean the '
     'node up and set transport to compressed'),
    ((), '', 5.0, '/image has had no publisher for 5 s: the one that it had has ended or cannot '
     'be reached'),
    ((), '', None, '/image has no publisher; check the topic name'),
])
def test_what_is_published_instead_goes_before_that_it_was(others, beside, gone, text):
    assert no_publisher('/image', _TYPE, others, beside, 'compressed', gone) == text


def test_a_mismatch_names_both_sides_and_what_to_change():
    offer = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT,
                       durability=DurabilityPolicy.TRANSIENT_LOCAL)
    offers = [_Info('driver', offer), _Info('_NODE_NAME_UNKNOWN_', offer)]
    end = 'change the publisher, or set qos_overrides./image.subscription.reliability'
    assert mismatch('/image', 'detector', ReliabilityPolicy.RELIABLE, offers) == (
        'detector requests RELIABLE, VOLATILE; driver offers BEST_EFFORT, TRANSIENT_LOCAL; '
        f'a publisher offers BEST_EFFORT, TRANSIENT_LOCAL; {end}')
    assert mismatch('/image', 'detector', ReliabilityPolicy.RELIABLE, []) == (
        f'detector requests RELIABLE, VOLATILE; ?; {end}')


@pytest.mark.parametrize('sizes, reliability, offered, words', [
    ([9e6], 'BEST_EFFORT', False, 'an image of 9.0 MB does not fit the 8.0 MB'),
    ([3e6, 3e6, 3e6], 'BEST_EFFORT', False,
     'the images of 3 cameras, 9.0 MB where they come at once, do not fit the 8.0 MB'),
    ([3e6, 3e6], 'BEST_EFFORT', False, 'too slow for them; let the publisher offer RELIABLE'),
    ([3e6, 3e6, 3e6], 'RELIABLE', True, 'too slow for them; lower their rate')])
def test_the_cause_of_lost_images_is_what_does_not_fit(sizes, reliability, offered, words):
    reception = Reception(fast_dds=True, network=True, buffer=8_000_000)
    cause = reception.cause(sizes[0], sizes, ReliabilityPolicy[reliability], offered)
    assert words in cause
    assert ('net.core.rmem_max=13500000' in cause) == ('fit' in words)
