"""The installer: idempotent, honest beforehand, whole again after whatever stops it."""

import os
import shutil
import signal
import subprocess
import time

from deploy_tools import DEPLOY, install, needs, ROOT, run, tree
import pytest

WANTS = 'etc/systemd/system/multi-user.target.wants'


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / 'root'
    folder.mkdir()
    return folder


def test_dry_run_changes_nothing_and_says_what_an_installation_does(root):
    said = install(root, '--dry-run')
    assert tree(root) == {}
    done = install(root)
    assert said.splitlines() == ['would ' + line for line in done.splitlines()]
    before = tree(root)
    install(root, '--uninstall', '--dry-run')
    assert tree(root) == before


def test_installing_twice_is_installing_once(root):
    install(root, '--camera')
    before = tree(root)
    assert install(root, '--camera') == ''
    assert tree(root) == before
    assert install(root) == '' and tree(root) == before  # the camera stays enabled


def test_uninstalling_leaves_a_root_as_it_was(root):
    (root / 'etc/systemd/system').mkdir(parents=True)
    (root / 'etc/systemd/system/other.service').write_text('not ours')
    before = tree(root)
    install(root, '--camera')
    assert os.readlink(root / WANTS / 'yolojet-camera.service') == '../yolojet-camera.service'
    install(root, '--uninstall')
    assert tree(root) == before
    assert 'nothing is installed' in install(root, '--uninstall')


def test_an_uninstallation_that_fails_is_finished_by_the_next(root, tmp_path):
    install(root)
    broken = _stopped(tmp_path / 'bin', 'rm', 12, 'exit 1')
    said = install(root, '--uninstall', code=1, env=broken)
    assert said.splitlines()[-1] == 'install.sh: it failed; run it again to remove the rest'
    assert any(path.is_file() for path in root.rglob('*'))
    install(root, '--uninstall')
    assert tree(root) == {}


def test_edited_settings_and_data_stay(root):
    install(root)
    settings = root / 'etc/yolojet/yolojet.env'
    model = root / 'var/lib/yolojet/models/mine.onnx'
    settings.write_text('ROS_DOMAIN_ID=7\n')
    model.write_text('weights')
    unit = root / 'etc/systemd/system/yolojet-detector.service'
    unit.write_text('old version')
    said = install(root)
    assert 'keep /etc/yolojet/yolojet.env, which was edited' in said
    assert settings.read_text() == 'ROS_DOMAIN_ID=7\n'
    assert 'Type=notify' in unit.read_text()
    install(root, '--uninstall')
    assert [path for path in root.rglob('*') if path.is_file()] in (
        [settings, model], [model, settings])
    install(root, '--uninstall', '--purge')
    assert not any(path.is_file() for path in root.rglob('*'))


def test_settings_that_nobody_edited_follow_a_new_version(root, tmp_path):
    install(root)
    newer = tmp_path / 'newer'
    shutil.copytree(DEPLOY, newer / 'deploy')
    shutil.copytree(ROOT / 'docs', newer / 'docs')
    (newer / 'deploy/etc/camera.yaml').write_text('new: true\n')
    run('bash', newer / 'deploy/install.sh', '--root', root)
    assert (root / 'etc/yolojet/camera.yaml').read_text() == 'new: true\n'


def test_setup_files_are_filled_in_once(root):
    install(root, '--setup', '/opt/ros/jazzy/setup.bash', '--setup', '/ws/setup.bash')
    settings = root / 'etc/yolojet/yolojet.env'
    line = 'YOLOJET_SETUP="/opt/ros/jazzy/setup.bash /ws/setup.bash"'
    assert line in settings.read_text().splitlines()
    assert install(root) == '' and line in settings.read_text()
    install(root, '--setup', '/ws/other.bash')  # not edited: the new ones are meant
    assert 'YOLOJET_SETUP="/ws/other.bash"' in settings.read_text()
    settings.write_text(settings.read_text() + '# mine\n')
    before = tree(root)
    install(root, '--setup', '/ws/other.bash')  # as it is already
    said = install(root, '--setup', '/ws/third.bash', code=2)
    assert 'was edited' in said and tree(root) == before


@pytest.mark.parametrize('options, words', [
    (('--rot',), "unknown option '--rot'"),
    (('--setup',), '--setup needs a value'),
    (('--setup', 'ws/setup.bash'), 'is relative'),
    (('--setup', '/w s/setup.bash'), 'has a blank'),
    (('--purge',), '--purge goes with --uninstall')])
def test_refusals_are_one_sentence_and_change_nothing(root, options, words):
    said = install(root, *options, code=2)
    assert words in said and len(said.splitlines()) == 1 and tree(root) == {}


def test_missing_root_and_incomplete_checkout_are_refused(root, tmp_path):
    said = install(tmp_path / 'nowhere', code=2)
    assert 'where there is no folder' in said and len(said.splitlines()) == 1
    shutil.copytree(DEPLOY, tmp_path / 'part/deploy')
    said = run('bash', tmp_path / 'part/deploy/install.sh', '--root', root, code=2)
    assert 'deployment.md is missing' in said and tree(root) == {}


def test_two_installers_at_once_are_refused(root):
    with subprocess.Popen(['flock', str(root), 'sleep', '60']) as holder:
        deadline = time.monotonic() + 10
        while subprocess.call(['flock', '-n', str(root), 'true']) == 0:
            assert time.monotonic() < deadline
        assert 'another install.sh is at work' in install(root, code=2)
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
    before = tree(root)
    full = _stopped(tmp_path / 'bin', 'mv', number, 'echo No space left on device >&2; exit 1')
    said = install(root, code=1, env=full)
    assert said.splitlines()[-1].startswith('install.sh: it failed, and what it had written is')
    assert tree(root) == before


@pytest.mark.parametrize('number', [2, 5, 13])
def test_killed_in_the_middle_it_is_repaired_by_the_next_run_and_removed_whole(
        root, tmp_path, number):
    killer = _stopped(tmp_path / 'bin', 'mv', number, 'kill -9 $PPID; exit 1')
    install(root, code=-signal.SIGKILL, env=killer)
    assert list(root.rglob('*.yolojet-new'))
    half = tmp_path / 'half'
    shutil.copytree(root, half, symlinks=True)
    install(root)
    clean = tmp_path / 'clean'
    clean.mkdir()
    install(clean)
    repaired, whole = tree(root), tree(clean)
    assert set(repaired) == set(whole)
    assert {name for name in whole if repaired[name] != whole[name]} == set()
    install(half, '--uninstall')
    assert not any(path.is_file() for path in half.rglob('*'))


@needs('shellcheck')
def test_shell_scripts_satisfy_shellcheck():
    scripts = [ROOT / '.ci/run', DEPLOY / 'systemd/run', *sorted(DEPLOY.rglob('*.sh'))]
    assert len(scripts) >= 5
    assert run('shellcheck', *scripts) == ''
