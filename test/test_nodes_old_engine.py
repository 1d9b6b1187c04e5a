"""A node whose model was exported again beside an old engine."""

import json
import os

import pytest

from models import raw_output, write_model
from ros_peers import NodeProcess, Peer, ROOT


@pytest.fixture
def model(tmp_path):
    """Return a model with an engine of an older export beside it."""
    path = write_model(tmp_path / 'm.onnx', raw_output([[160, 96, 80, 60]], [[0.95, 0, 0]],
                                                       (320, 192)))
    (tmp_path / 'm.engine').write_bytes(b'engine')
    (tmp_path / 'm.engine.json').write_text(json.dumps({
        'engine_sha256': '0' * 64, 'onnx': 'm.onnx', 'onnx_sha256': '0' * 64, 'metadata': {},
        'tensors': [], 'tensorrt': '8.6.1', 'gpu': 'Orin', 'compute_capability': '8.7',
        'driver': '12020', 'l4t': None, 'precision': 'fp16', 'profile': 'desktop',
        'workspace_bytes': 1 << 30, 'batch': 1,
        'command': ['engine', 'build', '--onnx', 'm.onnx', '--precision', 'fp16']}))
    return path


def test_the_new_model_runs_and_log_and_diagnostics_say_why(model, tmp_path):
    # What is installed under this name is not looked into before the card.
    (tmp_path / 'installed' / 'tensorrt').mkdir(parents=True)
    (tmp_path / 'installed' / 'tensorrt' / '__init__.py').touch()
    paths = [str(ROOT), str(tmp_path / 'installed'), os.environ.get('PYTHONPATH', '')]
    process = NodeProcess(
        'yolojet_ros.nodes.detector_node', tmp_path / 'log', {'model': str(model)},
        env={'PYTHONPATH': os.pathsep.join(filter(None, paths))})
    peer = Peer()
    try:
        assert peer.change_state('configure') and peer.change_state('activate')
        peer.wait_for_subscriber()
        assert len(peer.detect().detections) == 1
        line = next(text for text in process.output.splitlines() if 'not built from' in text)
        assert 'WARN' in line and 'm.engine was not built from m.onnx' in line
        assert f'yolojet engine build --onnx {model} --precision fp16' in line
        status, values = peer.status(lambda values: 'backend_warnings' in values)
        assert 'not built from' in values['backend_warnings']
        assert status.level == b'\1' and 'not built from' in status.message
        assert process.output.count('not built from') == 1
    finally:
        peer.close()
        assert process.stop() == 0, process.output
