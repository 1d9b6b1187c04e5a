"""Subscribe to camera images: topic, QoS, and a clear word when the two sides do not fit."""

from __future__ import annotations

from typing import Any, Callable

from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

from yolojet_ros.ros.parameters import declare_qos_overrides

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

# The sensor-data profile. Best effort matches every publisher. The few images that may wait
# keep a busy machine from losing them uncounted; the node itself works on the newest only.
SENSOR_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


def subscribe_images(
    node: Node, compressed: bool, callback: Callable[[Any], None],
) -> Subscription:
    """
    Subscribe to `image_raw` or `image_raw/compressed` as remapped.

    A remapping of `image_raw` alone moves the compressed topic along with it,
    as image_transport does. The user may change the QoS by the parameters
    `qos_overrides.TOPIC.subscription.{reliability,history,depth}`.

    :raises UserError: if one of these has a value that there is not.
    """
    topic = image_topic(node, compressed)
    declare_qos_overrides(node, topic, SENSOR_QOS)

    def on_incompatible(event: Any) -> None:
        node.get_logger().warning(_incompatible_text(node, topic, event))

    return node.create_subscription(
        CompressedImage if compressed else Image, topic, callback, SENSOR_QOS,
        event_callbacks=SubscriptionEventCallbacks(incompatible_qos=on_incompatible),
        qos_overriding_options=QoSOverridingOptions.with_default_policies())


def image_topic(node: Node, compressed: bool) -> str:
    """Return the topic that `subscribe_images` takes, as remapped."""
    base = node.resolve_topic_name('image_raw')
    if not compressed:
        return base
    own = 'image_raw/compressed'
    remapped = node.resolve_topic_name(own)
    if remapped != node.resolve_topic_name(own, only_expand=True):
        return remapped
    return base + '/compressed'


def _incompatible_text(node: Node, topic: str, event: Any) -> str:
    ours = [_describe(info.qos_profile) for info in node.get_subscriptions_info_by_topic(topic)
            if info.node_name == node.get_name()]
    theirs = [f'{_name(info)} offers {_describe(info.qos_profile)}'
              for info in node.get_publishers_info_by_topic(topic)]
    policy = getattr(event.last_policy_kind, 'name', event.last_policy_kind)
    return (
        f'no images from a publisher of {topic}: incompatible QoS ({policy}); '
        f'{node.get_name()} requests {"; ".join(ours) or "?"}, {"; ".join(theirs) or "?"}; '
        f'change the publisher, or set qos_overrides.{topic}.subscription.reliability')


def _name(info: Any) -> str:
    # A publisher that was just discovered has no node name yet.
    return 'a publisher' if 'UNKNOWN' in info.node_name else info.node_name


def _describe(profile: QoSProfile) -> str:
    return f'{profile.reliability.name}, {profile.durability.name}'
