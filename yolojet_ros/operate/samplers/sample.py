"""What a machine says of itself at one moment."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple


@dataclass(frozen=True)
class Sample:
    """
    Everything may be None: what is not told is not 0.

    temperature_c: of the hottest part that tells, in degrees Celsius, beside GPU and CPU
    power_w: watts drawn by what `power_of` names: 'board' or 'GPU'
    gpu_percent: of the time in which the GPU worked; gpu_memory_bytes: used by everybody
    gpu_clock_mhz, cpu_clock_mhz: now; of the CPU the mean of some cores
    cpu_percent: of all cores; process_cpu_percent: of one core, by the process that is watched
    rss_bytes: resident memory of that process
    memory_bytes, swap_bytes: used by everybody
    throttling: why clocks are lower than they might be, or the heat that soon will lower them;
        () where nothing does
    """

    temperature_c: Optional[float] = None
    gpu_temperature_c: Optional[float] = None
    cpu_temperature_c: Optional[float] = None
    power_w: Optional[float] = None
    power_of: Optional[str] = None
    gpu_percent: Optional[float] = None
    gpu_memory_bytes: Optional[int] = None
    gpu_memory_total_bytes: Optional[int] = None
    gpu_clock_mhz: Optional[float] = None
    cpu_clock_mhz: Optional[float] = None
    cpu_percent: Optional[float] = None
    process_cpu_percent: Optional[float] = None
    rss_bytes: Optional[int] = None
    memory_bytes: Optional[int] = None
    memory_total_bytes: Optional[int] = None
    swap_bytes: Optional[int] = None
    throttling: Optional[Tuple[str, ...]] = None

    def known(self) -> Dict[str, Any]:
        """Return what is told, by name."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def merged(samples: Iterable[Sample]) -> Sample:
    """
    Return one sample of several readers: of each value the first that is told.

    The hottest part is that of all, power stays with what it is of, and all reasons count.
    """
    samples = list(samples)
    values: Dict[str, Any] = {}
    for sample in samples:
        for name, value in sample.known().items():
            if name != 'power_of' and name not in values:
                values[name] = value
                if name == 'power_w':
                    values['power_of'] = sample.power_of
    heat = hottest([sample.temperature_c for sample in samples])
    if heat is not None:
        values['temperature_c'] = heat
    reasons: List[str] = [reason for sample in samples for reason in sample.throttling or ()]
    if 'throttling' in values:
        values['throttling'] = tuple(dict.fromkeys(reasons))
    return Sample(**values)


def hottest(temperatures: Sequence[Optional[float]]) -> Optional[float]:
    """Return the highest of those that are known."""
    known = [value for value in temperatures if value is not None]
    return max(known) if known else None
