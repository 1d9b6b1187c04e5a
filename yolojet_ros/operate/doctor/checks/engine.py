"""The configured engine against its card, its ONNX file and this GPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

from yolojet_ros.core.engine_card import EngineCard, sha256
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import home_path, read_text
from yolojet_ros.operate.doctor import hardware
from yolojet_ros.operate.doctor.check import Options
from yolojet_ros.operate.doctor.finding import fail, Finding, ok, skipped, warn
from yolojet_ros.operate.doctor.system import NoAnswer, System

_SUFFIXES = ('.engine', '.plan', '.trt')
_MOST_BYTES = 1 << 20
_REBUILD = 'build it again with: '
_REMEDY = 'the node refuses it; an engine runs only where it was built'


def engine(system: System, options: Options) -> Finding:
    """Find the configured model, and compare it with what is here."""
    try:
        model, origin = _configured(system, options)
    except UserError as error:
        return fail(str(error), 'the node does not start with it')
    if not model:
        return skipped(origin)
    path = home_path(model)
    if path.suffix not in (*_SUFFIXES, '.onnx'):
        return fail(f'{origin} names {model}', 'a model file ends in .onnx or .engine')
    if not path.is_file():
        return fail(f'there is no {path}, which {origin} names', 'the node does not start',
                    f'yolojet engine build --out {path} --onnx MODEL.onnx'
                    if path.suffix != '.onnx' else '')
    if path.suffix == '.onnx':
        beside = path.with_suffix('.engine')
        if not beside.is_file():
            return ok(f'{path}, without an engine beside it',
                      'it runs on the CPU, also where there is a GPU' if hardware.has_gpu(system)
                      else '')
        return _engine(system, beside, path)
    return _engine(system, path, None)


def _configured(system: System, options: Options) -> Tuple[str, str]:
    """Return the path of the model, '' for none, and who names it or why nobody does."""
    if options.model:
        return options.model, '--model'
    if options.params_file:
        for name, parameters in read_parameters(options.params_file):
            model = _model_of(parameters)
            if model:
                return model, f'{name} in {options.params_file}'
        return '', f'{options.params_file} names no model: the demo model is taken'
    try:
        asked = system.probe('graph', options.node).told.get('parameters', {}) \
            if system.environ.get('AMENT_PREFIX_PATH') else {}
    except NoAnswer:
        asked = {}
    for name, values in asked.items():
        model = _model_of(values)
        if model and os.path.isfile(model):
            return model, f'the running {name}'
    return '', 'no model is configured; name one with --model or --params-file'


def _model_of(parameters: Mapping[str, Any]) -> str:
    """Return the model that parameters name: itself, or by what a model store has active."""
    store = parameters.get('model_store')
    if store:
        active = sorted(home_path(str(store)).joinpath('active').glob('*.onnx'))
        return str(active[0]) if active else f'{store}/active/MODEL.onnx'
    return str(parameters.get('model') or '')


def read_parameters(path: str) -> Iterator[Tuple[str, Dict[str, Any]]]:
    """
    Yield the name of each node in a ROS parameter file with its parameters.

    :raises UserError: if the file is none, or there is no library to read YAML with.
    """
    try:
        from yolojet_ros.core.yaml_text import read_yaml
    except ImportError:
        raise UserError(f'{path} cannot be read without PyYAML; name the engine with --model'
                        ) from None
    try:
        data = read_yaml(read_text(Path(path), _MOST_BYTES))
    except (ValueError, OSError) as error:
        raise UserError(f'{path} is no parameter file ({error})') from None
    found = list(_nodes('', data))
    if not found:
        raise UserError(f'{path} has no "ros__parameters", so it sets nothing')
    return iter(found)


def _nodes(name: str, data: Any) -> Iterator[Tuple[str, Dict[str, Any]]]:
    if isinstance(data, dict):
        if isinstance(data.get('ros__parameters'), dict):
            yield name, data['ros__parameters']
        for key, value in data.items():
            if key != 'ros__parameters':
                yield from _nodes(f'{name}/{str(key).strip("/")}', value)


def _engine(system: System, path: Path, onnx: Optional[Path]) -> Finding:
    """Compare an engine with its card, the model that it was built from, and this GPU."""
    try:
        card = EngineCard.load(path)
    except UserError as error:
        return fail(str(error), _REMEDY)
    if card is None:
        return warn(f'{path.name} has no {path.name}.json beside it', 'for which TensorRT, GPU '
                    'and model it was built is not known before it is loaded',
                    f'yolojet engine build --onnx {path.with_suffix(".onnx")} --out {path}')
    digest = sha256(path)
    source = onnx or path.parent / Path(card.onnx).name
    gpu, version = _here(system)
    try:
        # Where there is nothing to compare with, compare the card with itself.
        capability = tuple(gpu['capability']) if gpu else tuple(
            int(number) for number in card.compute_capability.split('.'))
        card.check(path.name, version or card.tensorrt, gpu.get('name', card.gpu), capability,
                   digest)
    except UserError as error:
        return _refused(error)
    except ValueError:
        return fail(f'{path.name}.json has "{card.compute_capability}" as compute capability',
                    _REMEDY, card.rebuild_command)
    found = (f'{path.name}: {card.precision}, by TensorRT {card.tensorrt} on {card.gpu} '
             f'({card.compute_capability})')
    lost = [plugin for plugin in card.plugins if not os.path.isfile(plugin)]
    if lost:
        return warn(f'{found}; it was built with {lost[0]}, which is not there',
                    'the parameter "plugins" must name that library where it lies now')
    if source.is_file():
        try:
            card.check_model(path, source, sha256(source))
        except UserError as error:
            return _refused(error, warn)
    elif onnx is None:
        found += f'; {source.name}, that it was built from, is not beside it'
    if not gpu or not version:
        return ok(found, 'whether it fits this machine cannot be told: there is '
                  + ('no GPU' if not gpu else 'no TensorRT') + ' to compare with')
    return ok(found)


def _refused(error: UserError, judge: Any = fail) -> Finding:
    text, _, command = str(error).partition(_REBUILD)
    return judge(text.rstrip('; '), _REMEDY if judge is fail else
                 'what the model has learned since is not in it', command)


def _here(system: System) -> Tuple[Dict[str, Any], str]:
    """Return the first GPU, {} for none, and the version of TensorRT, '' for none."""
    gpus = hardware.cuda(system).told.get('gpus', []) if hardware.has_gpu(system) else []
    try:
        version = system.probe('tensorrt').told.get('version', '') if gpus else ''
    except NoAnswer:
        version = ''
    return (gpus[0] if gpus else {}), version
