"""What colcon and pip make of the source tree, in an environment of their own."""

import os
from pathlib import Path
import shutil
import subprocess
import sys
import xml.etree.ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXECUTABLES = ('build_engine', 'camera_node', 'detector_node')


def _run(*command, **options):
    result = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        universal_newlines=True, **options)
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """Return a copy of what a checkout holds, so that building leaves no trace in it."""
    folder = tmp_path_factory.mktemp('workspace') / 'yolojet_ros'
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(
        '.git', '.venv*', '__pycache__', 'build', 'install', 'log', '*.egg-info',
        'demo_output', '.hypothesis', '.pytest_cache'))
    return folder


@pytest.fixture(scope='module')
def prefix(source, tmp_path_factory):
    """Return the prefix that `pip install .` has filled."""
    folder = tmp_path_factory.mktemp('prefix')
    _run(sys.executable, '-m', 'pip', 'install', '--no-deps', '--no-build-isolation',
         '--no-index', '--disable-pip-version-check', '--prefix', folder, '.', cwd=source)
    return folder


def _installed(prefix, name):
    found = list(prefix.glob('**/' + name))
    assert found, f'{name} is not installed'
    return found[0]


def test_colcon_sees_one_ament_python_package(source):
    output = _run(sys.executable, '-m', 'colcon', 'list', cwd=source)
    assert output.split() == ['yolojet_ros', '.', '(ros.ament_python)']


def test_colcon_builds_it_and_finds_its_executables(source, tmp_path):
    _run(sys.executable, '-m', 'colcon', '--log-base', tmp_path / 'log', 'build',
         '--build-base', tmp_path / 'build', '--install-base', tmp_path / 'install', cwd=source)
    package = tmp_path / 'install' / 'yolojet_ros'
    for name in EXECUTABLES:
        assert os.access(package / 'lib' / 'yolojet_ros' / name, os.X_OK)
    assert (package / 'share' / 'yolojet_ros' / 'launch' / 'detect.launch.py').is_file()
    assert (package / 'share/ament_index/resource_index/packages/yolojet_ros').is_file()


def test_pip_installs_what_ros_looks_for(prefix):
    for name in EXECUTABLES:
        assert os.access(prefix / 'lib' / 'yolojet_ros' / name, os.X_OK)
    share = prefix / 'share'
    assert (share / 'ament_index/resource_index/packages/yolojet_ros').is_file()
    assert (share / 'yolojet_ros/package.xml').is_file()


@pytest.mark.parametrize('folder', ['config', 'config/profiles', 'engines/demo', 'launch'])
def test_pip_installs_every_file_of_a_folder(prefix, folder):
    installed = {path.name for path in (prefix / 'share/yolojet_ros' / folder).glob('*')}
    wanted = {path.name for path in (ROOT / folder).glob('*') if path.is_file()}
    assert wanted <= installed


def test_pip_installs_every_module_and_its_data(prefix):
    package = _installed(prefix, 'yolojet_ros/__main__.py').parent
    wanted = [path for path in (ROOT / 'yolojet_ros').rglob('*') if path.is_file()
              and path.suffix in ('.py', '.cu', '.cuh', '.xml', '.typed')]
    missing = [str(path) for path in wanted
               if not (package / path.relative_to(ROOT / 'yolojet_ros')).is_file()]
    assert not missing


def test_installed_executable_starts_without_the_sources(prefix, tmp_path):
    package = _installed(prefix, 'yolojet_ros/__main__.py').parent
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(
        [str(package.parent), *filter(None, _foreign_python_path())]))
    environment['PATH'] = os.pathsep.join([str(Path(sys.executable).parent), environment['PATH']])
    result = subprocess.run(
        [str(prefix / 'lib/yolojet_ros/camera_node'), '--ros-args', '-p', 'source:=/nowhere'],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True, timeout=60)
    assert result.returncode == 1
    assert 'neither a file nor a folder' in result.stderr
    assert 'Traceback' not in result.stderr


def _foreign_python_path():
    parts = os.environ.get('PYTHONPATH', '').split(os.pathsep)
    return [part for part in parts if part and Path(part).resolve() != ROOT]


def test_package_xml_names_what_is_imported():
    root = xml.etree.ElementTree.parse(ROOT / 'package.xml').getroot()
    depends = {item.text for item in root.findall('exec_depend')}
    assert root.get('format') == '3'
    assert root.find('export/build_type').text == 'ament_python'
    assert depends >= {
        'cv_bridge', 'diagnostic_msgs', 'launch', 'launch_ros', 'lifecycle_msgs', 'rclpy',
        'sensor_msgs', 'vision_msgs', 'python3-numpy', 'python3-opencv', 'python3-scipy'}


def test_versions_agree():
    import yolojet_ros
    root = xml.etree.ElementTree.parse(ROOT / 'package.xml').getroot()
    assert root.find('version').text == yolojet_ros.__version__
    assert f"version='{yolojet_ros.__version__}'" in (ROOT / 'setup.py').read_text()
