"""
Lines of NVIDIA's tegrastats, of Jetson Nano to Thor.

The words are those of "Tegrastats Utility" in NVIDIA's Jetson Linux Developer Guide; releases
write temperatures as CPU@30C or cpu@30.4C, rails as POM_5V_IN 3256/3256 or VIN 19780mW/19780mW.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from typing import Dict, List, Optional

from yolojet_ros.operate.samplers.rails import board_watts, plausible
from yolojet_ros.operate.samplers.sample import hottest, Sample

_MEGA = 2**20
_MEMORY = re.compile(r'\b(RAM|SWAP) (\d+)/(\d+)MB')
_CORES = re.compile(r'\bCPU \[([^\]]*)\]')
_CORE = re.compile(r'(\d+)%(?:@(\d+))?')
_GPU = re.compile(r'\bGR3D_FREQ (?:(\d+)%)?(?:@\[?([\d,]+)\]?)?')
_TEMPERATURE = re.compile(r'\b([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C\b')
# Now and the mean; Nano and Xavier leave out the unit. RAM and SWAP end in MB.
_RAIL = re.compile(r'\b([A-Z][A-Z0-9_]*) (\d+)(?:mW)?/\d+(?:mW)?(?:/\d+(?:mW)?)?(?!\w)')
_DUMMY = 'PMIC'  # always 100 C


def parse(line: str) -> Sample:
    """Return what a line tells; what it lacks, or tells in a way unknown here, stays None."""
    memory = {name: (int(used) * _MEGA, int(total) * _MEGA)
              for name, used, total in _MEMORY.findall(line)}
    cores = _CORES.search(line)
    loads = _CORE.findall(cores.group(1)) if cores else []
    gpu = _GPU.search(line)
    heat: Dict[str, float] = {}
    for name, text in _TEMPERATURE.findall(line):
        celsius = plausible(float(text))
        if celsius is not None and name != _DUMMY:
            heat[name.lower()] = celsius
    watts = board_watts({name: int(now) * 1e-3 for name, now in _RAIL.findall(line)})
    used, total = memory.get('RAM', (None, None))
    return Sample(
        temperature_c=hottest(list(heat.values())), gpu_temperature_c=heat.get('gpu'),
        cpu_temperature_c=heat.get('cpu'), power_w=watts,
        power_of=None if watts is None else 'board',
        gpu_percent=float(gpu[1]) if gpu and gpu[1] else None,
        gpu_clock_mhz=float(max(map(int, gpu[2].strip(',').split(',')))) if gpu and gpu[2]
        else None,
        cpu_clock_mhz=_mean([clock for _, clock in loads if clock]),
        # Cores that are off do nothing, and are part of the machine.
        cpu_percent=sum(int(load) for load, _ in loads) / len(cores.group(1).split(','))
        if loads else None,
        memory_bytes=used, memory_total_bytes=total, swap_bytes=memory.get('SWAP', (None,))[0])


def _mean(values: List[str]) -> Optional[float]:
    return sum(map(int, values)) / len(values) if values else None


class TegrastatsReader:
    """
    A tegrastats process of our own and its last line; None of all where there is no such program.

    Not for the node: the process costs more than reading the files that it reads.
    """

    name = 'tegrastats'

    def __init__(self, milliseconds: int = 200, program: str = 'tegrastats') -> None:
        path = shutil.which(program)
        self._last = Sample()
        self._process: Optional[subprocess.Popen] = None
        if path:
            self._process = subprocess.Popen(
                [path, '--interval', str(milliseconds)], stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, text=True)
            threading.Thread(target=self._follow, name='tegrastats', daemon=True).start()

    def _follow(self) -> None:
        for line in self._process.stdout:
            self._last = parse(line)

    def read(self) -> Sample:
        """Return what the last line told."""
        return self._last

    def close(self) -> None:
        """End the process."""
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._process = None
