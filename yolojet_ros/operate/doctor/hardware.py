"""Which machine it is: a Jetson or a PC, with an NVIDIA GPU or without, in a container or not."""

from __future__ import annotations

import os
import re
from typing import Dict, List, NamedTuple, Optional, Tuple

from yolojet_ros.operate.doctor.system import Probed, System

_NVIDIA, _DISPLAY = '0x10de', '0x03'
_DPKG_BYTES = 64 << 20
# JetPack by L4T, and the TensorRT that it brings.
_JETPACK = (
    ((39,), '7.2', '10.16'), ((38, 4), '7.1', '10.13'), ((38,), '7.0', '10.13'),
    ((36, 4), '6.1 or 6.2', '10.3'), ((36,), '6.0', '8.6'),
    ((35, 6), '5.1.4 or 5.1.5', '8.5'), ((35, 5), '5.1.3', '8.5'), ((35, 4), '5.1.2', '8.5'),
    ((35, 3), '5.1.1', '8.5'), ((35, 2), '5.1', '8.5'), ((35,), '5.0', '8.4'),
    ((32, 7), '4.6.1 or later', '8.2'), ((32, 6), '4.6', '8.0'), ((32,), '4.x', '7.1'),
)


class L4T(NamedTuple):
    """A release of Jetson Linux, the JetPack that it is of, and its TensorRT (major.minor)."""

    release: Tuple[int, ...]
    jetpack: str
    tensorrt: str

    def __str__(self) -> str:
        return f'L4T {".".join(map(str, self.release))} (JetPack {self.jetpack})'


def jetson(system: System) -> str:
    """Return the model of a Jetson, '' of other machines."""
    model = system.read('/proc/device-tree/model') or ''
    family = system.read('/proc/device-tree/compatible') or ''
    return model.strip('\0') if 'Jetson' in model or 'nvidia,tegra' in family else ''


def l4t(system: System) -> Optional[L4T]:
    """Return the release of Jetson Linux, None where there is none."""
    text = system.read('/etc/nv_tegra_release') or ''
    found = re.search(r'R(\d+) \(release\), REVISION: ([\d.]+)', text)
    if not found:
        return None
    release = (int(found.group(1)), *map(int, re.findall(r'\d+', found.group(2))))
    for begin, jetpack, tensorrt in _JETPACK:
        if release[:len(begin)] == begin:
            return L4T(release, jetpack, tensorrt)
    return L4T(release, 'unknown', '')


def in_container(system: System) -> bool:
    """Return whether this is a container."""
    return any(map(system.exists, ('/.dockerenv', '/run/.containerenv'))) or bool(
        re.search(r'docker|kubepods|containerd|lxc', system.read('/proc/1/cgroup') or ''))


def nvidia_card(system: System) -> bool:
    """Return whether an NVIDIA GPU is on the bus, with a driver or without."""
    return any(
        system.read(f'{folder}/vendor') == _NVIDIA
        and (system.read(f'{folder}/class') or '').startswith(_DISPLAY)
        for folder in system.glob('/sys/bus/pci/devices/*'))


def driver_release(system: System) -> str:
    """Return the release of NVIDIA's kernel module, such as 535.183.01; '' if none is loaded."""
    text = system.read('/proc/driver/nvidia/version') or ''
    found = re.search(r'Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s', text)
    return found.group(1) if found else ''


def has_gpu(system: System) -> bool:
    """Return whether there is any sign of an NVIDIA GPU that could be used."""
    return bool(jetson(system) or nvidia_card(system) or driver_release(system)
                or system.exists('/dev/nvidiactl') or system.exists('/dev/dxg'))


NO_GPU = 'there is no NVIDIA GPU here'


def cuda_text(version: int) -> str:
    """Return 12040 as 12.4."""
    return f'{version // 1000}.{version % 1000 // 10}'


def cuda(system: System) -> Probed:
    """Return what the probe of libcuda has told."""
    return system.probe('cuda')


def tensorrt_packages(system: System) -> List[Tuple[str, str, int]]:
    """
    Return (package, version, major version of CUDA or 0) of each TensorRT that is installed.

    Wheels carry CUDA in their name (tensorrt_cu12), Debian packages in their version
    (10.3.0.30-1+cuda12.5).
    """
    found: Dict[str, Tuple[str, int]] = {}
    for path in package_folders(system):
        for name in _listed(path):
            wheel = re.match(r'(tensorrt(?:[_-]cu(\d+))?(?:[_-]libs)?)-([\d.]+).*\.dist-info$',
                             name, re.IGNORECASE)
            if wheel:
                found[wheel.group(1)] = (wheel.group(3), int(wheel.group(2) or 0))
    for entry in (system.read('/var/lib/dpkg/status', _DPKG_BYTES) or '').split('\n\n'):
        debian = re.match(r'Package: (libnvinfer\d+)\n', entry.lstrip())
        version = re.search(r'^Version: ([\d.]+)(?:.*\+cuda(\d+))?', entry, re.MULTILINE)
        if debian and version and 'ok installed' in entry:
            found[debian.group(1)] = (version.group(1), int(version.group(2) or 0))
    return [(name, *values) for name, values in sorted(found.items())]


def package_folders(system: System) -> List[str]:
    """Return the folders that the probes' Python looks for packages in."""
    told = system.probe('folders').told.get('folders', [])
    return [folder for folder in told if os.path.isdir(folder)]


def _listed(folder: str) -> List[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
