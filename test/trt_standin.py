"""
TensorRT without TensorRT: a strict stand-in of each version's Python surface.

Every access to a name that the version lacks raises AttributeError, every enumerator has a
number of its own in every version, and "engines" run in ONNX Runtime. What is refused here is
what that version refuses.
"""

import importlib.machinery
import json
from pathlib import Path
import types
import weakref

import numpy as np
import onnx
import onnxruntime

_DATA = json.loads((Path(__file__).parent / 'trt_surface' / 'names.json').read_text())
VERSIONS = tuple(_DATA['versions'])
# Bound in ways that the reading of 8.2's sources does not see.
_ALSO = {'8.2': {'PluginFieldCollection'}}


_LIVING = weakref.WeakSet()
# What needs the CUDA context when it is freed.
_OF_A_CONTEXT = ('Runtime', 'ICudaEngine', 'IExecutionContext', 'Builder')


def living():
    """Return the objects that must be freed before their CUDA context."""
    return list(_LIVING)


class Surface:
    """The names of one version."""

    def __init__(self, version):
        self.version = version
        self._index = VERSIONS.index(version)

    def has(self, name, member=None):
        entry = _DATA['names'].get(name)
        if member is None:
            return name in _ALSO.get(self.version, ()) or (
                entry is not None and entry['in'][self._index] == '+')
        return member in self.members(name)

    def members(self, name):
        entry = _DATA['names'][name]
        found = set()
        for versions, names in entry.get('members', {}).items():
            if versions[self._index] == '+':
                found.update(names.split())
        return found


class _Strict:
    """An object that has only the attributes that its TensorRT class has in this version."""

    surface = None
    real_name = None

    def __new__(cls, *args, **kwargs):
        made = object.__new__(cls)
        if cls.real_name in _OF_A_CONTEXT:
            _LIVING.add(made)
        return made

    def __getattribute__(self, name):
        if not name.startswith('_') and name not in ('surface', 'real_name'):
            cls = type(self)
            if not cls.surface.has(cls.real_name, name):
                raise AttributeError(
                    f'TensorRT {cls.surface.version} has no {cls.real_name}.{name}')
        return object.__getattribute__(self, name)

    def __setattr__(self, name, value):
        cls = type(self)
        if not name.startswith('_') and not cls.surface.has(cls.real_name, name):
            raise AttributeError(f'TensorRT {cls.surface.version} has no {cls.real_name}.{name}')
        object.__setattr__(self, name, value)


class _Enumerator:
    def __init__(self, kind, name, value):
        self.kind, self.name, self.value = kind, name, value

    def __int__(self):
        return self.value

    def __repr__(self):
        return f'{self.kind}.{self.name}'


class _StrictEnum(type):
    def __getattribute__(cls, name):
        if name.startswith('_'):
            return type.__getattribute__(cls, name)
        table = type.__getattribute__(cls, '_table')
        if name not in table:
            raise AttributeError(f'TensorRT {cls._version} has no {cls.__name__}.{name}')
        return table[name]


def _enumeration(surface, name):
    members = sorted(surface.members(name) - {'name', 'value'})
    # Offset by version: a number that was learnt from one version is wrong in the others.
    shift = len(surface.version) % 3
    table = {member: _Enumerator(name, member, index + shift)
             for index, member in enumerate(members)}
    return _StrictEnum(name, (), {'_table': table, '_version': surface.version})


class _Any:
    """A tensor of the network API."""

    def __init__(self, shape=()):
        self.shape = shape
        self.name = ''


class _AnyLayer(_Strict):
    """A layer of the network API: it takes everything that its class has."""

    def __getattribute__(self, name):
        if not name.startswith('_'):
            cls = type(self)
            if not (cls.surface.has(cls.real_name, name) or cls.surface.has('ILayer', name)):
                raise AttributeError(
                    f'TensorRT {cls.surface.version} has no {cls.real_name}.{name}')
        return object.__getattribute__(self, name)

    def __setattr__(self, name, value):
        if not type(self).surface.has(type(self).real_name, name):
            raise AttributeError(
                f'TensorRT {self._trt._surface.version} has no {type(self).real_name}.{name}')
        object.__setattr__(self, name, value)

    def get_output(self, index):
        return _Any()

    def set_input(self, index, tensor):
        pass

    def set_output_type(self, index, kind):
        pass


class _Layer(_Strict):
    def __init__(self, kind):
        self._kind = kind
        self._precision = None

    @property
    def type(self):
        return self._kind

    @property
    def precision(self):
        return self._precision

    @precision.setter
    def precision(self, value):
        object.__setattr__(self, '_precision', value)


class _Module(types.ModuleType):
    """`tensorrt` of one version; `calls` and `made` tell what was done with it."""

    def __init__(self, version, dla_cores=0, refuses_int8_input=False):
        super().__init__('tensorrt')
        self.__version__ = {'8.2': '8.2.1.8', '8.6': '8.6.1'}.get(version, version + '.0')
        self.__spec__ = importlib.machinery.ModuleSpec('tensorrt', None)
        self._surface = Surface(version)
        self._dla_cores = dla_cores
        self._refuses_int8_input = refuses_int8_input
        self.made = types.SimpleNamespace(configs=[], networks=[], calls=[])
        self._fill()

    def __getattr__(self, name):
        raise AttributeError(f'TensorRT {self._surface.version} has no {name}')

    def _fill(self):
        surface = self._surface
        for name, entry in _DATA['names'].items():
            if entry['kind'] == 'e' and surface.has(name):
                setattr(self, name, _enumeration(surface, name))
        for name, cls in _CLASSES.items():
            if surface.has(name):
                members = {'surface': surface, 'real_name': name, '_trt': self}
                setattr(self, name, type(cls)(name, (cls,), members))
        self.init_libnvinfer_plugins = lambda logger, namespace: True
        self.get_plugin_registry = lambda: _new(self, 'IPluginRegistry')


def _new(trt, name, *args):
    """Make an object of a class that has no public constructor."""
    base = _PRIVATE.get(name, _AnyLayer)
    cls = type(base)(
        name, (base,),
        {'surface': trt._surface, 'real_name': name, '_trt': trt})
    return cls(*args)


class _ILogger(_Strict):
    ERROR, INTERNAL_ERROR, WARNING, INFO, VERBOSE = 'error', 'internal', 'warning', 'info', 'v'

    def __init__(self):
        pass

    def __getattribute__(self, name):
        return object.__getattribute__(self, name)  # Python subclasses add their own attributes

    def __setattr__(self, name, value):
        object.__setattr__(self, name, value)


class _Callback(_ILogger):
    """IInt8EntropyCalibrator2, IProgressMonitor, IProfiler: subclassed in Python."""


class _Builder(_Strict):
    def __init__(self, logger):
        self._logger = logger

    def create_network(self, flags=0):
        network = _new(self._trt, 'INetworkDefinition', flags)
        self._trt.made.networks.append(network)
        return network

    def create_builder_config(self):
        config = _new(self._trt, 'IBuilderConfig')
        self._trt.made.configs.append(config)
        return config

    def create_optimization_profile(self):
        return _new(self._trt, 'IOptimizationProfile')

    num_DLA_cores = property(lambda self: self._trt._dla_cores)
    platform_has_fast_fp16 = property(lambda self: True)
    platform_has_fast_int8 = property(lambda self: True)

    def build_serialized_network(self, network, config):
        flags = {flag.name for flag in config._flags}
        problem = self._problem(network, config, flags)
        if problem:
            self._logger.log(self._trt.ILogger.ERROR, problem)
            return None
        if hasattr(config, 'progress_monitor') and config._monitor is not None:
            config._monitor.phase_start('Building', None, 2)
            config._monitor.step_complete('Building', 0)
            config._monitor.phase_finish('Building')
        if config._calibrator is not None and 'INT8' in flags:
            batches = 0
            while config._calibrator.get_batch(['images']) is not None:
                batches += 1
            config._calibrator.write_calibration_cache(b'histograms')
            self._trt.made.calls.append(('calibrated', batches))
        return engine(network._model, config._profiles,
                      'PROFILE_SHARING_0806' in config._previews)

    def _problem(self, network, config, flags):
        if network._typed and flags & {'FP16', 'INT8', 'OBEY_PRECISION_CONSTRAINTS'}:
            return 'precision flags are not allowed in a strongly typed network'
        if network._quantized and not network._typed and 'INT8' not in flags:
            return 'explicit quantization needs the INT8 flag'
        if 'INT8' in flags and not network._quantized and config._calibrator is None:
            return 'INT8 without Q/DQ needs a calibrator'
        if config._device == 'DLA' and not flags & {'FP16', 'INT8'} and not network._typed:
            return 'DLA supports FP16 and INT8 only'
        if config._device == 'DLA' and 'GPU_FALLBACK' not in flags:
            return 'a layer cannot run on DLA and GPU_FALLBACK is not set'
        if self._trt._refuses_int8_input and network._model.graph.input[
                0].type.tensor_type.elem_type == onnx.TensorProto.INT8:
            return 'INT8 inputs are not supported'
        if config._workspace is None:
            return 'no workspace'
        if min(_shape(network._model.graph.input[0])) < 0 and not config._profiles:
            return 'a dynamic input needs an optimization profile'
        return None


class _Config(_Strict):
    _surface_device = None

    def __init__(self):
        for name, value in (
                ('_flags', []), ('_workspace', None), ('_calibrator', None), ('_device', 'GPU'),
                ('_monitor', None), ('_profiles', []), ('_cache', None), ('_level', None),
                ('_core', None), ('_verbosity', None), ('_sources', None),
                ('_calibration_profile', None), ('_previews', [])):
            object.__setattr__(self, name, value)

    def set_flag(self, flag):
        assert flag.kind == 'BuilderFlag'
        self._flags.append(flag)

    def set_memory_pool_limit(self, pool, size):
        assert pool.name == 'WORKSPACE'
        object.__setattr__(self, '_workspace', size)

    def add_optimization_profile(self, profile):
        self._profiles.append([[shape[0] for shape in shapes]
                               for shapes in profile._shapes.values()][0])

    def set_preview_feature(self, feature, on):
        assert feature.kind == 'PreviewFeature' and on is True
        self._previews.append(feature.name)

    def set_calibration_profile(self, profile):
        object.__setattr__(self, '_calibration_profile', profile)

    def set_tactic_sources(self, mask):
        object.__setattr__(self, '_sources', mask)

    def create_timing_cache(self, content):
        return None if content == b'foreign' else types.SimpleNamespace(
            serialize=lambda: b'timings')

    def set_timing_cache(self, cache, ignore_mismatch):
        object.__setattr__(self, '_cache', cache)
        return True

    def get_timing_cache(self):
        return self._cache


def _stored(field, convert=lambda value: value):
    return property(lambda self: getattr(self, field),
                    lambda self, value: object.__setattr__(self, field, convert(value)))


for _name, _field, _convert in (
        ('max_workspace_size', '_workspace', int), ('int8_calibrator', '_calibrator', None),
        ('progress_monitor', '_monitor', None), ('builder_optimization_level', '_level', int),
        ('DLA_core', '_core', int), ('profiling_verbosity', '_verbosity', None),
        ('default_device_type', '_device', lambda kind: kind.name)):
    setattr(_Config, _name, _stored(_field, _convert or (lambda value: value)))


class _Profile(_Strict):
    def __init__(self):
        object.__setattr__(self, '_shapes', {})

    def set_shape(self, name, least, best, most):
        assert tuple(least) <= tuple(best) <= tuple(most)
        self._shapes[name] = tuple(least), tuple(best), tuple(most)


class _Tensor(_Strict):
    """An input or output; a new shape of the input reaches the outputs."""

    def __init__(self, model, value):
        object.__setattr__(self, '_model', model)
        object.__setattr__(self, '_value', value)

    name = property(lambda self: self._value.name)

    @property
    def shape(self):
        return tuple(_shape(self._value))

    @shape.setter
    def shape(self, shape):
        assert self._value in self._model.graph.input
        assert all(old in (-1, new) for old, new in zip(self.shape, shape))
        dynamic = [value for value in (*self._model.graph.input, *self._model.graph.output)
                   if _shape(value)[0] < 0]
        for value in dynamic:
            value.type.tensor_type.shape.dim[0].dim_value = shape[0]


class _NetworkDefinition(_Strict):
    def __init__(self, flags):
        names = {flag.name for flag in self._trt.NetworkDefinitionCreationFlag._table.values()
                 if flags >> flag.value & 1}
        weak = self._trt._surface.has('BuilderFlag', 'FP16')
        object.__setattr__(self, '_flags', names)
        object.__setattr__(self, '_typed', 'STRONGLY_TYPED' in names or not weak)
        object.__setattr__(self, '_model', None)
        object.__setattr__(self, '_quantized', False)
        object.__setattr__(self, '_outputs', [])
        object.__setattr__(self, '_layers', [])

    def _read(self, model):
        object.__setattr__(self, '_model', model)
        kinds = {node.op_type for node in model.graph.node}
        object.__setattr__(self, '_quantized', 'QuantizeLinear' in kinds)
        conv = self._trt.LayerType.CONVOLUTION
        for node in model.graph.node:
            kind = conv if node.op_type == 'Conv' else None
            self._layers.append(_new(self._trt, 'ILayer', kind))

    num_inputs = property(lambda self: len(self._model.graph.input))

    def get_input(self, index):
        return _new(self._trt, 'ITensor', self._model, self._model.graph.input[index])

    def get_output(self, index):
        return _new(self._trt, 'ITensor', self._model, self._model.graph.output[index])

    num_layers = property(lambda self: len(self._layers))

    def get_layer(self, index):
        return self._layers[index]

    def mark_output(self, tensor):
        self._outputs.append(tensor.name)

    def unmark_output(self, tensor):
        assert min(tensor.shape) > 0


_LAYERS = {
    'add_shuffle': 'IShuffleLayer', 'add_slice': 'ISliceLayer', 'add_constant': 'IConstantLayer',
    'add_elementwise': 'IElementWiseLayer', 'add_select': 'ISelectLayer',
    'add_concatenation': 'IConcatenationLayer', 'add_cast': 'ICastLayer',
    'add_identity': 'IIdentityLayer', 'add_plugin_v2': 'IPluginV2Layer', 'add_nms': 'INMSLayer',
    'add_gather': 'IGatherLayer'}


def _adder(kind):
    def add(self, *args):
        return _new(self._trt, kind)
    return add


for _name, _kind in _LAYERS.items():
    setattr(_NetworkDefinition, _name, _adder(_kind))


class _Parser(_Strict):
    def __init__(self, network, logger):
        object.__setattr__(self, '_network', network)
        object.__setattr__(self, '_errors', [])

    num_errors = property(lambda self: len(self._errors))

    def parse_from_file(self, path):
        return self._parse(onnx.load(path))

    def parse(self, content):
        return self._parse(onnx.load_from_string(content))

    def _parse(self, model):
        network = self._network
        needs = self._trt._surface.has('NetworkDefinitionCreationFlag', 'EXPLICIT_BATCH') \
            and self._trt._surface.has('IBuilderConfig', 'max_workspace_size')
        if needs and 'EXPLICIT_BATCH' not in network._flags:
            self._errors.append(_new(self._trt, 'ParserError', 0, 'explicit batch is needed'))
            return False
        for index, node in enumerate(model.graph.node):
            if node.op_type == 'NonZero':
                self._errors.append(_new(self._trt, 'ParserError', index, 'not supported'))
        if self._errors:
            return False
        network._read(model)
        return True

    def get_error(self, index):
        return self._errors[index]


class _ParserError(_Strict):
    def __init__(self, node, text):
        object.__setattr__(self, '_node', node)
        object.__setattr__(self, '_text', text)

    def node(self):
        return self._node

    def desc(self):
        return self._text

    def node_operator(self):
        return 'NonZero'


class _Registry(_Strict):
    def get_creator(self, name, version, namespace):
        return types.SimpleNamespace(create_plugin=lambda name, fields: 'plugin')

    get_plugin_creator = get_creator


class _Plain(_Strict):
    """PluginField and PluginFieldCollection."""

    def __init__(self, *args):
        pass


class _Runtime(_Strict):
    def __init__(self, logger):
        object.__setattr__(self, '_logger', logger)

    def deserialize_cuda_engine(self, plan):
        try:
            model = onnx.load_from_string(plan)
            assert model.graph.node
        except Exception:
            self._logger.log(self._trt.ILogger.ERROR, 'Magic tag does not match')
            return None
        return _new(self._trt, 'ICudaEngine', model, self._logger)


def engine(model, profiles=(), sharing=False):
    """
    Return a serialized engine.

    :param profiles: [least, best, most] images of each optimization profile of a dynamic batch
    :param sharing: let contexts share a profile, where the version has this as a preview
    """
    model = onnx.load_from_string(model.SerializeToString())
    for key, value in (('profiles', [list(profile) for profile in profiles]),
                       ('sharing', sharing)):
        model.metadata_props.add(key=key, value=json.dumps(value))
    return model.SerializeToString()


class _Engine(_Strict):
    def __init__(self, model, logger):
        object.__setattr__(self, '_logger', logger)
        object.__setattr__(self, '_session', onnxruntime.InferenceSession(
            model.SerializeToString(), providers=['CPUExecutionProvider']))
        object.__setattr__(self, '_io', [
            (value, is_input) for values, is_input in (
                (model.graph.input, True), (model.graph.output, False)) for value in values])
        stored = {item.key: json.loads(item.value) for item in model.metadata_props
                  if item.key in ('profiles', 'sharing')}
        object.__setattr__(self, '_profiles', stored.get('profiles', []))
        # From TensorRT 10 on contexts share their profiles; 8.6 does so where it was asked to.
        object.__setattr__(self, '_sharing', self._trt._surface.version.startswith('1') or (
            self._trt._surface.has('PreviewFeature', 'PROFILE_SHARING_0806')
            and stored.get('sharing', False)))
        object.__setattr__(self, '_contexts', weakref.WeakSet())

    def _dtype(self, index):
        kind = self._io[index][0].type.tensor_type.elem_type
        types = self._trt.DataType
        return {1: types.FLOAT, 3: types.INT8, 10: types.HALF}[kind]

    def _index(self, name):
        return [value.name for value, _ in self._io].index(name)

    device_memory_size = property(lambda self: 1 << 20)
    device_memory_size_v2 = property(lambda self: 1 << 20)
    num_io_tensors = property(lambda self: len(self._io))
    num_bindings = property(lambda self: len(self._io) * self.num_optimization_profiles)
    num_optimization_profiles = property(lambda self: max(len(self._profiles), 1))

    def get_tensor_name(self, index):
        return self._io[index][0].name

    def get_tensor_mode(self, name):
        mode = self._trt.TensorIOMode
        return mode.INPUT if self._io[self._index(name)][1] else mode.OUTPUT

    def get_tensor_dtype(self, name):
        return self._dtype(self._index(name))

    def _shape_of(self, index):
        return tuple(_shape(self._io[index % len(self._io)][0]))

    def _profile_shape(self, index, profile):
        shape = self._shape_of(index)
        if shape[0] > 0:
            return [shape] * 3
        return [(batch, *shape[1:]) for batch in self._profiles[profile]]

    def get_tensor_shape(self, name):
        return self._shape_of(self._index(name))

    def get_tensor_profile_shape(self, name, profile):
        return self._profile_shape(self._index(name), profile)

    # Before 8.5 every profile has bindings of its own, one after the other.

    def get_binding_name(self, index):
        profile, index = divmod(index, len(self._io))
        return self._io[index][0].name + (f' [profile {profile}]' if profile else '')

    def get_profile_shape(self, profile, index):
        assert index // len(self._io) == profile
        return self._profile_shape(index, profile)

    def binding_is_input(self, index):
        return self._io[index % len(self._io)][1]

    def get_binding_dtype(self, index):
        return self._dtype(index % len(self._io))

    def get_binding_shape(self, index):
        return self._shape_of(index)

    def create_execution_context(self, strategy=None):
        assert strategy is None or strategy.kind == 'ExecutionContextAllocationStrategy'
        managed = strategy is not None and strategy.name == 'USER_MANAGED'
        return _new(self._trt, 'IExecutionContext', self, managed)

    def create_execution_context_without_device_memory(self):
        return _new(self._trt, 'IExecutionContext', self, True)

    def create_engine_inspector(self):
        return _new(self._trt, 'EngineInspector')


class _Inspector(_Strict):
    def get_engine_information(self, form):
        assert form.name == 'JSON'
        tensor = {'Name': 'a', 'Format/Datatype': 'Row major linear FP32'}
        return json.dumps({'Layers': [
            {'Name': 'first \x01 conv', 'LayerType': 'CaskConvolution', 'Inputs': [tensor],
             'Outputs': [tensor], 'TacticName': 'sm80_xmma'}]})


class _Context(_Strict):
    def __init__(self, engine, managed):
        for name, value in (('_engine', engine), ('_addresses', {}), ('_shapes', {}),
                            ('_profiler', None), ('_profile', -1), ('_scratch', not managed)):
            object.__setattr__(self, name, value)
        # Where 8.6 shares profiles a later context must still ask for one.
        if self._trt._surface.version.startswith('1') or not len(engine._contexts):
            self._take(0)
        engine._contexts.add(self)

    profiler = _stored('_profiler')
    device_memory = _stored('_scratch')

    def set_device_memory(self, pointer, size):
        assert size == self._engine.device_memory_size_v2
        object.__setattr__(self, '_scratch', pointer)
    active_optimization_profile = property(lambda self: self._profile)

    def _take(self, profile):
        engine = self._engine
        taken = {context._profile for context in engine._contexts if context is not self}
        if profile >= engine.num_optimization_profiles or (
                profile in taken and not engine._sharing):
            return False
        object.__setattr__(self, '_profile', profile)
        return True

    def _refuse(self, text):
        self._engine._logger.log(self._trt.ILogger.ERROR, text)
        return False

    def set_optimization_profile_async(self, profile, stream):
        assert stream is not None
        assert self._take(profile), f'profile {profile} is in use: TensorRT 8.6 crashes'
        return True

    def _set_shape(self, index, shape):
        if min(self._engine._shape_of(index)) < 0:
            if self._profile < 0:
                return self._refuse('no optimization profile is set')
            least, _, most = self._engine._profiles[self._profile]
            if not least <= shape[0] <= most:
                return self._refuse('the shape is outside of the profile')
        self._shapes[self._engine._io[index][0].name] = tuple(shape)
        return True

    def set_input_shape(self, name, shape):
        return self._set_shape(self._engine._index(name), shape)

    def set_tensor_address(self, name, pointer):
        self._addresses[name] = pointer
        return True

    def set_binding_shape(self, index, shape):
        profile, index = divmod(index, len(self._engine._io))
        assert profile == max(self._profile, 0)
        return self._set_shape(index, shape)

    def _shape_of(self, index):
        shape = self._engine._shape_of(index)
        batch = [given[0] for given in self._shapes.values()]
        return (batch[0], *shape[1:]) if shape[0] < 0 and batch else shape

    def get_tensor_shape(self, name):
        return self._shape_of(self._engine._index(name))

    def get_binding_shape(self, index):
        return self._shape_of(index)

    def execute_async_v3(self, stream):
        return self._run()

    def execute_async_v2(self, bindings, stream):
        assert len(bindings) == self._engine.num_bindings
        count, first = len(self._engine._io), max(self._profile, 0) * len(self._engine._io)
        for (value, _), pointer in zip(self._engine._io, bindings[first:first + count]):
            self._addresses[value.name] = pointer
        return self._run()

    def _run(self):
        if not self._scratch:
            return self._refuse('no device memory is set')
        self._trt.made.calls.append(('run',))
        feeds = {}
        for value, is_input in self._engine._io:
            if is_input:
                shape = self._shapes.get(value.name) or _shape(value)
                if min(shape) < 0:
                    return self._refuse('the shape of an input is not set')
                feeds[value.name] = _memory(self._addresses[value.name], shape, value)
        for (value, _), result in zip(
                [io for io in self._engine._io if not io[1]],
                self._engine._session.run(None, feeds)):
            _memory(self._addresses[value.name], result.shape, value)[...] = result
        return True


def _shape(value):
    return [dim.dim_value if dim.HasField('dim_value') else -1
            for dim in value.type.tensor_type.shape.dim]


def _memory(pointer, shape, value):
    """Return "device" memory, which is the host's here, as an array."""
    import ctypes
    dtype = np.dtype({1: np.float32, 3: np.int8, 10: np.float16}[
        value.type.tensor_type.elem_type])
    count = int(np.prod(shape))
    buffer = (ctypes.c_char * (count * dtype.itemsize)).from_address(pointer)
    return np.frombuffer(buffer, dtype, count).reshape(shape)


_CLASSES = {
    'ILogger': _ILogger, 'IInt8EntropyCalibrator2': _Callback,
    'IInt8MinMaxCalibrator': type('_MinMax', (_Callback,), {}), 'IProgressMonitor': _Callback,
    'IProfiler': _Callback, 'Builder': _Builder, 'OnnxParser': _Parser, 'Runtime': _Runtime,
    'PluginField': _Plain, 'PluginFieldCollection': _Plain}
_PRIVATE = {
    'IBuilderConfig': _Config, 'ITensor': _Tensor, 'INetworkDefinition': _NetworkDefinition,
    'IOptimizationProfile': _Profile, 'ParserError': _ParserError, 'ILayer': _Layer,
    'IPluginRegistry': _Registry, 'ICudaEngine': _Engine, 'IExecutionContext': _Context,
    'EngineInspector': _Inspector}


def make(version, dla_cores=0, refuses_int8_input=False):
    """Return the stand-in module of one version."""
    return _Module(version, dla_cores, refuses_int8_input)
