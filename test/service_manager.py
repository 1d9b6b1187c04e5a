"""Be systemd for a process: the socket that it tells how it is."""

from __future__ import annotations

import socket
import time


class ServiceManager:
    """
    A real datagram socket that takes what a service tells.

    :param address: a path, or @ and a name of the abstract namespace
    :param watchdog: seconds that the service is granted between two words, 0 for ever

    heard: (time.monotonic, text) of all that was taken
    """

    def __init__(self, address, watchdog=0.0):
        self.environment = {'NOTIFY_SOCKET': str(address)}
        if watchdog:
            self.environment['WATCHDOG_USEC'] = str(round(watchdog * 1e6))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(address).replace('@', '\0', 1))
        self._socket.setblocking(False)
        self.heard = []

    def take(self):
        """Take what has come; return all that was heard, without the moments."""
        while True:
            try:
                self.heard.append((time.monotonic(), self._socket.recv(4096).decode()))
            except BlockingIOError:
                return [text for _, text in self.heard]

    @property
    def fed(self):
        """Return how many times the watchdog was fed."""
        return self.take().count('WATCHDOG=1')

    @property
    def status(self):
        """Return the last status."""
        return next((text[len('STATUS='):] for text in reversed(self.take())
                     if text.startswith('STATUS=')), '')

    def close(self):
        """Hear no more."""
        self._socket.close()
