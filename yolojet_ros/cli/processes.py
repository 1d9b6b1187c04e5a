"""Start nodes as processes of their own, and stop them again."""

from __future__ import annotations

from contextlib import contextmanager
import os
from pathlib import Path
import signal
import subprocess
import sys
from typing import Any, Dict, Iterator, List

from yolojet_ros.core.errors import UserError

_STOP_SECONDS = 10


class Nodes:
    """The node processes of one command; each logs to a file in `folder`."""

    def __init__(self, folder: Path, namespace: str) -> None:
        self._folder = folder
        self._namespace = namespace
        self._running: List[subprocess.Popen] = []

    def start(
        self, name: str, parameters: Dict[str, Any], show: bool = False, number: int = 0,
    ) -> subprocess.Popen:
        """
        Start nodes/NAME_node.py.

        :param show: let what it prints (but does not log) appear on the terminal
        :param number: of several of one kind, from 0
        """
        arguments = ['--ros-args', '-r', f'__ns:={self._namespace}']
        for key, value in parameters.items():
            arguments += ['-p', f'{key}:={_as_yaml(value)}']
        if number:
            arguments += ['-r', f'__node:={name}_{number}']
        command = [sys.executable, '-m', f'yolojet_ros.nodes.{name}_node', *arguments]
        with self.log(name).open('a' if number else 'w') as stream:
            process = subprocess.Popen(
                command, stdout=None if show else stream, stderr=stream)
        self._running.append(process)
        return process

    def log(self, name: str) -> Path:
        """Return the log file of a node."""
        return self._folder / f'{name}.log'

    def check(self, name: str, process: subprocess.Popen) -> None:
        """:raises UserError: if the process has failed, with its last words; on a full disk."""
        disk = os.statvfs(self._folder)
        if disk.f_blocks and not disk.f_bfree:  # what is waited for in a log will not come
            raise UserError(f'cannot write to {self._folder}: the disk is full; make room, '
                            'or choose another folder')
        if process.poll():
            lines = self.log(name).read_text(errors='replace').strip().splitlines()
            raise UserError(
                f'the {name} node ended with exit code {process.returncode}; '
                f'its last words in {self.log(name)}: {lines[-1] if lines else "none"}')

    def stop(self) -> None:
        """Interrupt all that still run, and wait for their end."""
        for process in self._running:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self._running:
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def nodes(folder: Path, namespace: str) -> Iterator[Nodes]:
    """Yield a starter of node processes; all are stopped at the end, come what may."""
    running = Nodes(folder, namespace)
    try:
        yield running
    finally:
        running.stop()


def _as_yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, (str, Path)) else str(value)
