"""The running graph: cameras and who listens to them, their stamps, and types on the wire."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

from yolojet_ros.core.errors import UserError
from yolojet_ros.operate.doctor.check import Options
from yolojet_ros.operate.doctor.checks.engine import read_parameters
from yolojet_ros.operate.doctor.checks.ros import distribution, NOT_SOURCED, TYPE_HASHES
from yolojet_ros.operate.doctor.finding import fail, Finding, ok, skipped, warn
from yolojet_ros.operate.doctor.system import System



def cameras(system: System, options: Options) -> Finding:
    """Compare what cameras offer with what their listeners ask for."""
    told = _told(system, options)
    if isinstance(told, Finding):
        return told
    topics = told.get('cameras', [])
    if not topics:
        return skipped(f'no camera topic among {len(told.get("nodes", []))} other nodes')
    for topic in topics:
        for source, sink, reason in topic['unfit']:
            return fail(
                f'{topic["name"]}: {source["node"]} offers {_qos(source)}, {sink["node"]} '
                f'requests {_qos(sink)}', f'no image gets from one to the other ({reason}); '
                'change the publisher, or what the detector requests',
                f'qos_overrides.{topic["name"]}.subscription.reliability: best_effort  # in '
                f'the parameter file of {sink["node"]}')
    wrong = _against_file(topics, options)
    if wrong:
        return wrong
    silent = [topic for topic in topics if topic['subscribers'] and not topic['publishers']]
    offered = [topic['name'] for topic in topics if topic['publishers']]
    if silent:
        name, sinks = silent[0]['name'], silent[0]['subscribers']
        return warn(f'{sinks[0]["node"]} listens to {name}, which nobody publishes; there are '
                    f'{", ".join(offered) or "no images at all"}', 'it gets no image; check the '
                    'name, the namespace, and that the camera runs',
                    f'ros2 launch yolojet_ros detect.launch.py image_topic:={offered[0]}'
                    if offered else 'ros2 topic list -t | grep Image')
    said = [f'{topic["name"]} ({_qos(topic["publishers"][0])}, {len(topic["subscribers"])} '
            'listeners)' for topic in topics if topic['publishers']]
    return ok(', '.join(said))


def _against_file(topics: List[Dict], options: Options) -> Optional[Finding]:
    """Return what a parameter file requests that a camera does not offer."""
    if not options.params_file:
        return None
    try:
        files = [(name, key, str(value)) for name, values in read_parameters(options.params_file)
                 for key, value in _flat('', values).items()]
    except UserError:
        return None  # the engine's check tells it
    for topic in topics:
        key = f'qos_overrides.{topic["name"]}.subscription.reliability'
        for name, other, value in files:
            for source in topic['publishers']:
                if other == key and value == 'reliable' and source['reliability'] != 'RELIABLE':
                    return fail(
                        f'{options.params_file} requests RELIABLE images of {topic["name"]}, and '
                        f'{source["node"]} offers {_qos(source)}', 'no image gets from one to the '
                        'other', f'{key}: auto  # in {options.params_file}')
    return None


def _flat(before: str, values: Dict[str, Any]) -> Dict[str, Any]:
    flat: Dict[str, Any] = {}
    for key, value in values.items():
        name = f'{before}.{key}' if before else str(key)
        flat.update(_flat(name, value) if isinstance(value, dict) else {name: value})
    return flat


def stamps(system: System, options: Options) -> Finding:
    """Compare the stamps of images with the clock of the node that takes them."""
    told = _told(system, options)
    if isinstance(told, Finding):
        return told
    taken = told.get('stamps', {})
    if not taken:
        return skipped('no image came within 3 s' if told.get('cameras') else
                       'there is no camera topic')
    simulated = sorted(name for name, values in told.get('parameters', {}).items()
                       if values.get('use_sim_time'))
    said: List[str] = []
    wrong: List[Tuple[float, Finding]] = []
    for topic, found in taken.items():
        if found['stamp'] <= 0:
            return warn(f'images of {topic} are stamped 0', 'the tracker takes the time of '
                        'arrival instead, and nobody can match results with other sensors; set '
                        'the stamp in the camera driver')
        listeners = [sink['node'] for item in told.get('cameras', []) if item['name'] == topic
                     for sink in item['subscribers']]
        uses = [name for name in listeners if name in simulated]
        clock = found.get('simulated') if uses else found['system']
        who = (uses or listeners or ['a detector'])[0]
        if clock is None:
            return fail(f'{who} has use_sim_time, and nobody publishes /clock',
                        'its time stands still, and so do its tracks',
                        f'ros2 param set {who} use_sim_time false')
        if clock['problem']:
            other = found.get('simulated')
            command = ''
            if not uses and other and not other['problem']:
                command = f'ros2 param set {who} use_sim_time true'
            elif uses and not found['system']['problem']:
                command = f'ros2 param set {who} use_sim_time false'
            age = clock['age']
            when = f'{age:.2f} s old' if age >= 0 else f'{-age:.2f} s in the future'
            wrong.append((abs(age), warn(
                f'an image of {topic} is {when} by the clock of {who}', clock['problem'],
                command or ('' if age > 0 else 'timedatectl'))))
        said.append(f'{topic} {clock["age"] * 1e3:.0f} ms')
    if wrong:
        return max(wrong, key=lambda item: item[0])[1]
    return ok(f'age on arrival: {", ".join(said)}')


def message_types(system: System, options: Options) -> Finding:
    """Compare the types of vision_msgs in the graph with the released ones."""
    told = _told(system, options)
    if isinstance(told, Finding):
        return told
    hashes = told.get('hashes', [])
    known = [item for item in hashes if item[0].rpartition('/')[2] in TYPE_HASHES]
    if not known:
        return skipped('nobody tells a type hash of vision_msgs' if hashes else
                       'nobody publishes or subscribes to detections')
    for kind, value, node in known:
        name = kind.rpartition('/')[2]
        if value != TYPE_HASHES[name]:
            return fail(f'{node} has another {kind} ({value[:20]}...)', 'detections do not get '
                        'between it and nodes with the released one, and nobody says so; build '
                        'it with the vision_msgs of the distribution',
                        f'ros2 topic info -v TOPIC  # with {node}')
    return ok(f'{len(known)} endpoints have the released types of vision_msgs')


def _told(system: System, options: Options) -> Any:
    """Return what the probe of the graph has told, or a Finding why there is none."""
    if not distribution(system):
        return skipped(NOT_SOURCED)
    probed = system.probe('graph', options.node)
    if probed.crash and 'cameras' not in probed.told:
        return fail(f'the graph cannot be looked at: {probed.crash}; {probed.done.output[-300:]}',
                    'no node can start here; see rclpy and rmw above')
    return probed.told


def _qos(info: Dict[str, str]) -> str:
    return f'{info["reliability"]}, {info["durability"]}'
