"""Where the demo model lies, in a source tree and in an installed package."""

from __future__ import annotations

from pathlib import Path
import sys

from yolojet_ros.core.errors import UserError

_FILE = Path('engines') / 'demo' / 'yolojet_demo.onnx'


def demo_model() -> Path:
    """
    Return the path of the demo model's ONNX file.

    :raises UserError: if it is not there.
    """
    import yolojet_ros
    package = Path(yolojet_ros.__file__).resolve().parent
    places = [package.parent, Path(sys.prefix) / 'share' / 'yolojet_ros']
    # colcon installs to PREFIX/lib/pythonX.Y/site-packages and PREFIX/share.
    places += [parent / 'share' / 'yolojet_ros' for parent in package.parents]
    for place in places:
        if (place / _FILE).is_file():
            return place / _FILE
    raise UserError(
        f'the demo model {_FILE} is not installed; clone the whole repository, or name '
        'a YOLOv8 .onnx file as the model')
