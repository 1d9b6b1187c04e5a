"""End node processes by force, and clean up what only they could have: their shared memory."""

import os
from pathlib import Path
import re
import signal
import time

_SEGMENT = re.compile(r'/dev/shm/fast(?:dds|rtps)_[0-9a-f]{16}\b')


def segments(pid):
    """Return the files of shared memory of Fast DDS that a process has open."""
    try:
        return set(map(Path, _SEGMENT.findall(Path(f'/proc/{pid}/maps').read_text())))
    except OSError:  # it has ended, or is somebody else's
        return set()


def kill(pid):
    """
    Kill a process, and remove its shared memory, which Fast DDS then leaves for ever.

    What another process has open, too, stays.
    """
    left = segments(pid)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    end = time.monotonic() + 10
    while segments(pid) and time.monotonic() < end:
        time.sleep(0.01)
    for other in os.listdir('/proc'):
        if left and other.isdigit():
            left -= segments(int(other))
    for path in left:
        for file in (path, path.with_name(f'{path.name}_el')):  # and its lock
            file.unlink(missing_ok=True)
