"""Start an executable: an interrupt while it still imports ends it without a traceback."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
import signal
import sys


def start(module: str, interrupted: int = 0) -> None:
    """
    Import a module of yolojet_ros, such as 'nodes.camera_node', run its `main` and exit.

    The exit code is what `main` returns.

    :param interrupted: exit code after a SIGINT before `main` can take it
    """
    # A background job of a script is started with SIGINT ignored; so be it.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # Libraries in C turn a KeyboardInterrupt into an error of theirs; nothing is there to
        # clean up yet.
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(interrupted))
    if module.startswith('nodes.'):
        _check_middleware()
    main = importlib.import_module(f'yolojet_ros.{module}').main
    # From here on `main` takes the signals in its own way.
    sys.exit(main())


def _check_middleware() -> None:
    """Exit with one sentence if rcl would end the process while it is imported."""
    from yolojet_ros.core.errors import UserError
    from yolojet_ros.ros import middleware
    try:
        middleware.check_installed()
    except UserError as error:
        print(f'{Path(sys.argv[0]).stem}: {error}', file=sys.stderr)
        sys.exit(2)


if __name__ == '__main__':  # python -m yolojet_ros.nodes.start camera_node ...
    sys.argv.pop(0)
    start(f'nodes.{sys.argv[0]}')
