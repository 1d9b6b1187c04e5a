"""Units and settings of deploy/: valid, hardened, and about what is there."""

import os
import re
import shlex
import shutil
import subprocess

from deploy_tools import DEPLOY, install, needs, ROOT, run
import pytest
import yaml

UNITS = sorted((DEPLOY / 'systemd').glob('*.service'))
RUN = 'usr/local/lib/yolojet/run'
EXPOSURE = 4.0  # of systemd-analyze security, at most


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """Return a staged root that nobody changes."""
    folder = tmp_path_factory.mktemp('installed')
    install(folder, '--camera')
    return folder


def _directives(unit):
    """Return the directives of a unit: names with their values, in order."""
    text = unit.read_text().replace('\\\n', ' ')
    found = {}
    for line in text.splitlines():
        if '=' in line and not line.startswith('#'):
            name, _, value = line.partition('=')
            found.setdefault(name, []).append(value.strip())
    return found


@pytest.mark.parametrize('unit', UNITS, ids=lambda unit: unit.stem)
def test_units_start_what_is_installed(unit, installed):
    directives = _directives(unit)
    words = directives['ExecStart'][0].split()
    assert os.access(installed / words[0].lstrip('/'), os.X_OK)
    assert (ROOT / 'scripts' / words[1]).is_file()
    assert (installed / words[words.index('--params-file') + 1].lstrip('/')).is_file()
    environment = installed / directives['EnvironmentFile'][0].lstrip('/')
    assert re.search(rf'^{words[-1].lstrip("$")}=', environment.read_text(), re.MULTILINE)
    assert directives['Type'] == ['notify'] and directives['Restart'] == ['on-failure']
    assert float(directives['WatchdogSec'][0]) > 0


@needs('systemd-analyze')
@pytest.mark.parametrize('unit', UNITS, ids=lambda unit: unit.stem)
def test_units_are_valid_and_hardened(unit, installed, tmp_path):
    staged = tmp_path / unit.name
    staged.write_text(unit.read_text().replace('/' + RUN, str(installed / RUN)).replace(
        'Documentation=file:///', f'Documentation=file://{installed}/'))
    said = run('systemd-analyze', 'verify', '--man=no', staged)
    # What else is wrong on this machine is not ours.
    assert unit.name not in said and str(staged) not in said
    if 'offline' not in run('systemd-analyze', '--help'):
        pytest.skip('this systemd rates no unit files')
    rating = run('systemd-analyze', 'security', '--offline=true', '--no-pager', staged)
    exposure = float(re.search(r'exposure level for \S+: ([\d.]+)', rating).group(1))
    assert exposure <= EXPOSURE


def test_the_detector_keeps_the_way_to_its_gpu_open():
    directives = _directives(DEPLOY / 'systemd/yolojet-detector.service')
    assert directives['PrivateDevices'] == ['no'] and directives['DevicePolicy'] == ['auto']
    # Either would bring a list of devices without the GPU's.
    assert 'DeviceAllow' not in directives and 'ProtectClock' not in directives
    assert directives['SupplementaryGroups'] == ['video render']
    assert set(directives['RestrictAddressFamilies'][0].split()) >= {'AF_INET', 'AF_NETLINK'}


def _active_parameters(path):
    (node,) = yaml.safe_load(path.read_text()).values()
    return set(node['ros__parameters'])


def test_parameters_exist_in_the_nodes():
    known = yaml.safe_load((ROOT / 'config/detect.yaml').read_text())['/**']['ros__parameters']
    wanted = _active_parameters(DEPLOY / 'etc/detector.yaml')
    assert wanted and wanted <= set(known)
    camera = (ROOT / 'yolojet_ros/nodes/camera_node.py').read_text()
    declared = set(re.findall(r"declare\('(\w+)'", camera))
    wanted = _active_parameters(DEPLOY / 'etc/camera.yaml')
    assert wanted and wanted <= declared


def test_the_detector_starts_by_itself():
    # Unlike a launch file, a unit passes no autostart.
    path = DEPLOY / 'etc/detector.yaml'
    assert yaml.safe_load(path.read_text())['/**']['ros__parameters']['autostart'] is True


def _environment():
    """Return what the environment file sets, as systemd reads it."""
    text = (DEPLOY / 'etc/yolojet.env').read_text()
    words = shlex.split('\n'.join(line for line in text.splitlines() if line[:1] != '#'))
    return dict(word.split('=', 1) for word in words)


def test_the_environment_means_the_same_to_bash_as_to_systemd():
    path, values = DEPLOY / 'etc/yolojet.env', _environment()
    said = run('bash', '-c', 'set -eu; set -a; . "$1"; env -0', 'bash', path, env={})
    seen = dict(entry.split('=', 1) for entry in said.split('\0') if entry)
    assert values == {name: seen[name] for name in values}
    assert not set('$`\\') & set(''.join(values.values()))


def test_the_environment_names_what_the_package_reads():
    from yolojet_ros.ros import middleware
    values = _environment()
    assert values[middleware.PROFILE_VARIABLE] in middleware.TRANSPORT_PROFILES
    for name in ('HOME', 'XDG_CACHE_HOME', 'ROS_LOG_DIR'):
        assert re.search(rf'^d {values[name]} ', (DEPLOY / 'etc/tmpfiles.conf').read_text(),
                         re.MULTILINE)


def _start(arguments, **environment):
    return subprocess.run(
        ['bash', str(DEPLOY / 'systemd/run'), *arguments], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True,
        env={'PATH': os.environ['PATH'], **environment})


def test_run_enters_the_setup_files_in_their_order_and_becomes_the_node(tmp_path):
    for name in ('first', 'second'):
        (tmp_path / name).write_text(f'export ORDER="$ORDER {name}"; [ $# = 0 ] || exit 9\n')
    python = tmp_path / 'python3'
    python.write_text('#!/bin/sh\necho $ORDER, "$@", $PPID\n')
    python.chmod(0o755)
    setup = f'{tmp_path / "first"} {tmp_path / "second"}'
    path = f'{tmp_path}:{os.environ["PATH"]}'
    result = _start(['detector_node', '--ros-args', '-r', 'a:=b c'],
                    YOLOJET_SETUP=setup, PATH=path)
    assert result.stdout == ('first second, -m yolojet_ros.nodes.start detector_node --ros-args '
                             f'-r a:=b c, {os.getpid()}\n'), result.stderr  # the same process
    result = _start(['yolojet', 'health'], YOLOJET_SETUP=setup, PATH=path)
    assert '-m yolojet_ros health' in result.stdout


@pytest.mark.parametrize('arguments, setup, words', [
    (['rviz'], '/etc/passwd', "'rviz' is not one of"),
    ([], '/etc/passwd', 'is not one of'),
    (['detector_node'], '', 'YOLOJET_SETUP is empty'),
    (['detector_node'], '/nowhere/setup.bash', 'cannot read /nowhere/setup.bash')])
def test_run_refuses_in_one_sentence(arguments, setup, words):
    result = _start(arguments, YOLOJET_SETUP=setup)
    assert result.returncode == 2 and words in result.stderr and not result.stdout
    assert len(result.stderr.splitlines()) == 1


@needs('logrotate')
def test_logrotate_takes_the_settings_and_cuts_a_log(tmp_path):
    log = tmp_path / 'yolojet' / 'detector.log'
    log.parent.mkdir(mode=0o750)
    log.write_text('line\n' * 1000)
    # As whoever runs the test, in a folder of its own.
    text = (DEPLOY / 'etc/logrotate').read_text().replace('/var/log/yolojet', str(log.parent))
    settings = tmp_path / 'settings'
    settings.write_text(text.replace('    su yolojet yolojet\n', ''))
    settings.chmod(0o644)
    with log.open('a') as node:
        run('logrotate', '--force', '--state', tmp_path / 'state', settings)
        node.write('after\n')
    assert log.read_text() == 'after\n'  # the node goes on in the same file
    assert log.with_name('detector.log.1.gz').is_file()


@needs('systemd-tmpfiles')
@needs('systemd-sysusers')
def test_user_and_folders_are_what_systemd_makes_of_them(installed, tmp_path):
    if os.geteuid() != 0:
        pytest.skip('needs root')
    root = tmp_path / 'root'
    shutil.copytree(installed, root, symlinks=True)
    for tool, name in (('sysusers', 'sysusers.d'), ('tmpfiles', 'tmpfiles.d')):
        options = ['--create'] if tool == 'tmpfiles' else []
        run('systemd-' + tool, f'--root={root}', *options,
             root / 'etc' / name / 'yolojet.conf')
    groups = (root / 'etc/group').read_text()
    assert all(re.search(rf'^{group}:.*yolojet', groups, re.MULTILINE)
               for group in ('video', 'render'))
    uid = int(re.search(r'^yolojet:[^:]*:(\d+)', (root / 'etc/passwd').read_text(),
                        re.MULTILINE).group(1))
    found = (root / 'var/lib/yolojet/models').stat()
    assert found.st_uid == uid and found.st_mode & 0o777 == 0o750


def test_camera_rules_name_only_keys_that_udev_sets():
    text = (DEPLOY / 'etc/cameras.rules').read_text()
    rules = [line for line in text.splitlines() if line and not line.startswith('#')]
    assert set(re.findall(r'ENV\{(\w+)\}', text)) == {
        'ID_V4L_CAPABILITIES', 'ID_SERIAL', 'ID_PATH_TAG'}  # of 60-persistent-v4l.rules
    for rule in rules:
        assert re.fullmatch(r'(\w+(\{\w+\})?(==|!=|\+=|=)"[^"]*"(, )?)+', rule), rule
