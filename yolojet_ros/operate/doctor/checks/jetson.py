"""JetPack, power mode, clocks and heat."""

from __future__ import annotations

import re
from typing import Dict, List, Optional, Tuple

from yolojet_ros.operate.doctor import hardware
from yolojet_ros.operate.doctor.check import Options
from yolojet_ros.operate.doctor.checks.cuda import CONTAINER
from yolojet_ros.operate.doctor.finding import fail, Finding, ok, skipped, warn
from yolojet_ros.operate.doctor.system import System

NO_JETSON = 'this is no Jetson'
_UNLIMITED = 1e6  # W, for MAXN
_CPUS = '/sys/devices/system/cpu/cpu[0-9]*/cpufreq'
# gpu: Orin and Thor (17000000.gpu, gpu-gpc-0); the others: Nano, TX2, Xavier.
_GPU = re.compile(r'gpu|gm20b|gp10b|gv11b|ga10b|gb10b')
# Cooling devices that slow something down, unlike fans.
_THROTTLES = re.compile(r'throttle|cpu|gpu|devfreq|processor|clk', re.IGNORECASE)
_REASONS = ('SW Thermal Slowdown', 'HW Thermal Slowdown', 'HW Power Brake Slowdown')


def jetpack(system: System, options: Options) -> Finding:
    """Look which Jetson and JetPack this is."""
    model = hardware.jetson(system)
    if not model:
        return skipped(NO_JETSON)
    release = hardware.l4t(system)
    if release is None:
        if hardware.in_container(system):
            return warn(f'{model}, and no /etc/nv_tegra_release in this container',
                        'its libraries of NVIDIA may be of another release than the host; mount '
                        'the file, and use an l4t image of the host\'s release',
                        'docker run --runtime nvidia -v /etc/nv_tegra_release:'
                        '/etc/nv_tegra_release:ro ...')
        return fail(f'{model}, and no /etc/nv_tegra_release', 'this is no Jetson Linux of NVIDIA, '
                    'so CUDA and TensorRT are missing or of unknown origin')
    if hardware.in_container(system) and not system.exists('/dev/nvhost-ctrl') \
            and not system.exists('/dev/nvmap'):
        return fail(f'{model}, {release}', CONTAINER)
    return ok(f'{model}, {release}')


def power_mode(system: System, options: Options) -> Finding:
    """Compare the power mode with the best that this Jetson has."""
    if not hardware.jetson(system):
        return skipped(NO_JETSON)
    names = {int(number): name for number, name in re.findall(
        r'<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>', system.read('/etc/nvpmodel.conf') or '')}
    number = _current_mode(system)
    if number is None:
        return skipped('neither /var/lib/nvpmodel/status nor nvpmodel -q tells the power mode')
    name = names.get(number) or f'mode {number}'
    found = f'power mode {number}, {name}'
    best = max(names, key=lambda mode: (_watts(names[mode]), _cores(names[mode]), -mode),
               default=number)
    if _watts(name) < _watts(names.get(best, name)):
        return warn(f'{found}; the most is {names[best]}', 'cores are off and clocks are limited, '
                    'so images take longer; the supply and cooling must bear the higher mode',
                    f'sudo nvpmodel -m {best}')
    return ok(found)


def _current_mode(system: System) -> Optional[int]:
    found = re.search(r'pmode:0*(\d+)', system.read('/var/lib/nvpmodel/status') or '')
    if not found:
        done = system.run(['nvpmodel', '-q'])
        # NV Power Mode: MODE_15W_6CORE, and its number in a line of its own.
        found = re.search(r'NV Power Mode:[^\n]*\n\s*(\d+)', done.output if done else '')
    return int(found.group(1)) if found else None


def _watts(name: str) -> float:
    """Return the watts in the name of a mode; MAXN has no limit, others none known."""
    if 'MAXN' in name:
        return _UNLIMITED
    found = re.search(r'(\d+)W', name)
    return float(found.group(1)) if found else 0.0


def _cores(name: str) -> int:
    found = re.search(r'(\d+)CORE', name)
    return int(found.group(1)) if found else 0


def locked_clocks(system: System, options: Options) -> Finding:
    """Look whether clocks of a Jetson stay at their most."""
    if not hardware.jetson(system):
        return skipped(NO_JETSON)
    free, known = [], 0
    places = [(f'{folder}/scaling_', '_freq', 'CPU') for folder in system.glob(_CPUS)]
    places += [(f'{folder}/', '_freq', 'GPU') for folder in system.glob('/sys/class/devfreq/*')
               if _GPU.search(folder.rpartition('/')[2])]
    for before, after, what in places:
        least, most = (system.number(f'{before}{edge}{after}') for edge in ('min', 'max'))
        if least is None or most is None:
            continue
        known += 1
        if least < most:
            unit = 1e3 if what == 'CPU' else 1e6  # kHz, Hz
            free.append((what, f'{what} {least / unit:.0f} to {most / unit:.0f} MHz'))
    if not known:
        return skipped('no clocks of CPU or GPU can be read')
    if free:
        said = ', '.join(text for _, text in sorted(dict(reversed(free)).items()))
        return warn(f'clocks follow the load: {said}', 'images that come alone find slow clocks, '
                    'so latency is higher and varies; jetson_clocks holds them until the next '
                    'start, at more power', 'sudo jetson_clocks')
    return ok('clocks are locked')


def thermal(system: System, options: Options) -> Finding:
    """Look whether heat or current slows this machine down."""
    zones, slowed = _zones(system), _slowed(system)
    hottest = max(zones, key=lambda zone: zone[1], default=None)
    found = f'{len(zones)} zones, the hottest {hottest[0]} with {hottest[1]:.0f} C' \
        if hottest else 'no thermal zones can be read'
    cool = 'sudo tegrastats' if hardware.jetson(system) else 'nvidia-smi -q -d TEMPERATURE'
    for name, degrees, trips in zones:
        if 'critical' in trips and degrees >= trips['critical'] - 3:
            return fail(f'{name} has {degrees:.0f} C, and {trips["critical"]:.0f} C end the '
                        'machine', 'cool it now: fan, heat sink, shade, a lower power mode', cool)
    for name, degrees, trips in zones:
        if 'passive' in trips and degrees >= trips['passive']:
            slowed.insert(0, f'{name} has {degrees:.0f} C, from {trips["passive"]:.0f} C on '
                          'clocks are lowered')
    if slowed:
        return warn('; '.join(slowed), 'images take longer than this machine could; cool it, give '
                    'it a stronger supply, or take a lower power mode', cool)
    return ok(found) if hottest else skipped(found)


def _zones(system: System) -> List[Tuple[str, float, Dict[str, float]]]:
    """Return name, degrees C and the least trip point of each kind of all zones that tell."""
    zones = []
    for folder in system.glob('/sys/class/thermal/thermal_zone*'):
        degrees = system.number(f'{folder}/temp')  # one that is switched off gives an error
        if degrees is None or not -40_000 < degrees < 150_000:
            continue
        trips: Dict[str, float] = {}
        for path in system.glob(f'{folder}/trip_point_*_type'):
            kind, limit = system.read(path), system.number(path[:-len('type')] + 'temp')
            if kind and limit is not None and limit > 0:
                trips[kind] = min(trips.get(kind, 1e9), limit / 1e3)
        zones.append((system.read(f'{folder}/type') or folder, degrees / 1e3, trips))
    return zones


def _slowed(system: System) -> List[str]:
    """Return what slows the machine down now, or has since its start."""
    found = []
    for folder in system.glob('/sys/class/thermal/cooling_device*'):
        kind, state = system.read(f'{folder}/type') or '', system.number(f'{folder}/cur_state')
        if state and _THROTTLES.search(kind):
            found.append(f'{kind} is throttled (state {state})')
    for folder in system.glob('/sys/class/hwmon/hwmon*'):
        if (system.read(f'{folder}/name') or '').startswith('soctherm_oc'):
            counts = [system.number(path) or 0 for path in system.glob(f'{folder}/oc*_event_cnt')]
            if sum(counts):
                found.append(f'{sum(counts)} times over-current since the start: the supply is '
                             'too weak for this power mode')
    done = None if hardware.jetson(system) else system.run(
        ['nvidia-smi', '-q', '-d', 'PERFORMANCE'])
    for reason in _REASONS:
        if done and re.search(rf'{reason}\s*:\s*Active', done.output):
            found.append(f'the GPU: {reason}')
    return found
