"""
What Linux tells in files: heat, clocks, power and throttling, of a Jetson and of others.

Where they are: Documentation/ABI of the kernel (thermal, hwmon, cpufreq, devfreq), and "Platform
Power and Performance" of NVIDIA's Jetson Linux Developer Guide for the GPU's load, the INA3221
power monitors (JetPack 4: ina3221x with iio, later: hwmon) and the counters of over-current.
"""

from __future__ import annotations

import math
from pathlib import Path
import re
from typing import Dict, List, NamedTuple, Optional, Tuple

from yolojet_ros.operate.samplers.rails import board_watts, plausible
from yolojet_ros.operate.samplers.sample import hottest, Sample

_MOST_CORES = 4  # whose clock is read: on some CPUs each wakes a core
_NO_HEAT = ('PMIC', 'fan-est')  # zones that measure nothing
_SLOWING = re.compile(
    r'(thermal-)?(cpufreq|devfreq)|(cpu|gpu)-balanced|Processor', re.IGNORECASE)
_GPU = re.compile(r'gpu|gm20b|gp10b|gv11b|ga10b|gb10b')
_CPU_CHIPS = ('coretemp', 'k10temp', 'zenpower')
# soctherm of Orin and Thor; a throttled clock lasts milliseconds, the counter stays.
_OVER_CURRENT = {'oc1': 'under-voltage', 'oc2': 'mean over-current',
                 'oc3': 'over-current of an instant'}


class _Zone(NamedTuple):
    name: str
    path: Path
    limit: Optional[float]  # C, from which on the kernel slows down


class SysfsReader:
    """
    Files below a root, found once; each may be missing, and may refuse at any time.

    :param root: another one than / for trees that were recorded
    """

    name = 'sysfs'

    def __init__(self, root: Path = Path('/')) -> None:
        self._sys = Path(root) / 'sys'
        chips = {path: _text(path / 'name') or '' for path in self._glob('class/hwmon/hwmon*')}
        self._zones = [zone for zone in map(_zone, self._glob('class/thermal/thermal_zone*'))
                       if zone]
        self._coolers = [
            (kind, path / 'cur_state') for path in self._glob('class/thermal/cooling_device*')
            for kind in [_text(path / 'type') or ''] if _SLOWING.match(kind)]
        self._chip = next((path / 'temp1_input' for path, name in chips.items()
                           if name in _CPU_CHIPS), None)
        self._rails = _rails(self._sys, [path for path, name in chips.items()
                                         if name.startswith('ina')])
        self._clocks = self._cores()
        self._gpu_load, self._gpu_clock = self._gpu()
        self._counters = self._find_counters([path for path, name in chips.items()
                                              if name == 'soctherm_oc'])
        self._counts = {path: _number(path) for path in self._counters}
        model = _text(Path(root) / 'proc' / 'device-tree' / 'model')
        self.model = (model or '').strip('\0 ')

    def read(self) -> Sample:
        """Return what the files tell now."""
        heat, reasons = self._heat()
        watts = self._watts()
        reasons += self._slowing() + self._counted()
        gpu = [value for name, value in heat.items() if _GPU.search(name)]
        cpu = [value for name, value in heat.items() if 'cpu' in name or name == 'x86_pkg_temp']
        load, clock = _number(self._gpu_load), _number(self._gpu_clock)
        clocks = [value for value in map(_number, self._clocks) if value is not None]
        tells = self._zones or self._coolers or self._counters
        return Sample(
            temperature_c=hottest(list(heat.values())), gpu_temperature_c=hottest(gpu),
            cpu_temperature_c=hottest(cpu), power_w=watts,
            power_of=None if watts is None else 'board',
            gpu_percent=None if load is None else load / 10,  # of a thousand
            gpu_clock_mhz=None if clock is None else clock / 1e6,
            cpu_clock_mhz=sum(clocks) / 1e3 / len(clocks) if clocks else None,
            throttling=tuple(reasons) if tells else None)

    def close(self) -> None:
        """Nothing is held open."""

    def _glob(self, pattern: str) -> List[Path]:
        return sorted(self._sys.glob(pattern))

    def _heat(self) -> Tuple[Dict[str, float], List[str]]:
        """Return degrees by the zone's name in small letters, and which are beyond their limit."""
        heat, reasons = {}, []
        for zone in self._zones:
            milli = _number(zone.path)  # a part that is off gives an error
            celsius = None if milli is None else plausible(milli * 1e-3)
            if celsius is None:
                continue
            heat[zone.name.lower()] = celsius
            if zone.limit is not None and celsius >= zone.limit:
                reasons.append(f'{zone.name} is at {celsius:.1f} C, its limit is {zone.limit:g} C')
        milli = _number(self._chip)
        if milli is not None:
            heat['cpu chip'] = milli * 1e-3
        return heat, reasons

    def _slowing(self) -> List[str]:
        states = [(kind, _number(path)) for kind, path in self._coolers]
        return [f'{kind} is slowed down against heat (step {state:g})'
                for kind, state in states if state is not None and state > 0]

    def _counted(self) -> List[str]:
        """Return what has happened since the last look."""
        reasons = []
        for path, what in self._counters.items():
            count, before = _number(path), self._counts[path]
            self._counts[path] = count
            if count is not None and before is not None and count > before:
                reasons.append(f'{what}, {count - before:g} times since the last look')
        return reasons

    def _watts(self) -> Optional[float]:
        watts: Dict[str, float] = {}
        for name, factors in self._rails:
            values = [_number(path) for path in factors]
            if None in values:
                return None  # a sum without one of its parts is wrong
            # mW; or mV and mA.
            watts[name] = math.prod(values) * (1e-3 if len(values) == 1 else 1e-6)
        return board_watts(watts)

    def _cores(self) -> List[Path]:
        found = self._glob('devices/system/cpu/cpufreq/policy*/scaling_cur_freq')
        step = max(len(found) // _MOST_CORES, 1)
        return found[::step][:_MOST_CORES]

    def _gpu(self) -> Tuple[Optional[Path], Optional[Path]]:
        """Return the files of the GPU's load (in thousandths) and of its clock (in Hz)."""
        devices = [path for path in self._glob('class/devfreq/*') if _GPU.search(path.name)]
        loads = [path / 'device' / 'load' for path in devices] + [
            *self._glob('devices/gpu.0/load'), *self._glob('devices/platform/gpu.0/load')]
        load = next((path for path in loads if path.is_file()), None)
        return load, devices[0] / 'cur_freq' if devices else None

    def _find_counters(self, chips: List[Path]) -> Dict[Path, str]:
        found = {path / f'{name}_event_cnt': what for path in chips
                 for name, what in _OVER_CURRENT.items()}
        found.update({path: 'the CPU was too hot' for path in self._glob(
            'devices/system/cpu/cpu0/thermal_throttle/package_throttle_count')})
        return {path: what for path, what in found.items() if path.is_file()}


def _zone(path: Path) -> Optional[_Zone]:
    name = _text(path / 'type')
    if not name or any(word in name for word in _NO_HEAT):
        return None
    limits = [
        value * 1e-3 for kind in path.glob('trip_point_*_type')
        if _text(kind) in ('passive', 'hot')
        for value in [_number(kind.with_name(kind.name.replace('_type', '_temp')))]
        if value is not None and value > 0]
    return _Zone(name, path / 'temp', min(limits) if limits else None)


def _rails(sys: Path, chips: List[Path]) -> List[Tuple[str, Tuple[Path, ...]]]:
    """
    Return the rails: name, and the file of mW, or those of mV and mA.

    A channel without a label, or called "sum of shunt voltages", is no rail.
    """
    found = []
    for chip in chips:
        for number in (1, 2, 3):
            name = _text(chip / f'in{number}_label')
            pair = chip / f'in{number}_input', chip / f'curr{number}_input'
            if name and all(path.is_file() for path in pair):
                found.append((name, pair))
    for device in sorted(sys.glob('bus/i2c/drivers/ina3221x/*/iio:device*')):
        for number in (0, 1, 2):
            name = _text(device / f'rail_name_{number}')
            if name:
                found.append((name, (device / f'in_power{number}_input',)))
    return found


def _text(path: Path) -> Optional[str]:
    try:
        return path.read_text(errors='replace').strip()
    except OSError:
        return None


def _number(path: Optional[Path]) -> Optional[float]:
    try:
        with open(path, 'rb', buffering=0) as file:
            return float(file.read(64))
    except (OSError, TypeError, ValueError):
        return None
