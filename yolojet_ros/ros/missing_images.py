"""Say why images of a topic do not arrive, in one sentence, from what was seen of them."""

from __future__ import annotations

from typing import Any, Collection, Optional, Sequence, Tuple

from rclpy.qos import QoSProfile, ReliabilityPolicy

from yolojet_ros.ros.reception import many, missing_stamps


def what_is_missing(
    topic: str, publishers: int, silent: bool, lost: int, received: int, stamps: Sequence[float],
) -> Tuple[str, str]:
    """
    Return what is missing, and which causes there may be besides the way here; '' for nothing.

    :param silent: whether no image has come for a while
    :param lost: images that were lost of late, beside those that were `received`
    :param stamps: of the last images, in seconds
    """
    if silent:
        return (f'{publishers} publisher(s) of {topic}, but no image arrives',
                'the publisher sends nothing (compare ros2 topic hz), or ')
    if many(lost, received):
        return f'{lost} of the last {lost + received} images of {topic} are lost', ''
    missing = missing_stamps(stamps) if publishers == 1 else 0
    if many(missing, len(stamps)):
        return (f'the stamps of {topic} have holes: {missing} images missing '
                f'between the last {len(stamps)}', 'the camera skips them, or ')
    return '', ''


def no_publisher(
    topic: str, kind: str, others: Collection[str], beside: str, transport: str,
    gone: Optional[float],
) -> str:
    """
    Say that nobody publishes what is subscribed, and what is published instead.

    :param kind: type of message that is subscribed
    :param others: types that the topic carries
    :param beside: topic of the same camera with the other transport, '' if nobody publishes it
    :param transport: the other one
    :param gone: seconds since the last publisher left, None if there was none
    """
    if others:
        return f'{topic} carries {", ".join(sorted(others))}, and no {kind}; check the topic name'
    if beside:
        return (f'{topic} has no publisher, but {beside} has: clean the node up and set '
                f'transport to {transport}')
    if gone is not None:
        return (f'{topic} has had no publisher for {gone:.0f} s: the one that it had has ended or '
                'cannot be reached')
    return f'{topic} has no publisher; check the topic name'


def mismatch(topic: str, node: str, requested: ReliabilityPolicy, offers: Sequence[Any]) -> str:
    """
    Say what the two sides of a topic want and which of them can be changed.

    :param node: that subscribes
    :param offers: what ROS says of each publisher
    """
    theirs = [f'{_name(info)} offers {qos_text(info.qos_profile)}' for info in offers]
    return (f'{node} requests {requested.name}, VOLATILE; {"; ".join(theirs) or "?"}; change the '
            f'publisher, or set qos_overrides.{topic}.subscription.reliability')


def qos_text(profile: QoSProfile) -> str:
    """Return what of a QoS decides whether two sides match."""
    return f'{profile.reliability.name}, {profile.durability.name}'


def _name(info: Any) -> str:
    # A publisher that was just discovered has no node name yet.
    return 'a publisher' if 'UNKNOWN' in info.node_name else info.node_name
