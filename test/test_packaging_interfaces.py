"""The messages on the wire are those of any ROS 2 installation: their type hashes say so."""

import json
import os
from pathlib import Path
import re

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Of vision_msgs 4 as distributed with Jazzy and Kilted.
TYPE_HASHES = {
    'Classification': 'RIHS01_f74db28d0eaef3afb78f48bf2161cd709a1383a0309d3454383b25be11345143',
    'Detection2DArray': 'RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968',
    'LabelInfo': 'RIHS01_3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783',
    'VisionInfo': 'RIHS01_95d3116a17484ad91c9a2686e1d54890bbfc3ff6c6a2de137738c4950d45d284',
}


@pytest.mark.parametrize('name', sorted(TYPE_HASHES))
def test_type_hash_is_that_of_vision_msgs(name):
    if os.environ.get('ROS_DISTRO') in ('foxy', 'galactic', 'humble'):
        pytest.skip('type hashes exist from Iron on')
    prefixes = os.environ['AMENT_PREFIX_PATH'].split(os.pathsep)
    paths = [Path(prefix, 'share', 'vision_msgs', 'msg', name + '.json') for prefix in prefixes]
    description = json.loads(next(path for path in paths if path.is_file()).read_text())
    hashes = {item['type_name']: item['hash_string'] for item in description['type_hashes']}
    assert hashes['vision_msgs/msg/' + name] == TYPE_HASHES[name]


def test_type_hash_is_announced_on_the_wire():
    """What discovery tells other participants of a running publisher."""
    rclpy = pytest.importorskip('rclpy')
    from ros_peers import Peer
    from vision_msgs.msg import Detection2DArray
    peer = Peer()
    try:
        publisher = peer.node.create_publisher(Detection2DArray, 'hashed', 1)
        info = peer.spin_until(lambda: peer.node.get_publishers_info_by_topic('/hashed'))[0]
        if not hasattr(info, 'topic_type_hash'):
            pytest.skip(f'rclpy at {rclpy.__file__} does not tell type hashes')
        assert _text(info.topic_type_hash) == TYPE_HASHES['Detection2DArray']
        peer.node.destroy_publisher(publisher)
    finally:
        peer.close()


def _text(type_hash):
    value = bytes(type_hash.value).hex() if hasattr(type_hash, 'value') else str(type_hash)
    return value if value.startswith('RIHS') else f'RIHS{type_hash.version:02d}_{value}'


def test_own_interfaces_are_hidden_from_colcon_and_complete():
    folder = ROOT / 'interfaces' / 'vision_msgs'
    assert (ROOT / 'interfaces' / 'COLCON_IGNORE').is_file()
    listed = re.findall(r'msg/\w+\.msg', (folder / 'CMakeLists.txt').read_text())
    assert sorted(listed) == sorted(f'msg/{path.name}' for path in folder.glob('msg/*.msg'))
