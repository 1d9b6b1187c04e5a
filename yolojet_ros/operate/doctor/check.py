"""One check: its name and area, its function and the time that it may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Sequence

from yolojet_ros.operate.doctor.finding import Finding
from yolojet_ros.operate.doctor.system import System


@dataclass(frozen=True)
class Options:
    """
    What the user tells of their configuration.

    model: path of an engine or ONNX file; params_file: of a ROS parameter file that names one
    node: name of the detector to look at in the running graph; '' for all that take images
    images: command that sends images between two processes and tells of them as probes do
    """

    model: str = ''
    params_file: str = ''
    node: str = ''
    images: Sequence[str] = ()


@dataclass(frozen=True)
class Check:
    """
    A check.

    seconds: that it may take before it is given up
    about: what it looks at, for the list of checks
    """

    name: str
    area: str
    function: Callable[[System, Options], Finding]
    about: str
    seconds: float = 5.0
