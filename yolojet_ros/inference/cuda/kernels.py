"""Our CUDA kernels: compiled once per architecture, cached, and described to NumPy."""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import partial
import hashlib
import os
from pathlib import Path
import shutil
import subprocess
import tempfile
from typing import Callable, Iterator, List, Optional, Tuple

import numpy as np

from yolojet_ros.core import private_cache
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.filters import MAX_BOXES, MAX_ROI_POINTS, Selection

FOLDER = Path(__file__).parent
SOURCES = ('common.cuh', 'letterbox.cu', 'decode.cu', 'nms.cu', 'tasks.cu')
# The NumPy twins round after every operation: no fused multiply-add.
NVCC_OPTIONS = ('--fmad=false', '-O3')
NVRTC_OPTIONS = ('--fmad=false',)

# Mirrors of the structs in the .cu files.
COLUMN = np.dtype([('first', 'i4'), ('second', 'i4'), ('weight0', 'i4'), ('weight1', 'i4')])
ROW = np.dtype([('first', 'i4'), ('second', 'i4'), ('chroma0', 'i4'), ('chroma1', 'i4'),
                ('weight0', 'i4'), ('weight1', 'i4')])
SOURCE = np.dtype([
    ('data', 'u8'), ('columns', 'u8'), ('rows', 'u8'), ('step', 'i4'), ('layout', 'i4'),
    ('pixel_bytes', 'i4'), ('offset', 'i4', 3), ('left', 'i4'), ('top', 'i4'),
    ('width', 'i4'), ('height', 'i4'), ('column_taps', 'i4'), ('row_taps', 'i4'),
    ('chroma_top', 'i4'), ('unused', 'i4')])
TAKES = np.dtype([
    ('factor', 'f4', 3), ('offset', 'f4', 3), ('channel', 'i4', 3), ('pad', 'i4'),
    ('step', 'f4')])
GEOMETRY = np.dtype([(name, 'f4') for name in (
    'left', 'top', 'scale_x', 'scale_y', 'width', 'height', 'forward_x', 'forward_y')])
VALUES = np.dtype([
    ('data', 'u8'), ('image', 'i4'), ('row', 'i4'), ('column', 'i4'), ('type', 'i4')])
VALUE_TYPES = {'float32': 0, 'float16': 1, 'int32': 2, 'int64': 3}
HEAD = np.dtype([
    *((name, VALUES) for name in (
        'box', 'score', 'label', 'objectness', 'count', 'extra', 'prototypes')),
    *((name, 'i4') for name in (
        'rows', 'classes', 'extras', 'corners', 'normalized', 'grid', 'logits', 'rotated',
        'mask_width', 'mask_height')),
    ('width', 'f4'), ('height', 'f4')])
CANDIDATE_BYTES = 32
TALLY = np.dtype([('candidates', 'i4'), ('broken', 'i4')])
RESULT = np.dtype([
    ('count', 'i4'), ('candidates', 'i4'), ('broken', 'i4'), ('unused', 'i4'),
    ('boxes', 'f4', (MAX_BOXES, 4)), ('scores', 'f4', MAX_BOXES), ('labels', 'i4', MAX_BOXES)])
KEPT = np.dtype([
    ('count', 'i4'), ('unused', 'i4', 3), ('boxes', 'f4', (MAX_BOXES, 4)),
    ('scores', 'f4', MAX_BOXES), ('labels', 'i4', MAX_BOXES), ('rows', 'i4', MAX_BOXES)])


def selection_dtype(classes: int) -> np.dtype:
    """Return the struct Selection with the thresholds of `classes` classes behind it."""
    return np.dtype([
        ('iou_threshold', 'f4'), ('min_size', 'f4'), ('agnostic', 'i4'), ('max_boxes', 'i4'),
        ('corners', 'i4'), ('roi', 'f4', (MAX_ROI_POINTS, 2)), ('thresholds', 'f4', (classes,)),
        ('published', 'f4', (classes,))])


def fill_selection(target: np.ndarray, selection: Selection) -> None:
    """Write `selection` into target, a 0-d array of `selection_dtype`."""
    target['iou_threshold'] = selection.iou_threshold
    target['min_size'] = selection.min_size
    target['agnostic'] = selection.agnostic
    target['max_boxes'] = selection.max_boxes
    target['corners'] = len(selection.roi)
    target['roi'][:len(selection.roi)] = selection.roi
    target['thresholds'] = selection.thresholds
    target['published'] = selection.published


def source() -> str:
    """Return the text of all kernels as one translation unit."""
    return '\n'.join((FOLDER / name).read_text(encoding='utf-8') for name in SOURCES)


def cache_name(capability: Tuple[int, int]) -> str:
    """Return the name under which the binary of these kernels for this architecture is kept."""
    text = source() + repr((NVCC_OPTIONS, NVRTC_OPTIONS))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f'yolojet_kernels_sm{capability[0]}{capability[1]}_{digest}.cubin'


def cubin(
    capability: Tuple[int, int], warn: Callable[[str], None] = lambda text: None,
) -> bytes:
    """
    Return the kernels as a binary for one architecture, compiled on the first call.

    It is kept in the user's own cache, never beside an engine: who gives away a folder with a
    model would decide what runs on the GPU.

    :param capability: compute capability, e.g. (5, 3) on Jetson Nano
    :param warn: told if the binary cannot be kept
    :raises UserError: if there is no compiler, or it refuses the source.
    """
    name = cache_name(capability)
    binary = private_cache.read(name)
    if binary is not None:
        return binary
    binary = compile_source(capability)
    try:
        private_cache.write(name, binary)
    except (OSError, UserError) as error:
        warn(f'the GPU kernels are compiled at every start, because they cannot be kept: {error}')
    return binary


def compile_source(capability: Tuple[int, int]) -> bytes:
    """
    Compile with nvcc, or with NVRTC where there is none or it refuses.

    :raises UserError: with the reason of each compiler that was found.
    """
    refusals: List[str] = []
    for compiler in _compilers():
        try:
            return compiler(capability)
        except UserError as error:
            refusals.append(str(error))
    architecture = f'sm_{capability[0]}{capability[1]}'
    if refusals:
        raise UserError(
            f'the GPU kernels cannot be compiled for {architecture}: {"; ".join(refusals)}; '
            'install a CUDA toolkit that knows this GPU and set CUDA_HOME')
    raise UserError(
        'the GPU kernels must be compiled once, but neither nvcc nor NVRTC was found; install '
        'the CUDA toolkit (on Jetson: sudo apt install cuda-nvcc-*), set CUDA_HOME, or copy the '
        f'file from a machine that has it: install -Dm600 {cache_name(capability)} -t '
        f'{private_cache.folder()}')


def _compilers() -> Iterator[Callable[[Tuple[int, int]], bytes]]:
    nvcc = find_nvcc()
    if nvcc is not None:
        yield partial(_nvcc, nvcc)
    for library in nvrtc_libraries():
        yield partial(_nvrtc, library)


def find_nvcc() -> Optional[str]:
    """Return the path of nvcc, from CUDA_HOME, PATH or the usual place."""
    for home in (os.environ.get('CUDA_HOME'), os.environ.get('CUDA_PATH')):
        if home and (Path(home) / 'bin' / 'nvcc').is_file():
            return str(Path(home) / 'bin' / 'nvcc')
    return shutil.which('nvcc') or shutil.which('nvcc', path='/usr/local/cuda/bin')


def _nvcc(nvcc: str, capability: Tuple[int, int]) -> bytes:
    with tempfile.TemporaryDirectory(prefix='yolojet-') as scratch:
        text, binary = Path(scratch) / 'kernels.cu', Path(scratch) / 'kernels.cubin'
        text.write_text(source(), encoding='utf-8')
        command: List[str] = [
            nvcc, '-cubin', f'-arch=sm_{capability[0]}{capability[1]}', *NVCC_OPTIONS,
            '-o', str(binary), str(text)]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        except OSError as error:
            raise UserError(f'{nvcc} cannot be started ({error.strerror})') from error
        if done.returncode:
            raise UserError(f'{nvcc}: {_last_words(done.stdout)}')
        return binary.read_bytes()


def nvrtc_libraries() -> Iterator[ctypes.CDLL]:
    """Yield every NVRTC that can be loaded, the system's own first."""
    names = [ctypes.util.find_library('nvrtc')]
    names += [f'libnvrtc.so{suffix}' for suffix in ('', '.13', '.12', '.11.2', '.10.2')]
    for name in dict.fromkeys(filter(None, names)):
        try:
            yield ctypes.CDLL(name)
        except OSError:
            continue


def _nvrtc(library: ctypes.CDLL, capability: Tuple[int, int]) -> bytes:
    program = ctypes.c_void_p()
    library.nvrtcCreateProgram(
        ctypes.byref(program), source().encode(), b'kernels.cu', 0, None, None)
    # Before CUDA 11.1 NVRTC gives PTX only; the driver finishes it when it is loaded.
    real = hasattr(library, 'nvrtcGetCUBIN')
    target = f'{"sm" if real else "compute"}_{capability[0]}{capability[1]}'
    options = [f'--gpu-architecture={target}', *NVRTC_OPTIONS]
    array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    status = library.nvrtcCompileProgram(program, len(options), array)
    what = 'ProgramLog' if status else ('CUBIN' if real else 'PTX')
    size = ctypes.c_size_t()
    getattr(library, f'nvrtcGet{what}Size')(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(library, f'nvrtcGet{what}')(program, buffer)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    if status:
        raise UserError(f'NVRTC: {_last_words(buffer.value)}')
    return buffer.raw


def _last_words(output: bytes) -> str:
    """Return the end of a compiler's output as one line."""
    return ' '.join(output.decode(errors='replace').split())[-600:]
