"""Read an SROS 2 policy: what each node may publish, subscribe, reply to and request."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

FOLDER = Path(__file__).resolve().parent.parent / 'deploy' / 'sros2'
POLICY = FOLDER / 'policy.xml'
OPERATOR = FOLDER / 'operator.xml'
DIRECTIONS = ('publish', 'subscribe', 'reply', 'request')


def full_name(name, namespace, node):
    """Return what ROS makes of a name: /absolute, ~/of the node, or within the namespace."""
    if name.startswith('/'):
        return name
    prefix = namespace.rstrip('/')
    return f'{prefix}/{node}{name[1:]}' if name.startswith('~') else f'{prefix}/{name}'


def read(file, of_camera=('/',)):
    """
    Return {enclave: {direction: names}} of a policy.

    :param of_camera: namespaces that a profile with images in it is repeated for, in place of
        that which the file has
    """
    found = {}
    for enclave in ElementTree.parse(str(file)).getroot().iter('enclave'):
        names = found[enclave.get('path')] = defaultdict(set)
        for profile in enclave.iter('profile'):
            texts = [item.text for item in profile.iter('topic')]
            for namespace in of_camera if 'image_raw' in texts else (profile.get('ns'),):
                _add(names, profile, namespace)
    return found


def _add(names, profile, namespace):
    for group in profile:
        for direction in DIRECTIONS:
            assert group.get(direction) in (None, 'ALLOW')
            if group.get(direction):
                names[direction] |= {
                    full_name(item.text, namespace, profile.get('node')) for item in group}
