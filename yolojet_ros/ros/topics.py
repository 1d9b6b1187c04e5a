"""Names of the topics of a camera: where an image is remapped to, its companions go, too."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

# Of /diagnostics: whoever comes is told the last of it at once, and not within a second.
LATEST = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def of_camera(camera: str, name: str) -> str:
    """Return the name of a topic of one of several cameras; of the only one, '', `name` itself."""
    return f'{camera}/{name}' if camera else name


def image_name(node: Node, compressed: bool = False, camera: str = '') -> str:
    """
    Return the name by which to ask ROS for `image_raw` or `image_raw/compressed`.

    ROS remaps every name that it is given; one that is remapped already must not be given to it.
    A remapping of `image_raw` alone moves the compressed topic along with it,
    as image_transport does.
    """
    name = of_camera(camera, 'image_raw')
    if not compressed:
        return name
    jpeg = f'{name}/compressed'
    return jpeg if _is_remapped(node, jpeg) else node.resolve_topic_name(name) + '/compressed'


def image_topic(node: Node, compressed: bool = False, camera: str = '') -> str:
    """Return the full name of what `image_name` asks for."""
    return node.resolve_topic_name(image_name(node, compressed, camera))


def camera_info_name(node: Node) -> str:
    """Return the name to ask for `camera_info`: beside the image, as image_transport has it."""
    if _is_remapped(node, 'camera_info'):
        return 'camera_info'
    return image_topic(node).rpartition('/')[0] + '/camera_info'


def _is_remapped(node: Node, name: str) -> bool:
    return node.resolve_topic_name(name) != node.resolve_topic_name(name, only_expand=True)
