"""`profile`: all parts of the measurement, and the report that they make."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from importlib.util import find_spec
import os
from pathlib import Path
import platform
import re
import time
from typing import Any, Callable, Dict, List

from yolojet_ros import __version__
from yolojet_ros.cli import profile_backends, profile_layers, profile_pipeline
from yolojet_ros.core.errors import UserError
from yolojet_ros.operate.report.format import FORMAT
from yolojet_ros.operate.samplers.machine import Machine, this_machine
from yolojet_ros.operate.samplers.recorder import Recorder

_IDLE_SECONDS = 1.0
_BUSY = 30  # % of all cores at rest, above which others disturb what is measured
_PACKAGES = ('numpy', 'cv2', 'onnxruntime', 'tensorrt', 'torch')


def measure(
    model: Path, arguments: argparse.Namespace, say: Callable[[str], None],
) -> Dict[str, Any]:
    """
    Measure all parts and return the report (operate/report/format.py says what is in it).

    :param arguments: of the command
    :param say: told what is being done
    :raises UserError: if the model cannot be run.
    """
    machine = this_machine(device=arguments.device, tegrastats=True)
    blind_spots = _blind_spots(machine)  # looks, so that the machine has a name
    report: Dict[str, Any] = {
        'format': FORMAT, 'yolojet': __version__,
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'machine': _machine(machine),
        'options': {name: getattr(arguments, name)
                    for name in ('seconds', 'size', 'rate', 'control_rate', 'backend')},
        'failed': [], 'skipped': blind_spots}
    with Recorder(machine) as recorder:
        say('at rest ...')
        with recorder.phase('idle'):
            time.sleep(_IDLE_SECONDS)
        report['idle'] = recorder.use('idle')
        report['notes'] = _notes(report['idle'])
        say(f'the pipeline, {arguments.seconds:g} s ...')
        report.update(profile_pipeline.measure(model, arguments, recorder))
        _node(model, arguments, recorder, report, say)
        if arguments.backends:
            say('backends ...')
            report['backends'] = profile_backends.measure(model, arguments, recorder)
        say('layers ...')
        _layers(model, arguments, report)
    report['samples'] = recorder.series()
    for part in ('pipeline', 'node'):
        if part in report:
            report[part]['joules_per_image'] = _joules(report[part], report['idle'])
    if arguments.control_rate:
        report['control'] = _control(arguments.control_rate, report)
    return report


def _node(
    model: Path, arguments: argparse.Namespace, recorder: Recorder, report: Dict[str, Any],
    say: Callable[[str], None],
) -> None:
    if arguments.no_node:
        report['skipped']['node'] = 'it was not wanted (--no-node)'
        return
    if find_spec('rclpy') is None:
        report['skipped']['node'] = 'ROS 2 (rclpy) is not installed, or not sourced'
        return
    if report['model']['task'] == 'classify':
        report['skipped']['node'] = 'a classifier publishes no detections to listen to'
        return
    say(f'the node over DDS, {arguments.rate} Hz, {arguments.seconds:g} s ...')
    try:
        from yolojet_ros.cli import profile_node
        report['node'] = profile_node.measure(model, arguments, recorder)
    except (ImportError, UserError) as error:
        report['skipped']['node'] = str(error)
        report['failed'].append('node')


def _layers(model: Path, arguments: argparse.Namespace, report: Dict[str, Any]) -> None:
    try:
        report['layers'] = profile_layers.measure(
            model, report['model']['backend'], arguments.device)
    except UserError as error:
        report['skipped']['layers'] = str(error)


def _notes(idle: Dict[str, Any]) -> List[str]:
    """Return what makes the figures others than those of the machine."""
    load = idle.get('cpu_percent', {'mean': 0})['mean']
    return [] if load <= _BUSY else [
        f'other programs took {load:.0f} % of the CPU before anything was measured; end them, and '
        'measure again']


def _joules(part: Dict[str, Any], idle: Dict[str, Any]) -> Any:
    """Return what an image takes, in all and above rest; None where no power is told."""
    power, rest = part['use'].get('power_w'), idle.get('power_w')
    if not power or not part['images_per_second']:
        return None
    rate = part['images_per_second']
    found = {'all': round(power['mean'] / rate, 4), 'of': part['use'].get('power_of')}
    if rest:
        found['above_idle'] = round((power['mean'] - rest['mean']) / rate, 4)
    return found


def _control(rate: int, report: Dict[str, Any]) -> Dict[str, Any]:
    """Return what part of a control period a result takes: by the node, if it was measured."""
    part = 'node' if 'node' in report else 'pipeline'
    period, latency = 1e3 / rate, report[part]['latency_ms']
    return {'rate': rate, 'period_ms': period, 'of': part,
            'share': {name: value and round(value / period, 4)
                      for name, value in latency.items()}}


def _machine(machine: Machine) -> Dict[str, Any]:
    return {'name': machine.name, 'cpu': _cpu(), 'cores': os.cpu_count(),
            'system': f'{platform.system()} {platform.release()}',
            'python': platform.python_version(), 'ros': os.environ.get('ROS_DISTRO'),
            'packages': {name: _version(name) for name in _PACKAGES if find_spec(name)}}


def _cpu() -> str:
    try:
        found = re.search(r'^model name\s*: (.+)$', Path('/proc/cpuinfo').read_text(), re.M)
    except OSError:
        found = None
    return found.group(1) if found else platform.machine()


def _version(module: str) -> str:
    """Return a version without importing the package, which may take seconds or fail."""
    try:
        from importlib import metadata
        names = {'cv2': ('opencv-python-headless', 'opencv-python')}.get(module, (module,))
        for name in names:
            try:
                return metadata.version(name)
            except metadata.PackageNotFoundError:
                pass
    except ImportError:
        pass
    return 'installed'


def _blind_spots(machine: Machine) -> Dict[str, str]:
    """Return what the readers cannot read here, and why."""
    told = machine.read()
    spots = {}
    for reader in machine.readers:
        why = getattr(reader, 'why', '')
        if why:
            spots[reader.name] = why
    for name, what in (('power_w', 'power, and joules an image'),
                       ('temperature_c', 'temperature'), ('gpu_percent', 'GPU utilisation')):
        if getattr(told, name) is None:
            spots[what] = 'no sensor of this machine tells it'
    return spots
