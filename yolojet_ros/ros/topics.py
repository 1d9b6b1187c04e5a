"""Names of the topics of a camera: where an image is remapped to, its companions go, too."""

from __future__ import annotations

from rclpy.node import Node


def of_camera(camera: str, name: str) -> str:
    """Return the name of a topic of one of several cameras; of the only one, '', `name` itself."""
    return f'{camera}/{name}' if camera else name


def image_topic(node: Node, compressed: bool = False, camera: str = '') -> str:
    """
    Return the full name of `image_raw` or `image_raw/compressed` as remapped.

    A remapping of `image_raw` alone moves the compressed topic along with it,
    as image_transport does.
    """
    name = of_camera(camera, 'image_raw')
    base = node.resolve_topic_name(name)
    if not compressed:
        return base
    return _remapped(node, f'{name}/compressed') or base + '/compressed'


def camera_info_topic(node: Node) -> str:
    """Return the full name of `camera_info`: beside the image, as image_transport has it."""
    return _remapped(node, 'camera_info') or image_topic(node).rpartition('/')[0] + '/camera_info'


def _remapped(node: Node, name: str) -> str:
    """Return the full name of a topic with a remapping of its own, else ''."""
    remapped = node.resolve_topic_name(name)
    return '' if remapped == node.resolve_topic_name(name, only_expand=True) else remapped
