"""What the supply rails of a Jetson add up to."""

from __future__ import annotations

from typing import Mapping, Optional

# Rails in front of all others: Thor; Orin NX and Nano, Xavier NX, TX2; Nano.
_INPUTS = ('VIN', 'VDD_IN', 'POM_5V_IN')
# Of AGX Orin's rails this one is fed by VIN_SYS_5V0 and is in it already; NC is not connected.
_WITHIN_OTHERS = ('VDDQ_VDD2_1V8AO', 'NC')


def board_watts(rails: Mapping[str, float]) -> Optional[float]:
    """
    Return what a board draws, None where no rail tells.

    :param rails: watts by NVIDIA's name of the rail. AGX boards measure no input: there it is the
        sum, which leaves out what the carrier draws from its own supply.
    """
    for name in _INPUTS:
        if name in rails:
            return round(rails[name], 3)
    watts = [value for name, value in rails.items() if name not in _WITHIN_OTHERS]
    return round(sum(watts), 3) if watts else None


def plausible(celsius: float) -> Optional[float]:
    """Return a temperature; None of what a sensor tells while its part is off (-256)."""
    return celsius if -40 < celsius < 150 else None
