"""Build profiles: what is known of a device before its engine is built."""

from __future__ import annotations

from dataclasses import dataclass
import os
from pathlib import Path
import re
import sys
from typing import Any, Dict, List, Optional, Sequence, Tuple

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import read_text
from yolojet_ros.core.records import read_record
from yolojet_ros.core.text import one_line, shown
from yolojet_ros.core.yaml_text import read_yaml

PRECISIONS = ('fp32', 'fp16', 'int8')
AUTO = 'auto'
# The members of trt.TacticSource from TensorRT 8.2 to 11; no release has all of them.
TACTIC_SOURCES = ('CUBLAS', 'CUBLAS_LT', 'CUDNN', 'EDGE_MASK_CONVOLUTIONS', 'JIT_CONVOLUTIONS')
_MAX_BYTES = 1 << 14
_LIMITS = {'workspace_mib': (1, 1 << 20), 'batch': (1, 4096), 'dla_cores': (0, 16),
           'optimization_level': (0, 5)}
_DEVICE_TREE = Path('/proc/device-tree/model')


@dataclass(frozen=True)
class Profile:
    """
    One device, as config/profiles/NAME.yaml describes it.

    device_model: regular expression for the device tree's model, None for none
    compute_capability: e.g. '8.7'; None where it varies
    tensorrt: the version that is expected there
    weakly_typed: whether that TensorRT chooses precisions by flag (until 10.x)
    precisions: that the GPU is fast in; precision: the default of them
    workspace_mib: limit for the builder's scratch memory
    dla_cores: deep learning accelerators
    tactic_sources: of TACTIC_SOURCES, those to use; empty for TensorRT's choice
    optimization_level: 0..5 where TensorRT has it; None for TensorRT's choice
    """

    name: str
    description: str
    device_model: Optional[str]
    compute_capability: Optional[str]
    tensorrt: str
    weakly_typed: bool
    precisions: Tuple[str, ...]
    precision: str
    workspace_mib: int
    batch: int = 1
    dla_cores: int = 0
    tactic_sources: Tuple[str, ...] = ()
    optimization_level: Optional[int] = None


def folders() -> List[Path]:
    """Return where profiles are looked for, the user's own first."""
    found = [Path(os.environ.get('XDG_CONFIG_HOME') or os.path.expanduser('~/.config'))
             / 'yolojet' / 'profiles']
    prefixes = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) + [sys.prefix]
    found += [Path(prefix) / 'share' / 'yolojet_ros' / 'config' / 'profiles'
              for prefix in prefixes if prefix]
    return found + [Path(__file__).parents[2] / 'config' / 'profiles']


def available() -> Dict[str, Path]:
    """Return the files of all named profiles."""
    found: Dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.glob('*.yaml')):
            found.setdefault(path.stem, path)
    return found


def load(name: str) -> Profile:
    """
    Return a profile by name, by path of a YAML file, or 'auto' for this device's.

    :raises UserError: if there is none, or its file is wrong.
    """
    if name == AUTO:
        name = detect()
    known = available()
    path = Path(name) if name.endswith(('.yaml', '.yml')) else known.get(name)
    if path is None or not os.path.isfile(path):
        raise UserError(
            f'no profile "{name}"; choose {AUTO}, {", ".join(sorted(known))}, or give the path '
            'of a .yaml file like those in config/profiles')
    return _read(path)


def detect(device_tree: Path = _DEVICE_TREE) -> str:
    """Return the name of the profile for this device: by its device tree, else 'desktop'."""
    try:
        model = device_tree.read_text(errors='replace').strip('\0\n ')
    except OSError:
        return 'desktop'
    matches = []
    for name, path in available().items():
        profile = _read(path)
        match = profile.device_model and re.search(profile.device_model, model)
        if match:
            matches.append((len(match.group()), name))
    # "Jetson Nano 2GB" matches two profiles; the longer match is the closer one.
    return max(matches)[1] if matches else 'desktop'


def _read(path: Path) -> Profile:
    try:
        data = read_yaml(read_text(path, _MAX_BYTES))
        if isinstance(data, dict):
            data = {'name': path.stem, **data, 'tactic_sources': data.get('tactic_sources') or ()}
        profile = read_record(Profile, data)
        re.compile(profile.device_model or '')
        if not profile.precisions or set(profile.precisions) - set(PRECISIONS):
            raise ValueError(f'precisions are {list(profile.precisions)}, not of {PRECISIONS}')
        if profile.precision not in profile.precisions:
            raise ValueError(f'precision {profile.precision} is not among its precisions')
        check_tactic_sources(profile.tactic_sources)
        for key, (least, most) in _LIMITS.items():
            value = getattr(profile, key)
            if value is not None and not least <= value <= most:
                raise ValueError(f'{key} is {value}, not in {least}..{most}')
        return profile
    except (ValueError, re.error) as error:
        raise UserError(
            f'{path} is not a build profile ({one_line(str(error), 300)}); compare it with '
            'config/profiles/desktop.yaml') from error


def check_tactic_sources(names: Sequence[str]) -> None:
    """:raises ValueError: if no TensorRT has one of them."""
    for name in names:
        if name not in TACTIC_SOURCES:
            raise ValueError(f'there is no tactic source {shown(name)}; '
                             f'choose of {", ".join(TACTIC_SOURCES)}')
