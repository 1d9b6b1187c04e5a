"""
Tell systemd how a service is: ready, watched, ending; its datagrams need no library.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import os
import socket
from typing import Mapping, Optional

from yolojet_ros.core.text import one_line, shown

_PATIENCE = 0.5  # s that a queue may be full
_STATUS = 300  # characters of a status, which systemctl shows in one line


class ServiceManager:
    """
    The service manager that started this process; without one nothing is told.

    :param environment: of this process; NOTIFY_SOCKET names a Unix datagram socket, by a path or
        with @ for a name in the abstract namespace; WATCHDOG_USEC and WATCHDOG_PID say who must
        be heard from, and how often

    problem: why the socket that is named cannot be used, or ''
    watchdog: seconds within which `feed` must be called, None if nobody waits for it
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        name = environment.get('NOTIFY_SOCKET', '')
        self.problem = ''
        self._address: Optional[str] = None
        if name[:1] in ('/', '@') and len(name) > 1:
            self._address = '\0' + name[1:] if name[0] == '@' else name
        elif name:
            self.problem = (f'NOTIFY_SOCKET is {shown(name)}; expected a path that begins with / '
                            'or a name that begins with @: the service manager is told nothing')
        self.watchdog = _watchdog(environment) if self._address else None
        self._status = ''

    @property
    def listens(self) -> bool:
        """Return whether there is somebody to tell."""
        return self._address is not None

    def ready(self) -> None:
        """Say that the service is up."""
        self._tell('READY=1')

    def stopping(self) -> None:
        """Say that the service ends."""
        self._tell('STOPPING=1')

    def feed(self) -> None:
        """Say that all is well."""
        self._tell('WATCHDOG=1')

    def extend(self, seconds: float) -> None:
        """Ask for so many seconds more to start in, from now on."""
        self._tell(f'EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}')

    def status(self, text: str) -> None:
        """Say in one sentence how it is, if that is new; `systemctl status` shows it."""
        line = one_line(text, _STATUS)
        if line != self._status:
            self._status = line
            self._tell(f'STATUS={line}')

    def _tell(self, assignment: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as way:
                # Who is not heard is no reason to stand still.
                way.settimeout(_PATIENCE)
                way.sendto(assignment.encode(), self._address)
        except OSError as error:
            self.problem = self.problem or (
                f'the service manager cannot be told {assignment.split("=")[0]}: '
                f'{error.strerror or error or "its queue is full"}')


def _watchdog(environment: Mapping[str, str]) -> Optional[float]:
    """Return the seconds that WATCHDOG_USEC grants this process, None if it is not meant."""
    microseconds = environment.get('WATCHDOG_USEC', '')
    pid = environment.get('WATCHDOG_PID', '') or str(os.getpid())
    if not microseconds.isdecimal() or int(microseconds) == 0 or pid != str(os.getpid()):
        return None
    return int(microseconds) * 1e-6
