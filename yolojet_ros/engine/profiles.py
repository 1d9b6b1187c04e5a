"""Build profiles: what is known of a device before its engine is built."""

from __future__ import annotations

from dataclasses import dataclass, fields
import os
from pathlib import Path
import re
import sys
from typing import Dict, List, Optional, Tuple

import yaml

from yolojet_ros.core.errors import UserError

PRECISIONS = ('fp32', 'fp16', 'int8')
AUTO = 'auto'
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
    tactic_sources: names of trt.TacticSource to use; empty for TensorRT's choice
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
    found = [Path(os.environ.get('XDG_CONFIG_HOME') or Path.home() / '.config')
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
    if path is None or not path.is_file():
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
        data = yaml.safe_load(path.read_text(encoding='utf-8'))
        data = {'name': path.stem, **data}
        for key in ('precisions', 'tactic_sources'):
            data[key] = tuple(data.get(key) or ())
        unknown = set(data) - {item.name for item in fields(Profile)}
        if unknown:
            raise ValueError(f'unknown key {sorted(unknown)[0]}')
        profile = Profile(**data)
        if not profile.precisions or set(profile.precisions) - set(PRECISIONS):
            raise ValueError(f'precisions are {list(profile.precisions)}, not of {PRECISIONS}')
        if profile.precision not in profile.precisions:
            raise ValueError(f'precision {profile.precision} is not among its precisions')
        if int(profile.workspace_mib) <= 0 or int(profile.batch) <= 0:
            raise ValueError('workspace_mib and batch must be positive')
        return profile
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise UserError(
            f'{path} is not a build profile ({error}); compare it with '
            'config/profiles/desktop.yaml') from error
