"""How to add a Python package to those that the system ships."""

from __future__ import annotations

import shlex
import sys


def install_command(*packages: str) -> str:
    """
    Return the shell command that installs packages beside the NumPy that is there.

    The system's OpenCV and SciPy need that very NumPy, and its pip may be refused
    (PEP 668); so outside a virtual environment the command makes one on top of it.
    """
    try:
        import numpy as np
        packages += (f'numpy=={np.__version__}',)
    except ImportError:
        pass  # there is none to keep to
    wanted = ' '.join(map(shlex.quote, packages))
    if sys.prefix != sys.base_prefix:
        return f'{shlex.quote(sys.executable)} -m pip install {wanted}'
    return ('python3 -m venv --system-site-packages ~/yolojet_venv && '
            f'. ~/yolojet_venv/bin/activate && pip install {wanted}')
