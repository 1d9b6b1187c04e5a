"""What colcon and pip make of the source tree, in an environment of their own."""

import os
from pathlib import Path
import shutil
import subprocess
import sys
import xml.etree.ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXECUTABLES = ('build_engine', 'camera_node', 'detector_node', 'yolojet')


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


@pytest.fixture(scope='module')
def workspace(source, tmp_path_factory):
    """Return the folder that `colcon build` has filled."""
    folder = tmp_path_factory.mktemp('built')
    _colcon(source, folder, 'build', '--install-base', folder / 'install')
    return folder


def _colcon(source, folder, verb, *options):
    return _run(sys.executable, '-m', 'colcon', '--log-base', folder / 'log', verb,
                '--build-base', folder / 'build', *options, cwd=source)


def _sourced(workspace, *command, path=None):
    """Run a command in a shell that has sourced the workspace, far from the sources."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(_foreign_python_path()))
    environment['PATH'] = os.pathsep.join(
        [*(path or []), str(Path(sys.executable).parent), environment['PATH']])
    return _run('sh', '-c', '. ./setup.sh && cd / && exec "$@"', 'sh', *command,
                cwd=workspace / 'install', env=environment)


def test_colcon_builds_it_and_finds_its_executables(workspace):
    package = workspace / 'install' / 'yolojet_ros'
    for name in EXECUTABLES:
        assert os.access(package / 'lib' / 'yolojet_ros' / name, os.X_OK)
    assert (package / 'share' / 'yolojet_ros' / 'launch' / 'detect.launch.py').is_file()
    assert (package / 'share/ament_index/resource_index/packages/yolojet_ros').is_file()


def test_a_sourced_workspace_has_the_command_in_its_path(workspace):
    import yolojet_ros
    package = workspace / 'install' / 'yolojet_ros'
    assert _sourced(workspace, 'which', 'yolojet').split() == [str(package / 'bin' / 'yolojet')]
    for command in ('yolojet', package / 'lib' / 'yolojet_ros' / 'yolojet'):  # the second: ros2 run
        assert _sourced(workspace, command, '--version').split() == [
            'yolojet_ros', yolojet_ros.__version__]
    assert '1 check: 1 ok' in _sourced(workspace, 'yolojet', 'doctor', '--only', 'interpreter')
    plan = _sourced(workspace, 'yolojet', 'engine', 'build', '--dry-run', '--profile', 'desktop',
                    '--onnx', package / 'share/yolojet_ros/engines/demo/yolojet_demo.onnx')
    assert 'yolojet_demo.engine' in plan


def test_commands_run_in_the_python_that_is_active(workspace, tmp_path):
    """As in a virtual environment that adds ONNX Runtime to the system's packages."""
    active = tmp_path / 'python3'
    active.write_text('#!/bin/sh\necho active\n')
    active.chmod(0o755)
    for name in ('yolojet', *EXECUTABLES):
        folder = 'bin' if name == 'yolojet' else 'lib/yolojet_ros'
        command = workspace / 'install' / 'yolojet_ros' / folder / name
        assert _sourced(workspace, command, path=[str(tmp_path)]) == 'active\n'


def test_colcon_test_runs_tests_and_fails_with_them(source, tmp_path):
    copy = tmp_path / 'yolojet_ros'
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns('test_*.py'))
    shutil.copy(source / 'test' / 'test_core_nms.py', copy / 'test')
    # What a robot does not run is left to ./yolojet test.
    (copy / 'test' / 'test_model_slow.py').write_text('def test_no(): assert False\n')
    options = ('--install-base', tmp_path / 'install')

    def test():
        _colcon(copy, tmp_path, 'test', *options)
        report = xml.etree.ElementTree.parse(tmp_path / 'build/yolojet_ros/pytest.xml').getroot()
        result = subprocess.run(
            [sys.executable, '-m', 'colcon', 'test-result', '--test-result-base',
             str(tmp_path / 'build')], cwd=tmp_path, stdout=subprocess.PIPE)
        suite = report.find('testsuite')
        return int(suite.get('tests')), int(suite.get('failures')), result.returncode

    _colcon(copy, tmp_path, 'build', *options)
    count, failures, code = test()
    assert count >= 5 and (failures, code) == (0, 0)
    (copy / 'test' / 'test_core_wrong.py').write_text('def test_no(): assert False\n')
    assert test() == (count + 1, 1, 1)


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
    assert result.returncode == 2
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
    # pip's NumPy breaks the system's OpenCV and SciPy, and from Ubuntu 24.04 on it is refused.
    assert not [name for name in depends if name.endswith('-pip')]
    tested = {item.text for item in root.findall('test_depend')}
    assert tested >= {'python3-hypothesis', 'python3-pytest', 'python3-pytest-timeout'}


def test_versions_agree():
    import yolojet_ros
    root = xml.etree.ElementTree.parse(ROOT / 'package.xml').getroot()
    assert root.find('version').text == yolojet_ros.__version__
    assert f"version='{yolojet_ros.__version__}'" in (ROOT / 'setup.py').read_text()
