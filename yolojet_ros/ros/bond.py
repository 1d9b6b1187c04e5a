"""
The bond with nav2's lifecycle manager: heartbeats while the node is active.

The manager (`bond_timeout` above 0, its default) takes a node for dead whose
heartbeats it misses on the topic `bond`, under the node's name. Protocol and
times are those of nav2_util::LifecycleNode; bondpy (ROS package of that name)
speaks it.
"""

from __future__ import annotations

from rclpy.node import Node

from yolojet_ros.ros.spin import until_shutdown

try:
    from bond.msg import Constants
    from bondpy.bondpy import Bond
except ImportError:
    Bond = object

_PERIOD = 0.1  # s between two heartbeats
_TIMEOUT = 4.0  # s without a heartbeat after which the other side is dead


class _Bond(Bond):
    """A bond whose thread ends without a traceback when the context goes before it."""

    def _publish(self, active: bool) -> None:
        with until_shutdown():
            super()._publish(active)


class ManagerBond:
    """
    The bond of one node; without bondpy it does nothing.

    :param node: the node, whose name is the bond's id
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._bond = None

    def form(self) -> None:
        """Begin to send heartbeats and to wait for the manager's."""
        if Bond is object:
            self._node.get_logger().debug(
                'no bond for a lifecycle manager: bondpy is not installed')
            return
        self._bond = _Bond(self._node, 'bond', self._node.get_name())
        self._bond.heartbeat_period = _PERIOD
        self._bond.heartbeat_timeout = _TIMEOUT
        self._bond.start()

    def break_(self) -> None:
        """Tell the manager that the node goes on purpose, and leave nothing in the graph."""
        bond, self._bond = self._bond, None
        if not bond:
            return
        with until_shutdown():
            bond.shutdown()
            # bondpy destroys what ROS holds of the two; the node still lists them.
            self._node.destroy_subscription(bond.sub)
            self._node.destroy_publisher(bond.pub)
            # bondpy declares it, once for each bond, when the manager's heartbeats stop.
            if self._node.has_parameter(Constants.DISABLE_HEARTBEAT_TIMEOUT_PARAM):
                self._node.undeclare_parameter(Constants.DISABLE_HEARTBEAT_TIMEOUT_PARAM)
