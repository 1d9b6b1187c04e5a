"""The images of deploy/: Dockerfiles, what they copy and run, and the compose file."""

import os
import re
import sys
import xml.etree.ElementTree

from deploy_tools import DEPLOY, needs, ROOT, run
import pytest
import yaml

sys.path.insert(0, str(DEPLOY / 'docker'))
from dockerfile import assignments, DockerfileError, expand, read_stages  # noqa: E402

DOCKERFILES = sorted((DEPLOY / 'docker').glob('Dockerfile.*'))


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
    assert 'CMD ["yolojet", "health", "--timeout", "10"]' in last['HEALTHCHECK'].text
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
    said = run('bash', DEPLOY / 'docker/install_ros.sh', '1.2.3', ROOT / 'package.xml', env=dict(
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
    ran, env = first.instructions
    assert (first.base, first.name, second.base, second.name) == ('debian:13', 'a', 'a', '1')
    assert ran.command(['sh', '-c'])[-1].split() == ['one', '&&', 'two'] and ran.line == 4
    assert assignments(env.text) == {'A': '1', 'B': 'x y'}
    assert second.instructions[0].command(['sh', '-c']) == ['x', 'y z']
    assert expand('$A/${B}/$A', {'A': 'p', 'B': 'q'}, 1) == 'p/q/p'


@needs('hadolint')
def test_dockerfiles_satisfy_hadolint():
    assert run('hadolint', *DOCKERFILES) == ''


@needs('docker-compose')
def test_compose_takes_the_compose_file():
    path = DEPLOY / 'docker/compose.yaml'
    text = run('docker-compose', '-f', path, '--profile', '*', 'config')
    services = yaml.safe_load(text)['services']
    assert len(services) == 6
    for service in services.values():
        assert (service['network_mode'], service['ipc']) == ('host', 'host')
