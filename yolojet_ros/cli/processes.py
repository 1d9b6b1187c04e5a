"""Start nodes as processes of their own, and stop them again."""

from __future__ import annotations

from contextlib import contextmanager
import ctypes
import json
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Iterator, List
import uuid

from yolojet_ros.core.errors import RunFailed, UserError
from yolojet_ros.ros import middleware

_STOP_SECONDS = 10
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Nodes:
    """The node processes of one command; each logs to a file in `folder`."""

    def __init__(self, folder: Path, namespace: str) -> None:
        self._folder = folder
        self.namespace = namespace
        self._follow = _follower()
        self._running: List[subprocess.Popen] = []

    def start(
        self, name: str, parameters: Dict[str, Any], show: bool = False, number: int = 0,
        below: str = '',
    ) -> subprocess.Popen:
        """
        Start nodes/NAME_node.py.

        :param show: let what it prints (but does not log) appear on the terminal
        :param number: of several of one kind, from 0
        :param below: a namespace within that of this run; it logs as NAME with this behind
        """
        arguments = ['--ros-args', '-r', f'__ns:={"/".join(filter(None, (self.namespace, below)))}']
        for key, value in parameters.items():
            arguments += ['-p', f'{key}:={_as_yaml(value)}']
        if number:
            arguments += ['-r', f'__node:={name}_{number}']
        command = [sys.executable, '-m', 'yolojet_ros.nodes.start', f'{name}_node', *arguments]
        with self.log(name + below).open('a' if number else 'w') as stream:
            process = subprocess.Popen(
                command, stdout=None if show else stream, stderr=stream,
                # What the terminal sends to all its processes (Ctrl-C, its end) reaches the
                # command alone, which stops its nodes in order.
                start_new_session=True, preexec_fn=self._follow)
        self._running.append(process)
        return process

    def log(self, name: str) -> Path:
        """Return the log file of a node."""
        return self._folder / f'{name}.log'

    def check(self, name: str, process: subprocess.Popen) -> None:
        """
        Look whether a process is well.

        :raises UserError: if it has failed, with its last words; on a full disk.
        :raises RunFailed: if a signal has ended it.
        """
        disk = os.statvfs(self._folder)
        if disk.f_blocks and not disk.f_bfree:  # what is waited for in a log will not come
            raise UserError(f'cannot write to {self._folder}: the disk is full; make room, '
                            'or choose another folder')
        if (process.poll() or 0) < 0:
            raise RunFailed(f'the {name} node was ended by signal {-process.returncode}')
        if process.poll():
            lines = self.log(name).read_text(errors='replace').strip().splitlines()
            raise UserError(
                f'the {name} node ended with exit code {process.returncode}; '
                f'its last words in {self.log(name)}: {lines[-1] if lines else "none"}')

    def result(self, name: str, path: Path) -> Dict[str, Any]:
        """
        Return the JSON that a node leaves at its end.

        :raises RunFailed: if it left none, because it was ended before.
        """
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            raise RunFailed(f'the {name} node was ended before it had summed up; '
                            f'its log is {self.log(name)}') from None

    def stop(self) -> None:
        """Interrupt all that still run, and wait for their end."""
        for process in self._running:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        end = time.monotonic() + _STOP_SECONDS  # for all of them together
        for process in self._running:
            try:
                process.wait(max(end - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def cpu_seconds(pid: int) -> float:
    """Return how long all threads of a process have run on a core so far."""
    # proc(5): utime and stime; the name of the process in front of them may hold anything.
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def resident_bytes(pid: int) -> int:
    """Return the memory of a process, what it shares with others by halves, thirds ..."""
    text = Path(f'/proc/{pid}/smaps_rollup').read_text()
    return int(re.search(r'^Pss:\s+(\d+) kB', text, re.MULTILINE).group(1)) * 1024


@contextmanager
def nodes(folder: Path, purpose: str) -> Iterator[Nodes]:
    """
    Yield a starter of node processes; all are stopped at the end, come what may.

    :param purpose: what their namespace begins with; it is of this run alone, so that
        several on one domain do not mix
    :raises UserError: if the middleware that they are to use is not installed.
    """
    middleware.check_installed()
    running = Nodes(folder, f'/yolojet_{purpose}_{uuid.uuid4().hex[:8]}')
    try:
        yield running
    finally:
        running.stop()


def _as_yaml(value: Any) -> str:
    """Return JSON, which is YAML; a text is escaped but for letters, which YAML takes as such."""
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def _follower() -> Callable[[], None]:
    """Return what a new process does first: be interrupted where this one ends, however."""
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def follow() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # jobs in the background inherit it ignored
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGINT))
        if os.getppid() != parent:
            os._exit(1)
    return follow
