"""The parameters of the records, checked."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
import os
from pathlib import Path
from typing import Any, Tuple

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import home_path
from yolojet_ros.core.installing import install_command
from yolojet_ros.core.knob_values import parse_list
from yolojet_ros.core.knobs import check_knobs, knob
from yolojet_ros.core.text import shown

CAUSES = ('low_score', 'id_switch', 'error')
OF_TRACKS = ('low_score', 'id_switch')
OFF = 'off'


@dataclass(frozen=True)
class RecordParams:
    """
    When to record, and where to; record_on becomes a tuple of causes, empty while it is off.

    :raises UserError: if a value is wrong, or something is to be recorded without rosbags.
    """

    record_on: Any = knob(OFF, (
        'Events around which images and results are kept, in bags: off, or some of low_score (an '
        'object became unsure or was lost in the middle of the image), id_switch (it seems to '
        'have got another id), error (an unusable image, a failed network).'))
    record_folder: str = knob('', (
        'Folder of the bags; empty: yolojet_records in $ROS_HOME, else in ~/.ros. In it the '
        'oldest bags are removed when they are too many.'))
    record_seconds: float = knob(5.0, (
        'Seconds before an event and after it that a bag holds. Raising it takes more memory (of '
        'all the seconds before) and disk.'), 1.0, 60.0)
    record_limit_mb: int = knob(1024, (
        'Megabytes of all bags in the folder; the oldest go first. Raising it keeps more of '
        'them.'), 1, 10**7)
    record_low_score: float = knob(0.1, (
        'How far above its threshold a score is unsure, for low_score. Raising it records '
        'more.'), 0.0, 1.0)
    record_pause: float = knob(30.0, (
        'Seconds from the last event of a bag until another of the same cause begins a new one. '
        'Raising it records less of what lasts.'), 0.0, 86400.0)

    def __post_init__(self) -> None:
        check_knobs(self)
        object.__setattr__(self, 'record_on', _causes(self.record_on))
        if '\0' in self.record_folder:
            raise UserError(f'record_folder is {shown(self.record_folder)}; name a folder')
        if self.record_on:
            self.folder()
            require_rosbags()

    def folder(self) -> Path:
        """
        Return where the bags go.

        :raises UserError: if it begins with an unknown home.
        """
        if self.record_folder:
            return home_path(self.record_folder).absolute()
        return home_path(os.environ.get('ROS_HOME') or '~/.ros').absolute() / 'yolojet_records'


def _causes(value: Any) -> Tuple[str, ...]:
    entries = parse_list(value)
    if entries in ([OFF], [False]):  # what YAML makes of a bare off
        return ()
    for entry in entries:
        if entry not in CAUSES:
            raise UserError(f'record_on holds {shown(entry)}; it must be {OFF}, or some of '
                            + ', '.join(CAUSES))
    return tuple(cause for cause in CAUSES if cause in entries)


def require_rosbags() -> None:
    """:raises UserError: with the command that installs it, if rosbags is not there."""
    try:
        import_module('rosbags.rosbag2')
    except ImportError:
        raise UserError(f'record_on needs rosbags, which is not installed; run '
                        f'"{install_command("rosbags")}" or set record_on to {OFF}') from None
