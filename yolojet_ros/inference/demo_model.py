"""Where the demo models lie, in a source tree and in an installed package."""

from __future__ import annotations

from pathlib import Path
import sys
from typing import Optional

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import real_path

_FOLDER = Path('engines') / 'demo'
DEMO_MODELS = {'detect': 'yolojet_demo.onnx', 'segment': 'yolojet_demo_segment.onnx'}


def demo_model(task: str = 'detect') -> Path:
    """
    Return the path of a demo model's ONNX file.

    :param task: one of DEMO_MODELS
    :raises UserError: if it is not there.
    """
    file = _FOLDER / DEMO_MODELS[task]
    import yolojet_ros
    package = Path(yolojet_ros.__file__).resolve().parent
    places = [package.parent, Path(sys.prefix) / 'share' / 'yolojet_ros']
    # colcon installs to PREFIX/lib/pythonX.Y/site-packages and PREFIX/share.
    places += [parent / 'share' / 'yolojet_ros' for parent in package.parents]
    for place in places:
        if (place / file).is_file():
            return place / file
    raise UserError(
        f'the demo model {file} is not installed; clone the whole repository, or name '
        'an .onnx file as the model')


def model_or_demo(model: Optional[Path], task: str = 'detect') -> Path:
    """
    Return the file that is meant, absolute; without one the demo model of a task.

    :raises UserError: if there is no such file.
    """
    path = real_path(model or demo_model(task))
    if not path.is_file():
        raise UserError(f'no model file at {path}; give the path of an .onnx file')
    return path
