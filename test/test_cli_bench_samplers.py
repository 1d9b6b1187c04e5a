"""The benchmark of what telling of the machine costs the node."""

import re

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from ros_peers import DOMAIN  # noqa: E402
from yolojet_ros.cli.main import main  # noqa: E402


def test_readers_and_the_status_have_their_cost(capsys, monkeypatch):
    pytest.importorskip('psutil')
    monkeypatch.setenv('ROS_DOMAIN_ID', str(DOMAIN))
    assert main(['bench', '--samplers', '--seconds', '0.1']) == 0
    said = capsys.readouterr().out
    for name in ('sysfs', 'NVML', 'psutil'):
        assert re.search(rf'^{name} +\d+\.\d{{3}}  \w', said, re.MULTILINE), said
    cost = float(re.search(r'at 1 Hz: ([\d.]+) % of a core', said).group(1))
    assert 0 < cost < 2, 'ten times what is allowed, on a machine that does other things, too'
