"""What the tests of deploy/ share."""

import os
from pathlib import Path
import shutil
import subprocess

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / 'deploy'


def needs(program):
    """Return a mark that skips a test where a program is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f'{program} is not installed')


def run(*command, code=0, **options):
    """Run a program that must end with `code`, and return what it says."""
    result = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        universal_newlines=True, timeout=120, **options)
    assert result.returncode == code, result.stdout
    return result.stdout


def install(root, *options, **more):
    """Run install.sh on a staged root."""
    return run('bash', DEPLOY / 'install.sh', '--root', root, *options, **more)


def tree(root):
    """Return every path below a root with its mode and content or target."""
    def what(path):
        if path.is_symlink():
            return os.readlink(path)
        return path.stat().st_mode, path.read_bytes() if path.is_file() else None
    return {str(path.relative_to(root)): what(path) for path in root.rglob('*')}
