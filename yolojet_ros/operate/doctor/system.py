"""What checks look at a machine through: files, variables, programs, and Python in a child."""

from __future__ import annotations

from dataclasses import dataclass, field
import glob
import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from typing import (
    Any, Dict, IO, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union)

from yolojet_ros.operate.doctor.probes.tell import MARK

_MOST_BYTES = 1 << 20  # of a file, or of what a program says
_AFTER_KILL = 2.0  # s; what hangs in a driver is not even ended by SIGKILL
_PACKAGE = 'yolojet_ros.operate.doctor.probes'
_FOLDER = str(Path(__file__).resolve().parents[3])  # that yolojet_ros lies in


class NoAnswer(Exception):
    """
    A program, or a step of a probe, did not end in time.

    :param what: did not
    :param output: what it had printed until then
    """

    def __init__(self, what: str, output: str = '') -> None:
        super().__init__(what)
        self.output = output


class Done(NamedTuple):
    """A program that has ended: its exit code, or minus the signal; what it printed."""

    code: int
    output: str

    @property
    def signal(self) -> str:
        """Return the name of the signal that ended it, '' if none did."""
        if self.code >= 0:
            return ''
        try:
            return signal.Signals(-self.code).name
        except ValueError:
            return f'signal {-self.code}'


@dataclass
class Probed:
    """What a probe has told until its end: `told` by key, and how it ended."""

    told: Dict[str, Any] = field(default_factory=dict)
    done: Done = Done(0, '')

    @property
    def crash(self) -> str:
        """Return what ended the probe and at which step, '' if it came to its end."""
        if self.told.get('ended'):
            return ''
        how = self.done.signal or f'exit code {self.done.code}'
        return f'{how} at "{self.told.get("step", "start")}"'


class System:
    """
    One machine, or a recording of one.

    :param root: folder in the place of /, for files and programs
    :param environ: variables of all processes
    :param python: interpreter of the probes

    limit: seconds that a program or probe may take; the runner sets it for each check
    """

    def __init__(
        self, root: str = '/', environ: Optional[Mapping[str, str]] = None,
        python: str = sys.executable,
    ) -> None:
        self.root = root
        self.environ = dict(os.environ if environ is None else environ)
        self.python = python
        self.limit = 10.0
        self._probed: Dict[Tuple[str, ...], Union[Probed, NoAnswer]] = {}
        self._lock = threading.Lock()
        self._running: List[subprocess.Popen] = []

    # ---- files

    def path(self, path: str) -> str:
        """Return where a file of the machine lies."""
        return os.path.join(self.root, path.lstrip('/'))

    def read(self, path: str, most: int = _MOST_BYTES) -> Optional[str]:
        """Return the text of a file, `most` bytes of it, None if it cannot be read."""
        try:
            with open(self.path(path), 'rb') as file:
                return file.read(most).decode(errors='replace').rstrip('\0\n')
        except OSError:
            return None

    def number(self, path: str) -> Optional[int]:
        """Return the number that a file holds, None if there is none."""
        try:
            return int((self.read(path) or '').split()[0])
        except (IndexError, ValueError):
            return None

    def exists(self, path: str) -> bool:
        """Return whether there is such a file, folder or device."""
        return os.path.exists(self.path(path))

    def glob(self, pattern: str) -> List[str]:
        """Return the paths that a pattern fits, sorted, as the machine names them."""
        found = glob.glob(os.path.join(glob.escape(self.root), pattern.lstrip('/')))
        return sorted('/' + os.path.relpath(path, self.root) for path in found)

    def disk(self, path: str) -> Optional[Tuple[int, int]]:
        """Return (total, free) bytes of the file system that a path lies in."""
        try:
            usage = shutil.disk_usage(self.path(path))
        except OSError:
            return None
        return usage.total, usage.free

    def writable(self, path: str) -> bool:
        """Return whether this user can make files in a folder."""
        return os.access(self.path(path), os.W_OK | os.X_OK)

    # ---- programs

    def which(self, program: str, *folders: str) -> Optional[str]:
        """Return where a program lies, by PATH and then in other folders; None if nowhere."""
        for folder in [*self.environ.get('PATH', '').split(os.pathsep), *folders]:
            path = os.path.join(folder, program)
            if folder and os.access(self.path(path), os.X_OK):
                return path
        return None

    def run(
        self, command: Sequence[str], environ: Optional[Mapping[str, str]] = None,
    ) -> Optional[Done]:
        """
        Run a program without input; what it prints, on both streams, is its output.

        :param command: the first word by `which`
        :return: None if there is no such program.
        :raises NoAnswer: if it takes longer than `limit`; it is killed, with what it started.
        """
        program = self.which(command[0], '/usr/sbin', '/sbin')
        if program is None:
            return None
        return self._run([self.path(program), *command[1:]], environ or self.environ)

    def _run(self, command: Sequence[str], environ: Mapping[str, str]) -> Done:
        # A file, because a pipe stays open as long as any grandchild has it.
        with tempfile.TemporaryFile() as output:
            try:
                process = subprocess.Popen(
                    command, env=dict(environ), stdin=subprocess.DEVNULL, stdout=output,
                    stderr=subprocess.STDOUT, start_new_session=True)
            except OSError as error:
                return Done(127, error.strerror or str(error))
            self._running.append(process)
            try:
                code = process.wait(self.limit)
            except subprocess.TimeoutExpired:
                raise NoAnswer(os.path.basename(command[0]), _text(output)) from None
            finally:
                _kill(process)
                self._running.remove(process)
            return Done(code, _text(output))

    # ---- probes

    def probe(self, name: str, *arguments: str) -> Probed:
        """
        Run a probe in a child once and return what it told; a second call returns the same.

        :param name: of a function in the table of probes/__main__.py
        :raises NoAnswer: if it takes longer than `limit`; a second call does not wait again.
        """
        return self.told([self.python, '-m', _PACKAGE, name, *arguments])

    def told(self, command: Sequence[str]) -> Probed:
        """Run a command that speaks as a probe does, once."""
        key = tuple(command)
        with self._lock:
            if key not in self._probed:
                self._probed[key] = self._probe(command)
            probed = self._probed[key]
        if isinstance(probed, NoAnswer):
            raise probed
        return probed

    def _probe(self, command: Sequence[str]) -> Union[Probed, NoAnswer]:
        environ = dict(self.environ, PYTHONUNBUFFERED='1')
        # Behind what the user has there, so that nothing of theirs is hidden.
        environ['PYTHONPATH'] = os.pathsep.join(
            filter(None, [environ.get('PYTHONPATH', ''), _FOLDER]))
        try:
            done = self._run(command, environ)
        except NoAnswer as error:
            told, _ = _read(error.output)
            return NoAnswer(f'"{told.get("step", "start")}"')
        told, said = _read(done.output)
        return Probed(told, Done(done.code, said))

    def close(self) -> None:
        """Kill what still runs."""
        for process in list(self._running):
            _kill(process)


def _text(output: IO[bytes]) -> str:
    output.seek(0)
    return output.read(_MOST_BYTES).decode(errors='replace').strip()


def _read(output: str) -> Tuple[Dict[str, Any], str]:
    """Return what a probe has told, and what else was printed."""
    told: Dict[str, Any] = {}
    said: List[str] = []
    for line in output.splitlines():
        before, mark, text = line.partition(MARK)
        try:
            told.update(json.loads(text) if mark else {})
        except ValueError:
            mark = ''
        said.append(before if mark else line)
    return told, '\n'.join(filter(str.strip, said))


def _kill(process: subprocess.Popen) -> None:
    """End a process and all that it started in its session; let it clean up first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except OSError:
            pass  # it has ended
        try:
            process.wait(_AFTER_KILL)
        except subprocess.TimeoutExpired:
            pass
