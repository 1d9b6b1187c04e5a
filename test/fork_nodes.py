"""
Start many nodes quickly: import once, then fork a process for each command line.

Reads a JSON list of [module, arguments] from stdin; writes a JSON list of
[exit code, output] to stdout. A node that has started is interrupted. Exit code
None stands for one that neither started nor ended in time.
"""

import importlib
import json
import os
import select
import signal
import sys
import time

_SECONDS = 20.0
_STARTED = b'images over DDS'


def _run(module, arguments):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        sys.argv = [module.__file__, *arguments]
        code = 70
        try:
            code = module.main()
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 71)
    os.close(writing)
    output, ended = _read(reading, child)
    os.close(reading)
    if not ended:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    return code if ended else None, output.decode(errors='replace')


def _read(reading, child):
    """Return (output, whether the child has ended)."""
    output, interrupted = b'', False
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        if select.select([reading], [], [], 0.1)[0]:
            chunk = os.read(reading, 65536)
            if not chunk:
                return output, True
            output += chunk
        if _STARTED in output and not interrupted:
            interrupted = True
            os.kill(child, signal.SIGINT)
    return output, False


def main():
    """Run what stdin asks for."""
    cases = json.load(sys.stdin)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    modules = {name: importlib.import_module(name) for name, _ in cases}
    json.dump([_run(modules[name], arguments) for name, arguments in cases], sys.stdout)


if __name__ == '__main__':
    main()
