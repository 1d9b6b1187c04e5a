"""The probe of the running ROS graph: cameras, their listeners, and the stamps of images."""

from __future__ import annotations

import os
import struct
import time
from typing import Any, Dict, List

from yolojet_ros.operate.doctor.probes.tell import step, tell

_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
_OUTPUTS = ('debug_image', 'instance_mask', 'class_mask')  # of a detector: images, but no camera
_MOST_TOPICS = 16
_MOST_NODES = 4
# At least and at most; participants that missed the first announcements send one in 3 s.
_DISCOVERY_SECONDS = (3.5, 7.0)
_QUIET_SECONDS = 1.0  # without news, after which all are taken for known
_STAMP_SECONDS = 3.0
_ANSWER_SECONDS = 1.0
_STAMP = struct.Struct('<4xiI')  # of the header of a packed message


def graph(detector: str = '') -> None:
    """
    Tell the camera topics, the endpoints of vision_msgs, stamps, and parameters of listeners.

    :param detector: name of the node whose parameters are asked; '' for all that take images
    """
    step('import rclpy')
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    from yolojet_ros.ros import middleware
    middleware.prepare()
    step('start a node')
    rclpy.init()
    node = rclpy.create_node(f'yolojet_doctor_{os.getpid()}', start_parameter_services=False)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    step('look at the graph')
    _discover(executor, node)
    names = [f'{space.rstrip("/")}/{name}'
             for name, space in node.get_node_names_and_namespaces() if name != node.get_name()]
    topics = {name: types for name, types in node.get_topic_names_and_types()}
    cameras = sorted(name for name, types in topics.items() if set(types) & set(_TYPES)
                     and name.rpartition('/')[2] not in _OUTPUTS)
    tell(nodes=sorted(names), cameras=[_camera(node, name) for name in cameras[:_MOST_TOPICS]],
         hashes=_hashes(node, topics))
    step('ask for parameters')
    listeners = sorted({info['node'] for name in cameras[:_MOST_TOPICS]
                        for info in _infos(node.get_subscriptions_info_by_topic(name))})
    asked = [name for name in listeners if not detector or detector in (
        name, name.rpartition('/')[2])]
    tell(parameters={name: _parameters(node, executor, name) for name in asked[:_MOST_NODES]})
    step('take an image of each camera')
    tell(stamps=_stamps(executor, node, {
        name: types for name, types in topics.items() if name in cameras[:_MOST_TOPICS]}))
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()


def _spin(executor, ended, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not ended() and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.05)
    return ended()


def _discover(executor, node) -> None:
    """Wait until somebody is found and nobody new any more."""
    least, most = (time.monotonic() + seconds for seconds in _DISCOVERY_SECONDS)
    known, since = None, time.monotonic()
    while time.monotonic() < most:
        _spin(executor, lambda: False, 0.2)
        topics = node.get_topic_names_and_types()
        found = (len(node.get_node_names()), [
            (name, node.count_publishers(name), node.count_subscribers(name))
            for name, _ in topics])
        if found != known:
            known, since = found, time.monotonic()
        elif found[0] > 1 and time.monotonic() > max(least, since + _QUIET_SECONDS):
            return


def _infos(endpoints) -> List[Dict[str, str]]:
    return [{
        'node': f'{info.node_namespace.rstrip("/")}/{info.node_name}', 'type': info.topic_type,
        'reliability': info.qos_profile.reliability.name,
        'durability': info.qos_profile.durability.name} for info in endpoints]


def _camera(node, name: str) -> Dict[str, Any]:
    """Return what publishes and subscribes a topic, and which of them do not fit each other."""
    from rclpy.qos import qos_check_compatible, QoSCompatibility
    publishers = node.get_publishers_info_by_topic(name)
    subscribers = node.get_subscriptions_info_by_topic(name)
    unfit = []
    for source in publishers:
        for sink in subscribers:
            fits, reason = qos_check_compatible(source.qos_profile, sink.qos_profile)
            if fits == QoSCompatibility.ERROR:
                unfit.append([*_infos([source, sink]), reason.replace('ERROR: ', '').strip('; ')])
    return {'name': name, 'publishers': _infos(publishers), 'subscribers': _infos(subscribers),
            'unfit': unfit}


def _hashes(node, topics: Dict[str, List[str]]) -> List[List[str]]:
    """Return [type, hash, node] of all endpoints of vision_msgs; Humble tells no hashes."""
    found = []
    for name, types in topics.items():
        if any(kind.startswith('vision_msgs/') for kind in types):
            for info in (*node.get_publishers_info_by_topic(name),
                         *node.get_subscriptions_info_by_topic(name)):
                value = getattr(info, 'topic_type_hash', None)
                if value is not None:
                    found.append([info.topic_type, _text(value), _infos([info])[0]['node']])
    return found


def _text(value) -> str:
    text = bytes(value.value).hex() if hasattr(value, 'value') else str(value)
    return text if text.startswith('RIHS') else f'RIHS{value.version:02d}_{text}'


def _parameters(node, executor, name: str) -> Dict[str, Any]:
    """Return use_sim_time and model of a node, what it has of them."""
    from rcl_interfaces.srv import GetParameters
    client = node.create_client(GetParameters, f'{name}/get_parameters')
    try:
        if not _spin(executor, client.service_is_ready, _ANSWER_SECONDS):
            return {}
        # A node that does not know one of them answers with none.
        for texts in (('model', 'model_store'), ('model',)):
            names = ['use_sim_time', *texts]
            future = client.call_async(GetParameters.Request(names=names))
            if not _spin(executor, future.done, _ANSWER_SECONDS):
                return {}
            values = future.result().values
            if len(values) == len(names):
                return {'use_sim_time': values[0].bool_value, **{
                    name: value.string_value for name, value in zip(texts, values[1:])}}
        return {}
    finally:
        node.destroy_client(client)


def _stamps(executor, node, topics: Dict[str, List[str]]) -> Dict[str, Any]:
    """Return by topic what the clock of the system and that of /clock say of an image's stamp."""
    from rclpy.parameter import Parameter
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import CompressedImage, Image

    from yolojet_ros.ros.node_clock import NodeClock
    import rclpy
    simulated = rclpy.create_node(
        f'yolojet_doctor_simulated_{os.getpid()}', start_parameter_services=False,
        parameter_overrides=[Parameter('use_sim_time', value=True)]
    ) if node.count_publishers('/clock') else None
    clocks = {'system': node, **({'simulated': simulated} if simulated else {})}
    if simulated:
        executor.add_node(simulated)
        _spin(executor, lambda: simulated.get_clock().now().nanoseconds > 0, _ANSWER_SECONDS)
    stamps: Dict[str, Any] = {}

    def take(topic: str, packed: bytes) -> None:
        if topic in stamps or len(packed) < _STAMP.size:
            return
        seconds, nanoseconds = _STAMP.unpack_from(packed)
        stamp = seconds + nanoseconds * 1e-9
        found = {'stamp': stamp}
        for kind, owner in clocks.items():
            clock = NodeClock.of(owner)
            found[kind] = {'age': round(clock.now - stamp, 3),
                           'problem': clock.problem(clock.now - stamp)}
        stamps[topic] = found

    wanted = [name for name in topics if node.count_publishers(name)]
    subscriptions = [
        node.create_subscription(
            Image if _TYPES[0] in topics[name] else CompressedImage, name,
            lambda packed, name=name: take(name, packed), qos_profile_sensor_data, raw=True)
        for name in wanted]
    _spin(executor, lambda: len(stamps) == len(wanted), _STAMP_SECONDS)
    for subscription in subscriptions:
        node.destroy_subscription(subscription)
    if simulated:
        simulated.destroy_node()
    return stamps
