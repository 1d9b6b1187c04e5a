#!/usr/bin/env python3
"""
Build an image of Debian from its Dockerfile without Docker, and try what is in it.

    apt install mmdebstrap
    deploy/docker/try_in_chroot.py deploy/docker/Dockerfile.cpu FOLDER

Every instruction acts on a root folder made by mmdebstrap instead of the base image: ARG, ENV,
WORKDIR, USER, COPY and RUN as they stand. Then the image's own user starts its default command
and a synthetic camera, asks its health check, runs `yolojet demo` and stops both with SIGTERM.
Needs root and a mirror of Debian; only for images on debian:12. Mounts live in a namespace of
this program's own and end with it.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Dict, List, Optional, Tuple

from dockerfile import assignments, DockerfileError, expand, Instruction, read_stages, Stage

CONTEXT = Path(__file__).resolve().parent.parent.parent
BASES = {r'debian:(12|bookworm)([.-].*)?': 'bookworm'}
PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
DOMAIN = '93'
_SEEN_SECONDS = 10.0  # for camera and detector to find each other
_END_SECONDS = 10.0  # after SIGTERM


class Image:
    """A root folder and what the instructions have set for it."""

    def __init__(self, root: Path, user: str = 'root') -> None:
        self.root = root
        self.environment = {'PATH': PATH, 'HOME': '/root'}
        self.folder = '/'
        self.user = user
        self.shell = ['/bin/sh', '-c']
        self.command: List[str] = []
        self.health: List[str] = []

    def arguments(self, command: List[str], extra: Optional[Dict[str, str]] = None) -> List[str]:
        """Return the command line that runs `command` in the image as its user."""
        variables = [f'{name}={value}' for name, value in
                     {**self.environment, **(extra or {})}.items()]
        # The shell only changes the folder, which chroot cannot.
        return ['chroot', f'--userspec={self.user}', *self._groups(), str(self.root),
                '/usr/bin/env', '-i', *variables,
                '/bin/sh', '-c', 'cd "$0" && exec "$@"', self.folder, *command]

    def _groups(self) -> List[str]:
        # chroot looks names up outside of the root: numbers come from the root's own file.
        if self.user == 'root':
            return []
        lines = [line.split(':') for line in (self.root / 'etc/group').read_text().splitlines()]
        name = next(line.split(':')[0] for line in
                    (self.root / 'etc/passwd').read_text().splitlines()
                    if line.split(':')[2] == self.user.split(':')[0])
        groups = [parts[2] for parts in lines if name in parts[3].split(',')]
        return ['--groups=' + ','.join(groups)] if groups else []


class Builder:
    """Carries the stages of a Dockerfile out, each in a folder of its own."""

    def __init__(self, folder: Path, forwarded: Dict[str, str], binds: List[Path]) -> None:
        self.folder = folder
        self.forwarded = forwarded
        self.binds = binds
        self.images: Dict[str, Image] = {}

    def build(self, stages: List[Stage]) -> Image:
        """Build all stages and return the last one's image."""
        for stage in stages:
            start = time.monotonic()
            say(f'FROM {stage.base} AS {stage.name}')
            image = self._begin(stage)
            self.images[stage.name] = image
            arguments: Dict[str, str] = {}
            for instruction in stage.instructions:
                self._carry_out(image, instruction, arguments)
            say(f'-- {stage.name}: {time.monotonic() - start:.0f} s, '
                f'{size(image.root, self.binds)} MB')
        return image

    def _begin(self, stage: Stage) -> Image:
        root = self.folder / stage.name
        if stage.base in self.images:
            source = self.images[stage.base].root
        else:
            source = self._base(stage.base)
        subprocess.run(['cp', '-a', '--one-file-system', str(source), str(root)], check=True)
        image = Image(root)
        for kind, target in (('proc', 'proc'), ('sysfs', 'sys')):
            run(['mount', '-t', kind, kind, str(root / target)])
        for bound in (Path('/dev'), *self.binds):
            target = root / bound.relative_to('/')
            if bound.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
            run(['mount', '--rbind', str(bound), str(target)])
            if bound != Path('/dev'):  # no instruction may change this machine's files
                run(['mount', '-o', 'remount,bind,ro', str(target)])
        shutil.copy('/etc/resolv.conf', root / 'etc/resolv.conf')
        return image

    def _base(self, name: str) -> Path:
        suite = next((suite for pattern, suite in BASES.items() if re.fullmatch(pattern, name)),
                     None)
        if suite is None:
            raise DockerfileError(f'the base {name} cannot be made from Debian\'s packages')
        root = self.folder / ('base-' + suite)
        if not root.exists():
            run(['mmdebstrap', '--quiet', '--variant=minbase', suite, str(root)])
        return root

    def _carry_out(
        self, image: Image, instruction: Instruction, arguments: Dict[str, str],
    ) -> None:
        name, text = instruction.name, instruction.text
        values = {**arguments, **image.environment}
        if name == 'RUN':
            say(f'[{instruction.line}] RUN {text[:70]}')
            run(image.arguments(instruction.command(image.shell), {**arguments, **self.forwarded}),
                ended=f'line {instruction.line}: RUN failed')
        elif name == 'COPY':
            say(f'[{instruction.line}] COPY {text}')
            self._copy(image, expand(text, values, instruction.line).split())
        elif name == 'ENV':
            image.environment.update(assignments(expand(text, values, instruction.line)))
        elif name == 'ARG':
            arguments.update(assignments(text))
        elif name == 'WORKDIR':
            image.folder = expand(text, values, instruction.line)
            (image.root / image.folder.lstrip('/')).mkdir(parents=True, exist_ok=True)
        elif name == 'USER':
            image.user = text if ':' in text else f'{text}:{text}'
        elif name == 'SHELL':
            image.shell = instruction.words()
        elif name == 'CMD':
            image.command = instruction.command(image.shell)
        elif name == 'HEALTHCHECK':
            image.health = Instruction(0, 'CMD', text.split('CMD ', 1)[1]).command(image.shell)

    def _copy(self, image: Image, words: List[str]) -> None:
        source = CONTEXT
        if words[0].startswith('--from='):
            source = self.images[words.pop(0)[len('--from='):]].root
        *names, target = words
        place = os.path.normpath(os.path.join('/', image.folder, target)).lstrip('/')
        into_folder = target.endswith('/') or len(names) > 1
        for name in names:
            path = source / name.lstrip('/')
            if not path.exists():
                raise DockerfileError(f'COPY {name}: there is no such file')
            goal = image.root / place
            if path.is_dir():
                shutil.copytree(path, goal, symlinks=True, dirs_exist_ok=True,
                                ignore=shutil.ignore_patterns('__pycache__', '.git'))
            else:
                goal = goal / path.name if into_folder else goal
                goal.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, goal)


def try_image(image: Image) -> None:
    """Run the default command, the health check and the demo as the image's user."""
    extra = {'ROS_DOMAIN_ID': DOMAIN}
    say(f'as user {image.user}: {" ".join(image.command)}')
    detector = subprocess.Popen(image.arguments(image.command, extra))
    # To a file, because the camera counts its images when it ends.
    with tempfile.TemporaryFile('w+') as log:
        camera = subprocess.Popen(image.arguments(
            ['camera_node', '--ros-args', '-p', 'source:=synthetic', '-p', 'rate:=10.0'], extra),
            stderr=log)
        _check(image, extra, (camera, detector))
        log.seek(0)
        count = int(re.search(r'published (\d+) images', log.read()).group(1))
    say(f'-- the detector took {count} images of the camera')
    if not count:
        raise DockerfileError('the detector did not subscribe to the camera')


def _check(image: Image, extra: Dict[str, str], nodes: Tuple[subprocess.Popen, ...]) -> None:
    """Ask the health check and run the demo beside the nodes, then end them."""
    try:
        time.sleep(_SEEN_SECONDS)
        listed = subprocess.run(image.arguments(['yolojet', '--help'], extra), check=True,
                                stdout=subprocess.PIPE, universal_newlines=True).stdout
        if re.search(r'^\s+health\b', listed, re.MULTILINE):
            start = time.monotonic()
            run(image.arguments(image.health, extra), ended='the health check failed')
            say(f'-- health check: exit code 0 after {time.monotonic() - start:.1f} s')
        else:
            say('-- no health check: this version has no `yolojet health`')
        run(image.arguments(['yolojet', 'demo', '--seconds', '5', '--out', '/tmp/demo'],
                            {'ROS_DOMAIN_ID': str(int(DOMAIN) + 1)}), ended='the demo failed')
    finally:
        for process in nodes:
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(_END_SECONDS) for process in nodes]
    say(f'-- camera and detector ended by SIGTERM with exit codes {codes}')
    if any(codes):
        raise DockerfileError('a node did not end cleanly')


def run(command: List[str], ended: str = '') -> None:
    """Run a command that must succeed."""
    code = subprocess.call(command)
    if code:
        raise DockerfileError(f'{ended or command[0] + " failed"} with exit code {code}')


def size(root: Path, binds: List[Path]) -> int:
    """Return the megabytes in a root folder, less what is mounted there."""
    excluded = [f'--exclude={root / path.relative_to("/")}' for path in binds]
    output = subprocess.run(['du', '-sxm', *excluded, str(root)],
                            stdout=subprocess.PIPE, check=True).stdout
    return int(output.split()[0])


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, flush=True)


def main() -> int:
    """Build and try; return 1 if something failed, 2 for wrong input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('dockerfile', type=Path)
    parser.add_argument('folder', type=Path, help='a new folder for the roots, about 3 GB')
    parser.add_argument('--env', action='append', default=[], metavar='NAME',
                        help='hand a variable of this shell to every RUN, such as PIP_INDEX_URL')
    parser.add_argument('--bind', action='append', default=[], type=Path, metavar='PATH',
                        help='let every root see a folder or file of this machine, read-only')
    options = parser.parse_args()
    if os.geteuid() != 0 or not shutil.which('mmdebstrap'):
        parser.error('run it as root, with mmdebstrap installed')
    if os.environ.get('YOLOJET_TRY_NAMESPACE') != '1':
        # What is mounted from here on is seen by nobody else and vanishes at the end.
        os.environ['YOLOJET_TRY_NAMESPACE'] = '1'
        os.execvp('unshare', ['unshare', '--mount', '--fork', '--pid', '--mount-proc',
                              '--kill-child', sys.executable, *sys.argv])
    if options.folder.exists():
        parser.error(f'{options.folder} exists; name a new folder')
    options.folder.mkdir(parents=True)
    # As the first process of its namespace it has no handlers of the system's.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    start = time.monotonic()
    try:
        builder = Builder(options.folder.resolve(),
                          {name: os.environ[name] for name in options.env}, options.bind)
        image = builder.build(read_stages(options.dockerfile))
        say(f'-- built in {time.monotonic() - start:.0f} s: {size(image.root, options.bind)} MB')
        try_image(image)
    except DockerfileError as error:
        print(f'try_in_chroot: {error}', file=sys.stderr)
        return 1
    say(f'-- all of it in {time.monotonic() - start:.0f} s')
    return 0


if __name__ == '__main__':
    sys.exit(main())
