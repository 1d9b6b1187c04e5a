"""
Run the CUDA kernels on the CPU: g++ compiles the .cu files with one thread in a block.

All of them are written so that any block size gives the same result, one included; so the
arithmetic is tested against the NumPy twins where there is no GPU.
"""

import ctypes
from pathlib import Path
import shutil
import subprocess

import numpy as np

from yolojet_ros.core.detections import Detections
from yolojet_ros.core.model_card import HeadLayout
from yolojet_ros.inference.cuda import kernels

COMPILER = shutil.which('g++')

_SHIM = r"""
#include <cmath>
#include <cstddef>
#include <cstring>
#include <algorithm>
struct Index { int x, y, z; };
static Index blockIdx, threadIdx = {0, 0, 0}, blockDim = {1, 1, 1};
#define __global__
#define __device__
#define __shared__ static
#define __align__(n) alignas(n)
static void __syncthreads() {}
static int __ffs(unsigned bits) { return __builtin_ffs((int)bits); }
static float __int_as_float(int bits) { float f; std::memcpy(&f, &bits, 4); return f; }
static int atomicAdd(int *p, int v) { int old = *p; *p += v; return old; }
static unsigned atomicAnd(unsigned *p, unsigned v) { unsigned old = *p; *p &= v; return old; }
using std::min;
#define EACH(i, n) for (blockIdx.i = 0; blockIdx.i < (n); ++blockIdx.i)
"""
_DRIVERS = r"""
extern "C" void host_letterbox(const Source *s, float *t, int w, int h, int images) {
    EACH(z, images) EACH(y, h) EACH(x, w) letterbox_f32(s, t, w, h);
}
extern "C" void host_decode(const float *out, const Geometry *g, const Selection *s, int classes,
        int rows, int row_stride, int anchor_stride, Tally *tallies, uint64 *keys, Candidate *c,
        int images) {
    EACH(y, images) EACH(x, rows)
        decode_f32(out, g, s, classes, rows, row_stride, anchor_stride, tallies, keys, c);
}
extern "C" void host_decode_final(const float *out, const Geometry *g, const Selection *s,
        int classes, int rows, Tally *tallies, uint64 *keys, Candidate *c, int images) {
    EACH(y, images) EACH(x, rows) decode_final_f32(out, g, s, classes, rows, tallies, keys, c);
}
extern "C" void host_rank(const Tally *tallies, const uint64 *keys, const Candidate *c, int rows,
        Candidate *sorted, int images) {
    EACH(y, images) EACH(x, rows) rank_candidates(tallies, keys, c, rows, sorted);
}
extern "C" void host_suppress(Tally *tallies, const Candidate *sorted, const Selection *s,
        const Geometry *g, int final, Result *r, int images) {
    EACH(x, images) suppress(tallies, sorted, s, g, final, r);
}
"""


def build(folder: Path) -> ctypes.CDLL:
    """Compile the kernels into a shared library in `folder`."""
    source, library = folder / 'kernels.cpp', folder / 'kernels.so'
    source.write_text(_SHIM + kernels.source() + _DRIVERS)
    subprocess.run(
        [COMPILER, '-O2', '-ffp-contract=off', '-shared', '-fPIC', '-w', str(source), '-o',
         str(library)], check=True)
    return ctypes.CDLL(str(library))


def letterbox(library, samplings, views) -> np.ndarray:
    """Run the letterbox kernel on images; return the tensor [n, 3, H, W]."""
    width, height = samplings[0].letterbox.network
    tensor = np.full((len(views), 3, height, width), np.nan, np.float32)
    sources = np.zeros(len(views), kernels.SOURCE)
    staged = []
    for index, (sampling, view) in enumerate(zip(samplings, views)):
        staged.append(np.empty(sampling.staged_shape, np.uint8))
        sampling.stage(view.data, staged[-1])
        sources[index] = sampling.describe(
            staged[-1].ctypes.data, sampling.columns.ctypes.data, sampling.rows.ctypes.data)
    library.host_letterbox(_address(sources), _address(tensor), width, height, len(views))
    return tensor


class Detector:
    """Decode and NMS kernels for one head, with their buffers."""

    def __init__(self, library, layout: HeadLayout, classes: int, rows: int, images: int) -> None:
        self._library = library
        self._layout = layout
        self._shape = (classes, rows, images)
        self.tallies = np.zeros(images, kernels.TALLY)
        self._keys = np.zeros((images, rows), np.uint64)
        self._candidates = _aligned(images * rows * kernels.CANDIDATE_BYTES)
        self._sorted = _aligned(images * 4096 * kernels.CANDIDATE_BYTES)
        self._results = _aligned(images * kernels.RESULT.itemsize).view(kernels.RESULT)

    def __call__(self, output: np.ndarray, samplings, selection):
        """Return the detections of each image of output [n, ...]."""
        classes, rows, images = self._shape
        struct = np.zeros(1, kernels.selection_dtype(classes))
        kernels.fill_selection(struct[0], selection)
        geometries = np.array([sampling.geometry() for sampling in samplings])
        strides = (rows, 1) if self._layout is HeadLayout.RAW else (1, 4 + classes)
        head = (_address(output), _address(geometries), _address(struct), classes, rows)
        lists = (_address(self.tallies), _address(self._keys), _address(self._candidates))
        if self._layout is HeadLayout.NMS:
            self._library.host_decode_final(*head, *lists, images)
        else:
            self._library.host_decode(*head, *strides, *lists, images)
        self._library.host_rank(*lists, rows, _address(self._sorted), images)
        self._library.host_suppress(
            lists[0], _address(self._sorted), _address(struct), _address(geometries),
            int(self._layout.final), _address(self._results), images)
        return [Detections(r['boxes'][:r['count']].copy(), r['scores'][:r['count']].copy(),
                           r['labels'][:r['count']].copy(), broken=int(r['broken']))
                for r in self._results]


def _aligned(nbytes: int) -> np.ndarray:
    """Return bytes at an address that a struct of 16-byte alignment may have."""
    memory = np.zeros(nbytes + 16, np.uint8)
    start = -memory.ctypes.data % 16
    return memory[start:start + nbytes]


def _address(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def argument(value):
    """Return a kernel argument: device addresses are wider than ctypes' default int."""
    return ctypes.c_void_p(value) if value > 0xffff_ffff else value
