"""What deploy/ installs and builds: units, settings, the installer, Dockerfiles."""

import os
from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / 'deploy'
INSTALL = DEPLOY / 'install.sh'
UNITS = sorted((DEPLOY / 'systemd').glob('*.service'))
DOCKERFILES = sorted((DEPLOY / 'docker').glob('Dockerfile.*'))
RUN = 'usr/local/lib/yolojet/run'
WANTS = 'etc/systemd/system/multi-user.target.wants'
EXPOSURE = 4.0  # of systemd-analyze security, at most

sys.path.insert(0, str(DEPLOY / 'docker'))
from dockerfile import assignments, DockerfileError, expand, read_stages  # noqa: E402


def _needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f'{program} is not installed')


def _run(*command, code=0, **options):
    result = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        universal_newlines=True, timeout=120, **options)
    assert result.returncode == code, result.stdout
    return result.stdout


def _install(root, *options, **more):
    return _run('bash', INSTALL, '--root', root, *options, **more)


def _tree(root):
    """Return every path below a root with its mode and content or target."""
    def what(path):
        if path.is_symlink():
            return os.readlink(path)
        return path.stat().st_mode, path.read_bytes() if path.is_file() else None
    return {str(path.relative_to(root)): what(path) for path in root.rglob('*')}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / 'root'
    folder.mkdir()
    return folder


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """Return a staged root that nobody changes."""
    folder = tmp_path_factory.mktemp('installed')
    _install(folder, '--camera')
    return folder


# ---- install.sh


def test_dry_run_changes_nothing_and_says_what_an_installation_does(root):
    said = _install(root, '--dry-run')
    assert _tree(root) == {}
    done = _install(root)
    assert said.splitlines() == ['would ' + line for line in done.splitlines()]
    before = _tree(root)
    _install(root, '--uninstall', '--dry-run')
    assert _tree(root) == before


def test_installing_twice_is_installing_once(root):
    _install(root, '--camera')
    before = _tree(root)
    assert _install(root, '--camera') == ''
    assert _tree(root) == before
    assert _install(root) == '' and _tree(root) == before  # the camera stays enabled


def test_uninstalling_leaves_a_root_as_it_was(root):
    (root / 'etc/systemd/system').mkdir(parents=True)
    (root / 'etc/systemd/system/other.service').write_text('not ours')
    before = _tree(root)
    _install(root, '--camera')
    assert os.readlink(root / WANTS / 'yolojet-camera.service') == '../yolojet-camera.service'
    _install(root, '--uninstall')
    assert _tree(root) == before
    assert 'nothing is installed' in _install(root, '--uninstall')


def test_edited_settings_and_data_stay(root):
    _install(root)
    settings = root / 'etc/yolojet/yolojet.env'
    model = root / 'var/lib/yolojet/models/mine.onnx'
    settings.write_text('ROS_DOMAIN_ID=7\n')
    model.write_text('weights')
    unit = root / 'etc/systemd/system/yolojet-detector.service'
    unit.write_text('old version')
    said = _install(root)
    assert 'keep /etc/yolojet/yolojet.env, which was edited' in said
    assert settings.read_text() == 'ROS_DOMAIN_ID=7\n'
    assert 'Type=notify' in unit.read_text()
    _install(root, '--uninstall')
    assert [path for path in root.rglob('*') if path.is_file()] in (
        [settings, model], [model, settings])
    _install(root, '--uninstall', '--purge')
    assert not any(path.is_file() for path in root.rglob('*'))


def test_settings_that_nobody_edited_follow_a_new_version(root, tmp_path):
    _install(root)
    newer = tmp_path / 'newer'
    shutil.copytree(DEPLOY, newer / 'deploy')
    shutil.copytree(ROOT / 'docs', newer / 'docs')
    (newer / 'deploy/etc/camera.yaml').write_text('new: true\n')
    _run('bash', newer / 'deploy/install.sh', '--root', root)
    assert (root / 'etc/yolojet/camera.yaml').read_text() == 'new: true\n'


def test_setup_files_are_filled_in_once(root):
    _install(root, '--setup', '/opt/ros/jazzy/setup.bash', '--setup', '/ws/setup.bash')
    settings = root / 'etc/yolojet/yolojet.env'
    line = 'YOLOJET_SETUP="/opt/ros/jazzy/setup.bash /ws/setup.bash"'
    assert line in settings.read_text().splitlines()
    assert _install(root) == '' and line in settings.read_text()
    _install(root, '--setup', '/ws/other.bash')  # not edited: the new ones are meant
    assert 'YOLOJET_SETUP="/ws/other.bash"' in settings.read_text()
    settings.write_text(settings.read_text() + '# mine\n')
    before = _tree(root)
    _install(root, '--setup', '/ws/other.bash')  # as it is already
    said = _install(root, '--setup', '/ws/third.bash', code=2)
    assert 'was edited' in said and _tree(root) == before


@pytest.mark.parametrize('options, words', [
    (('--rot',), "unknown option '--rot'"),
    (('--setup',), '--setup needs a value'),
    (('--setup', 'ws/setup.bash'), 'is relative'),
    (('--setup', '/w s/setup.bash'), 'has a blank'),
    (('--purge',), '--purge goes with --uninstall')])
def test_refusals_are_one_sentence_and_change_nothing(root, options, words):
    said = _install(root, *options, code=2)
    assert words in said and len(said.splitlines()) == 1 and _tree(root) == {}


def test_missing_root_and_incomplete_checkout_are_refused(root, tmp_path):
    said = _install(tmp_path / 'nowhere', code=2)
    assert 'where there is no folder' in said and len(said.splitlines()) == 1
    shutil.copytree(DEPLOY, tmp_path / 'part/deploy')
    said = _run('bash', tmp_path / 'part/deploy/install.sh', '--root', root, code=2)
    assert 'deployment.md is missing' in said and _tree(root) == {}


def test_two_installers_at_once_are_refused(root):
    with subprocess.Popen(['flock', str(root), 'sleep', '60']) as holder:
        deadline = time.monotonic() + 10
        while subprocess.call(['flock', '-n', str(root), 'true']) == 0:
            assert time.monotonic() < deadline
        assert 'another install.sh is at work' in _install(root, code=2)
        holder.kill()


def _stopped(folder, program, number, code):
    """Return a PATH in which a program's n-th call runs `code` instead."""
    folder.mkdir(exist_ok=True)
    real, count = shutil.which(program), folder / 'count'
    path = folder / program
    path.write_text(f'#!/bin/sh\necho >> {count}\n'
                    f'[ "$(wc -l < {count})" != {number} ] || {{ {code}; }}\nexec {real} "$@"\n')
    path.chmod(0o755)
    return dict(os.environ, PATH=f'{folder}:{os.environ["PATH"]}')


@pytest.mark.parametrize('number', [1, 2, 7, 13])
def test_a_failure_in_the_middle_is_taken_back(root, tmp_path, number):
    (root / 'etc/logrotate.d').mkdir(parents=True)
    (root / 'etc/logrotate.d/yolojet').write_text('of somebody else')
    before = _tree(root)
    full = _stopped(tmp_path / 'bin', 'mv', number, 'echo No space left on device >&2; exit 1')
    said = _install(root, code=1, env=full)
    assert said.splitlines()[-1].startswith('install.sh: it failed, and what it had written is')
    assert _tree(root) == before


@pytest.mark.parametrize('number', [2, 5, 13])
def test_killed_in_the_middle_it_is_repaired_by_the_next_run_and_removed_whole(
        root, tmp_path, number):
    killer = _stopped(tmp_path / 'bin', 'mv', number, 'kill -9 $PPID; exit 1')
    _install(root, code=-signal.SIGKILL, env=killer)
    assert list(root.rglob('*.yolojet-new'))
    half = tmp_path / 'half'
    shutil.copytree(root, half, symlinks=True)
    _install(root)
    clean = tmp_path / 'clean'
    clean.mkdir()
    _install(clean)
    repaired, whole = _tree(root), _tree(clean)
    assert set(repaired) == set(whole)
    assert {name for name in whole if repaired[name] != whole[name]} == set()
    _install(half, '--uninstall')
    assert not any(path.is_file() for path in half.rglob('*'))


# ---- units and settings


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


@_needs('systemd-analyze')
@pytest.mark.parametrize('unit', UNITS, ids=lambda unit: unit.stem)
def test_units_are_valid_and_hardened(unit, installed, tmp_path):
    staged = tmp_path / unit.name
    staged.write_text(unit.read_text().replace('/' + RUN, str(installed / RUN)).replace(
        'Documentation=file:///', f'Documentation=file://{installed}/'))
    said = _run('systemd-analyze', 'verify', '--man=no', staged)
    # What else is wrong on this machine is not ours.
    assert unit.name not in said and str(staged) not in said
    if 'offline' not in _run('systemd-analyze', '--help'):
        pytest.skip('this systemd rates no unit files')
    rating = _run('systemd-analyze', 'security', '--offline=true', '--no-pager', staged)
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


def test_the_environment_means_the_same_to_bash_as_to_systemd():
    path = DEPLOY / 'etc/yolojet.env'
    text = '\n'.join(line for line in path.read_text().splitlines() if line[:1] != '#')
    values = assignments(text)
    said = _run('bash', '-c', 'set -eu; set -a; . "$1"; env -0', 'bash', path, env={})
    seen = dict(entry.split('=', 1) for entry in said.split('\0') if entry)
    assert values == {name: seen[name] for name in values}
    assert '$' not in text and '`' not in text and '\\' not in text


def test_the_environment_names_what_the_package_reads():
    from yolojet_ros.ros import middleware
    text = (DEPLOY / 'etc/yolojet.env').read_text()
    values = assignments('\n'.join(line for line in text.splitlines() if line[:1] != '#'))
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
    result = _start(['detector_node', '--ros-args', '-r', 'a:=b c'], YOLOJET_SETUP=setup, PATH=path)
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


@_needs('logrotate')
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
        _run('logrotate', '--force', '--state', tmp_path / 'state', settings)
        node.write('after\n')
    assert log.read_text() == 'after\n'  # the node goes on in the same file
    assert log.with_name('detector.log.1.gz').is_file()


@_needs('systemd-tmpfiles')
@_needs('systemd-sysusers')
def test_user_and_folders_are_what_systemd_makes_of_them(installed, tmp_path):
    if os.geteuid() != 0:
        pytest.skip('needs root')
    root = tmp_path / 'root'
    shutil.copytree(installed, root, symlinks=True)
    for tool, name in (('sysusers', 'sysusers.d'), ('tmpfiles', 'tmpfiles.d')):
        options = ['--create'] if tool == 'tmpfiles' else []
        _run('systemd-' + tool, f'--root={root}', *options,
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


# ---- images


@pytest.mark.parametrize('path', DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_copy_what_exists_and_run_as_nobody_special(path):
    stages = read_stages(path)
    assert len(stages) >= 2
    names = {stage.name for stage in stages}
    for stage in stages:
        for instruction in stage.instructions:
            words = instruction.text.split()
            if instruction.name != 'COPY':
                continue
            if words[0].startswith('--from='):
                assert words[0][len('--from='):] in names
                continue
            assert all((ROOT / word).exists() for word in words[:-1]), instruction.text
    last = {instruction.name: instruction for instruction in stages[-1].instructions}
    assert int(last['USER'].text) > 0
    assert 'CMD ["yolojet", "health"]' in last['HEALTHCHECK'].text
    command = last['CMD'].words()
    assert (ROOT / 'scripts' / command[0]).is_file()
    assert any(word.endswith(command[-1].rsplit('/', 1)[1])
               for instruction in stages[-1].instructions if instruction.name == 'COPY'
               for word in instruction.text.split())


def test_bases_are_pinned():
    services = yaml.safe_load((DEPLOY / 'docker/compose.yaml').read_text())['services']
    builds = [service['build'] for service in services.values() if 'build' in service]
    bases = [read_stages(ROOT / build['dockerfile'], build.get('args'))[0].base
             for build in builds]
    assert len(bases) == 5
    for base in bases:
        tag = base.rpartition(':')[2]
        assert '/' not in tag and re.search(r'\d+\.\d+', tag), base


@pytest.mark.parametrize('distro, built', [('jazzy', False), ('humble', True)])
def test_the_gpu_image_gets_what_package_xml_names(tmp_path, distro, built):
    """Whether the base has ROS from source, as JetPack 5's, or gets its packages."""
    for program in ('apt-get', 'curl', 'rm'):  # which would change this machine
        path = tmp_path / program
        path.write_text(f'#!/bin/sh\necho {program} "$@"\n')
        path.chmod(0o755)
    if built:
        (tmp_path / 'ros' / distro).mkdir(parents=True)
    said = _run('bash', DEPLOY / 'docker/install_ros.sh', '1.2.3', ROOT / 'package.xml', env=dict(
        os.environ, PATH=f'{tmp_path}:{os.environ["PATH"]}', ROS_DISTRO=distro,
        ROS_FOLDER=str(tmp_path / 'ros')))
    last = [line for line in said.splitlines() if line.startswith('apt-get install')][-1].split()
    package = xml.etree.ElementTree.parse(ROOT / 'package.xml').getroot()
    names = {element.text for element in package.findall('exec_depend')}
    names -= {'rviz2', 'rviz_default_plugins'}
    python = {name for name in names if name.startswith('python3-')}
    ros = {f'ros-{distro}-' + name.replace('_', '-') for name in names - python}
    if built:
        wanted = python - {'python3-opencv'}
    else:
        wanted = python | ros
        assert re.search(r'curl .*/1\.2\.3/ros2-apt-source_1\.2\.3\.\w+_all\.deb', said)
    assert wanted <= set(last) and 'python3-venv' in last
    assert any(word.startswith('ros-') for word in last) is not built


@pytest.mark.parametrize('text, words', [
    ('FROM debian:12\nRUN a \\\n', 'does not end'),
    ('RUN a\n', 'before FROM'),
    ('FROM debian:12\nNOTHING a\n', 'is not known'),
    ('FROM $NOT\n', 'NOT is not set'),
    ('FROM a AS\n', 'FROM takes')])
def test_dockerfiles_that_cannot_be_read_are_refused(tmp_path, text, words):
    path = tmp_path / 'Dockerfile'
    path.write_text(text)
    with pytest.raises(DockerfileError, match=words):
        read_stages(path)


def test_dockerfiles_are_read_as_docker_reads_them(tmp_path):
    path = tmp_path / 'Dockerfile'
    path.write_text('ARG BASE=debian:12\nFROM ${BASE} AS a\n# no\nRUN one \\\n    # not this\n'
                    '    && two\nENV A=1 \\\n    B="x y"\nFROM a\nCMD ["x", "y z"]\n')
    first, second = read_stages(path, {'BASE': 'debian:13'})
    run, env = first.instructions
    assert (first.base, first.name, second.base, second.name) == ('debian:13', 'a', 'a', '1')
    assert run.command(['sh', '-c'])[-1].split() == ['one', '&&', 'two'] and run.line == 4
    assert assignments(env.text) == {'A': '1', 'B': 'x y'}
    assert second.instructions[0].command(['sh', '-c']) == ['x', 'y z']
    assert expand('$A/${B}/$A', {'A': 'p', 'B': 'q'}, 1) == 'p/q/p'


# ---- judges of other people's


@_needs('shellcheck')
def test_shell_scripts_satisfy_shellcheck():
    scripts = [ROOT / '.ci/run', DEPLOY / 'systemd/run', *sorted(DEPLOY.rglob('*.sh'))]
    assert len(scripts) >= 5
    assert _run('shellcheck', *scripts) == ''


@_needs('hadolint')
def test_dockerfiles_satisfy_hadolint():
    assert _run('hadolint', *DOCKERFILES) == ''


@_needs('docker-compose')
def test_compose_takes_the_compose_file():
    path = DEPLOY / 'docker/compose.yaml'
    text = _run('docker-compose', '-f', path, '--profile', '*', 'config')
    services = yaml.safe_load(text)['services']
    assert len(services) == 6
    for service in services.values():
        assert (service['network_mode'], service['ipc']) == ('host', 'host')
