"""The starter: help without an environment, one clear sentence for what is missing."""

import importlib.machinery
import importlib.util
import json
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
COMMANDS = ('demo', 'bench', 'test', 'model', 'engine', 'track', 'gpu-check', 'doctor')


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


def test_doctor_prepares_nothing_and_takes_what_is_there(project, tmp_path):
    result = _start(project, 'doctor', '--only', 'interpreter', 'swap', '--json')
    record = json.loads(result.stdout)
    assert result.stderr == '' and result.returncode == record['exit_code']
    assert record['checks'][0]['found'].endswith(os.path.realpath(sys.executable))
    assert not list(project.glob('.venv*'))
    # An environment that is incomplete, and one whose Python is gone.
    (project / '.venv' / 'bin').mkdir(parents=True)
    python = project / '.venv' / 'bin' / 'python'
    python.write_text(f'#!/bin/sh\nexec {os.path.realpath(sys.executable)} "$@"\n')
    python.chmod(0o755)
    record = json.loads(_start(project, 'doctor', '--only', 'rmw', '--json').stdout)
    assert record['checks'][0]['status'] == 'ok', 'ROS 2 of the environment is set up'
    python.write_text('#!/nowhere/python\n')
    record = json.loads(_start(project, 'doctor', '--only', 'rmw', '--json').stdout)
    assert record['checks'][0]['status'] == 'skipped'
    # A sourced ROS 2 that every other command refuses.
    sourced = _sourced(tmp_path, (), '')
    record = json.loads(_start(project, 'doctor', '--only', 'rclpy', '--json', **sourced).stdout)
    assert "No module named 'rclpy'" in record['checks'][0]['found']


def test_missing_compiler_is_one_sentence(project, tmp_path):
    empty = tmp_path / 'bin'
    empty.mkdir()
    result = _start(project, 'demo', PATH=str(empty))
    assert result.returncode == 1
    assert result.stderr.splitlines()[1:] == [
        'yolojet: g++ is missing, which builds vision_msgs: sudo apt install g++']
    assert result.stdout == ''
    assert not list(project.glob('.venv*'))


def test_index_out_of_reach_is_one_sentence_and_nothing_counts_as_complete(project, starter):
    result = _start(
        project, 'demo', PIP_INDEX_URL='http://127.0.0.1:9/simple', PIP_RETRIES='0',
        PIP_CONFIG_FILE=os.devnull, PIP_EXTRA_INDEX_URL='', PIP_FIND_LINKS='')
    assert result.returncode == 1
    assert 'the package index cannot be reached' in result.stderr.splitlines()[-1]
    assert 'Traceback' not in result.stderr
    assert re.search(r'\[1/4\] virtual environment ... \d+\.\d s', result.stderr)
    assert result.stdout == ''
    assert (project / '.venv' / 'yolojet.json').read_text().strip() == '{}'


def test_environment_of_somebody_else_is_not_touched(project):
    (project / '.venv').mkdir()
    (project / '.venv' / 'precious').write_text('mine')
    result = _start(project, 'demo')
    assert result.returncode == 1 and 'was not made by ./yolojet' in result.stderr
    assert (project / '.venv' / 'precious').read_text() == 'mine'


@pytest.mark.parametrize('arguments, words', [
    (('--ros', 'humble'), '--ros takes one of kilted, jazzy'),
    (('--ros=humble',), '--ros takes one of kilted, jazzy'),
    (('--ros',), '--ros takes one of kilted, jazzy'),
    (('--env', 'foxy'), "--env takes one of jetpack5, humble, jazzy, not 'foxy'"),
    (('--env=humble', '--ros', 'jazzy'), '--env is without ROS')])
def test_unknown_distribution_is_refused(project, arguments, words):
    result = _start(project, 'test', *arguments)
    assert result.returncode == 1 and words in result.stderr
    assert len(result.stderr.splitlines()) == 1 and not list(project.glob('.venv*'))


def _interpreter(folder, name, code):
    folder.mkdir()
    path = folder / name
    path.write_text(f'#!/bin/sh\n{code}\n')
    path.chmod(0o755)
    return str(folder)


def test_system_whose_python_does_not_start_is_one_sentence(project, tmp_path):
    refusing = _interpreter(tmp_path / 'shims', 'python3.8', 'exit 127')
    other = _interpreter(tmp_path / 'other', 'python3.8', f'exec {sys.executable} "$@"')
    result = _start(project, 'test', '--env', 'jetpack5', PATH=os.pathsep.join((refusing, other)))
    assert result.returncode == 1 and not list(project.glob('.venv*'))
    assert result.stderr == (
        'yolojet: jetpack5 has Python 3.8, and no python3.8 in PATH starts: install that '
        'interpreter, or put the folder it lies in into PATH\n')


def test_an_interpreter_that_refuses_hides_no_other(starter, tmp_path, monkeypatch):
    name = f'python3.{sys.version_info[1]}'
    refusing = _interpreter(tmp_path / 'shims', name, 'exit 127')
    working = _interpreter(tmp_path / 'bin', name, f'exec {sys.executable} "$@"')
    monkeypatch.setenv('PATH', os.pathsep.join((refusing, '', '/nowhere', working)))
    assert starter.find_python(sys.version_info[1]) == os.path.join(working, name)
    assert starter.find_python(3) is None


def test_systems_have_the_versions_that_they_ship(starter):
    shipped = {'jetpack5': ('numpy==1.17.4', 'scipy==1.4.1', 'opencv-python-headless==4.5.4.60'),
               'humble': ('numpy==1.21.5', 'scipy==1.8.0', 'opencv-python-headless==4.5.4.60'),
               'jazzy': ('numpy==1.26.4', 'scipy==1.11.4', 'opencv-python-headless==4.6.0.66')}
    assert set(shipped) == set(starter.SYSTEMS)
    for name, pins in shipped.items():
        venv = starter.SystemVenv(name)
        (path,) = venv._files(venv.first)
        assert set(pins) <= set(starter.read_requirements(path))


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
    venv = starter.RosVenv('kilted', sourced=False)
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
    ('demo', 'kilted', ['ros', 'base']), ('detect', 'kilted', ['ros', 'base']),
    ('track', 'kilted', ['ros', 'base', 'tools']),
    ('profile', 'kilted', ['ros', 'base', 'tools']),
    ('model', 'kilted', ['ros', 'base', 'tools', 'train']),
    ('test', 'kilted', ['ros', 'base', 'test', 'tools', 'train']),
    ('test', 'jazzy', ['ros', 'base', 'test'])])
def test_a_command_gets_the_packages_that_it_needs(starter, command, distro, expected):
    assert starter.RosVenv(distro, sourced=False).groups(command, last=True) == expected


def test_interrupted_starter_says_so(project):
    python = os.path.realpath(sys.executable)
    environment = {name: value for name, value in os.environ.items() if name not in (
        'AMENT_PREFIX_PATH', 'LD_LIBRARY_PATH', 'PYTHONPATH', 'ROS_DISTRO', BOOTSTRAP)}
    process = subprocess.Popen(
        [python, str(project / 'yolojet'), 'demo'], env=environment, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
        # A shell without job control starts its background jobs deaf to SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert 'preparing .venv' in process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and 'interrupted' in errors
    assert 'Traceback' not in errors.split('yolojet: interrupted')[-1]
