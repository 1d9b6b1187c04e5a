"""What imports what, and with which Python: the rules of the house."""

import ast
from pathlib import Path
import subprocess
import sys

import pytest

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGE = _ROOT / 'yolojet_ros'
_FILES = sorted(_PACKAGE.rglob('*.py'))
# From the bottom up; a layer may import itself and what lies below it.
_FLOORS = {
    'core': 0, 'sim': 1, 'tracking': 1, 'ros': 2, 'inference': 2, 'sources': 2, 'pipeline': 3,
    'model': 3, 'engine': 4, 'operate': 4, 'nodes': 5, 'cli': 6, '__main__': 7, '__init__': 0}
_WITH_ROS = ('ros', 'nodes')
_ABSENT = ('rclpy', 'sensor_msgs', 'vision_msgs', 'std_msgs', 'diagnostic_msgs', 'geometry_msgs',
           'rcl_interfaces', 'tensorrt', 'pycuda', 'torch', 'cv_bridge')


def _layer(path):
    parts = path.relative_to(_PACKAGE).with_suffix('').parts
    return parts[0]


def _imported_layers(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != 'yolojet_ros' else [
                f'yolojet_ros.{alias.name}' for alias in node.names]
        for name in names:
            parts = name.split('.')
            if parts[0] == 'yolojet_ros' and len(parts) > 1 and parts[1] in _FLOORS:
                yield parts[1]


@pytest.mark.parametrize('path', _FILES, ids=lambda path: str(path.relative_to(_PACKAGE)))
def test_imports_go_down_only(path):
    own = _layer(path)
    for other in _imported_layers(path):
        assert other == own or _FLOORS[other] < _FLOORS[own], f'{own} imports {other}'


@pytest.mark.parametrize('path', _FILES, ids=lambda path: str(path.relative_to(_PACKAGE)))
def test_the_syntax_is_that_of_python_3_8(path):
    ast.parse(path.read_text(), feature_version=(3, 8))


def test_everything_outside_ros_and_nodes_imports_without_ros_gpu_and_torch():
    modules = ['.'.join(path.relative_to(_ROOT).with_suffix('').parts) for path in _FILES
               if _layer(path) not in (*_WITH_ROS, '__main__')]
    # Modules of the network itself are PyTorch; only commands that need it import them.
    modules = [name for name in modules if not _is_torch_code(name)]
    script = f'''
import importlib, importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split('.')[0] in {_ABSENT!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Absent())
for name in {modules!r}:
    importlib.import_module(name)
'''
    subprocess.run([sys.executable, '-c', script], check=True, cwd=_ROOT, timeout=120)


def _is_torch_code(name):
    path = _ROOT.joinpath(*name.split('.')).with_suffix('.py')
    if not name.startswith('yolojet_ros.model.') or not path.is_file():
        return False
    tree = ast.parse(path.read_text())
    return any(isinstance(node, ast.Import) and node.names[0].name.startswith('torch')
               or isinstance(node, ast.ImportFrom) and str(node.module).startswith('torch')
               for node in tree.body)
