"""The starter: help without an environment, one clear sentence for what is missing."""

import importlib.machinery
import importlib.util
import os
from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parent.parent
BOOTSTRAP = '_ROS_WHEELS_BOOTSTRAP_COMPLETE'
COMMANDS = ('demo', 'bench', 'test', 'model', 'engine', 'track', 'gpu-check')


@pytest.fixture(scope='module')
def starter():
    """Return the starter as a module."""
    loader = importlib.machinery.SourceFileLoader('yolojet_starter', str(ROOT / 'yolojet'))
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader('yolojet_starter', loader))
    sys.modules['yolojet_starter'] = module
    writes = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writes
    return module


@pytest.fixture
def project(tmp_path):
    """Return a folder with the starter and what it reads, and no environment."""
    folder = tmp_path / 'project'
    folder.mkdir()
    shutil.copy(ROOT / 'yolojet', folder)
    for name in ('requirements', 'interfaces'):
        shutil.copytree(ROOT / name, folder / name)
    (folder / 'yolojet_ros').symlink_to(ROOT / 'yolojet_ros')
    return folder


def _start(folder, *arguments, **environment):
    base = {name: value for name, value in os.environ.items() if name not in (
        'AMENT_PREFIX_PATH', 'LD_LIBRARY_PATH', 'PYTHONPATH', 'ROS_DISTRO', BOOTSTRAP)}
    base.update(environment)
    # The real interpreter, because that of a virtual environment starts twice.
    python = os.path.realpath(sys.executable)
    return subprocess.run(
        [python, str(folder / 'yolojet'), *arguments], env=base, cwd=folder.parent,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=120)


@pytest.mark.parametrize('command', [(), *((name,) for name in COMMANDS)])
def test_help_needs_nothing_but_the_standard_library(command, tmp_path):
    result = subprocess.run(
        [os.path.realpath(sys.executable), '-S', '-m', 'yolojet_ros', *command, '--help'],
        env={'PATH': os.environ['PATH'], 'PYTHONPATH': str(ROOT)}, cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith('usage: yolojet') and len(result.stdout.splitlines()) >= 5


def test_help_prepares_nothing(project):
    result = _start(project, 'demo', '--help')
    assert result.returncode == 0 and 'usage: yolojet demo' in result.stdout
    assert not list(project.glob('.venv*'))


def test_missing_compiler_is_one_sentence(project, tmp_path):
    empty = tmp_path / 'bin'
    empty.mkdir()
    result = _start(project, 'demo', PATH=str(empty))
    assert result.returncode == 1
    assert result.stderr == (
        'yolojet: g++ is missing, which builds vision_msgs: sudo apt install g++\n')
    assert not list(project.glob('.venv*'))


def test_index_out_of_reach_is_one_sentence_and_nothing_counts_as_complete(project, starter):
    result = _start(
        project, 'demo', PIP_INDEX_URL='http://127.0.0.1:9/simple', PIP_RETRIES='0',
        PIP_CONFIG_FILE=os.devnull, PIP_EXTRA_INDEX_URL='', PIP_FIND_LINKS='')
    assert result.returncode == 1
    assert 'the package index cannot be reached' in result.stderr.splitlines()[-1]
    assert 'Traceback' not in result.stderr
    assert re.search(r'\[1/4\] virtual environment ... \d+\.\d s', result.stdout)
    assert (project / '.venv' / 'yolojet.json').read_text().strip() == '{}'


def test_environment_of_somebody_else_is_not_touched(project):
    (project / '.venv').mkdir()
    (project / '.venv' / 'precious').write_text('mine')
    result = _start(project, 'demo')
    assert result.returncode == 1 and 'was not made by ./yolojet' in result.stderr
    assert (project / '.venv' / 'precious').read_text() == 'mine'


@pytest.mark.parametrize('arguments', [('--ros', 'humble'), ('--ros=humble',), ('--ros',)])
def test_unknown_distribution_is_refused(project, arguments):
    result = _start(project, 'test', *arguments)
    assert result.returncode == 1 and '--ros takes one of kilted, jazzy' in result.stderr


def _sourced(tmp_path, modules, suffix):
    """Return the variables of a sourced ROS 2 that has these modules."""
    for name in modules:
        (tmp_path / 'ros' / name).mkdir(parents=True)
        (tmp_path / 'ros' / name / '__init__.py').write_text('')
    if 'rclpy' in modules:
        (tmp_path / 'ros' / 'rclpy' / ('_rclpy_pybind11' + suffix)).write_text('')
    return {'ROS_DISTRO': 'humble', 'AMENT_PREFIX_PATH': str(tmp_path / 'ros'),
            'PYTHONPATH': str(tmp_path / 'ros')}


@pytest.mark.parametrize('modules, suffix, words', [
    ((), '', 'ROS 2 humble is sourced but has no rclpy'),
    (('rclpy',), importlib.machinery.EXTENSION_SUFFIXES[0],
     'ROS 2 humble is sourced but has no vision_msgs: sudo apt install ros-humble-vision-msgs'),
    (('rclpy', 'vision_msgs'), '.cpython-399-x86_64-linux-gnu.so',
     'ROS 2 humble is sourced for another Python'),
])
def test_incomplete_ros_installation_is_named(project, tmp_path, modules, suffix, words):
    result = _start(project, 'demo', **_sourced(tmp_path, modules, suffix))
    assert result.returncode == 1 and words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_stamp_follows_every_file_and_group(project, starter, monkeypatch):
    monkeypatch.setattr(starter, 'ROOT', project)
    monkeypatch.setattr(starter, 'REQUIREMENTS', project / 'requirements')
    monkeypatch.setattr(starter, 'INTERFACES', project / 'interfaces' / 'vision_msgs')
    venv = starter.Venv('kilted', sourced=False)
    groups = ['ros', 'base', 'test']
    venv.folder.mkdir()
    assert venv.missing(groups) == groups
    venv._write_stamp({group: venv._key(group) for group in groups})
    assert venv.missing(groups) == [] and venv.missing([*groups, 'train']) == ['train']
    for name, expected in (('requirements/base.txt', ['base']),
                           ('requirements/ros-jazzy.txt', []),
                           ('requirements/ros-kilted.txt', ['ros']),
                           ('interfaces/vision_msgs/msg/Pose2D.msg', ['ros'])):
        path = project / name
        before = path.read_text()
        path.write_text(before + '\n')
        assert venv.missing(groups) == expected
        path.write_text(before)
    (venv.folder / 'bin').mkdir()
    venv.python.symlink_to('/another/python3.12')
    assert venv.missing(groups) == groups


def test_environment_without_ros_keeps_what_is_not_of_ros(starter, tmp_path):
    ros = tmp_path / 'ros'
    (ros / 'lib').mkdir(parents=True)
    wheels = tmp_path / 'venv'
    (wheels / 'lib').mkdir(parents=True)
    (wheels / 'share' / 'ament_index').mkdir(parents=True)
    found = starter.without_ros({
        'AMENT_PREFIX_PATH': str(ros), 'ROS_DISTRO': 'humble', 'ROS_DOMAIN_ID': '7',
        'LD_LIBRARY_PATH': f'{ros}/lib:/usr/local/cuda/lib64:{wheels}/lib:/x/ros_rcl.libs',
        'PYTHONPATH': f'{ros}/lib/python3.10/site-packages:/my/modules', BOOTSTRAP: '1',
        'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp', 'HOME': '/home/me'})
    assert found == {'ROS_DOMAIN_ID': '7', 'LD_LIBRARY_PATH': '/usr/local/cuda/lib64',
                     'PYTHONPATH': '/my/modules', 'HOME': '/home/me'}


def test_requirements_are_pinned_exactly_and_in_order():
    for path in (ROOT / 'requirements').glob('*.txt'):
        lines = [line for line in path.read_text().splitlines() if not line.startswith('#')]
        pins = [re.fullmatch(
            r"([\w.-]+)==[\w.]+(; python_version (<|<=|==|>=|>) '3\.\d+')?", line)
            for line in lines]
        assert all(pins), path
        names = [pin.group(1).lower() for pin in pins]
        assert names == sorted(names), path


@pytest.mark.parametrize('command, distro, expected', [
    ('demo', 'kilted', ['ros', 'base']), ('track', 'kilted', ['ros', 'base', 'tools']),
    ('model', 'kilted', ['ros', 'base', 'tools', 'train']),
    ('test', 'kilted', ['ros', 'base', 'test', 'tools', 'train']),
    ('test', 'jazzy', ['ros', 'base', 'test'])])
def test_a_command_gets_the_packages_that_it_needs(starter, command, distro, expected):
    assert starter.groups_of([command], starter.Venv(distro, sourced=False), True) == expected


def test_interrupted_starter_says_so(project):
    python = os.path.realpath(sys.executable)
    environment = {name: value for name, value in os.environ.items() if name not in (
        'AMENT_PREFIX_PATH', 'LD_LIBRARY_PATH', 'PYTHONPATH', 'ROS_DISTRO', BOOTSTRAP)}
    process = subprocess.Popen(
        [python, str(project / 'yolojet'), 'demo'], env=environment, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
        # A shell without job control starts its background jobs deaf to SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert 'preparing .venv' in process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and 'interrupted' in errors
    assert 'Traceback' not in errors.split('yolojet: interrupted')[-1]
