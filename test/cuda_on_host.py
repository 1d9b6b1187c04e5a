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

from yolojet_ros.engine import kernel_check
from yolojet_ros.inference.cuda import head_struct, kernels

COMPILER = shutil.which('g++')

_SHIM = r"""
#include <cmath>
#include <cstddef>
#include <cstring>
#include <algorithm>
struct Index { int x, y, z; };
static Index blockIdx, threadIdx = {0, 0, 0}, blockDim = {1, 1, 1}, gridDim = {1, 1, 1};
#define __global__
#define __device__
#define __shared__ static
#define __align__(n) alignas(n)
static void __syncthreads() {}
static int __ffs(unsigned bits) { return __builtin_ffs((int)bits); }
static float __int_as_float(int bits) { float f; std::memcpy(&f, &bits, 4); return f; }
static int atomicAdd(int *p, int v) { int old = *p; *p += v; return old; }
static unsigned atomicOr(unsigned *p, unsigned v) { unsigned old = *p; *p |= v; return old; }
static unsigned atomicAnd(unsigned *p, unsigned v) { unsigned old = *p; *p &= v; return old; }
using std::max;
using std::min;
#define EACH(i, n) for (blockIdx.i = 0; blockIdx.i < (n); ++blockIdx.i)
"""
# Halves as the compiler's own type; the kernels name functions for them that CUDA has in assembly.
_HALVES = r"""
inline float to_float(half_bits bits) { _Float16 v; std::memcpy(&v, &bits, 2); return (float)v; }
inline void store(half_bits *target, float value) {
    _Float16 v = (_Float16)value; std::memcpy(target, &v, 2);
}
"""
_DRIVERS = r"""
#define HOST_LETTERBOX(SUFFIX, T) \
    extern "C" void host_letterbox_##SUFFIX( \
            const Source *s, const Takes *k, T *t, int w, int h, int images) { \
        EACH(z, images) EACH(y, h) EACH(x, w) letterbox_##SUFFIX(s, k, t, w, h); \
    }
HOST_LETTERBOX(f32, float)
HOST_LETTERBOX(f16, half_bits)
HOST_LETTERBOX(u8, unsigned char)
HOST_LETTERBOX(i8, signed char)
#define HOST_DECODE(NAME) \
    extern "C" void host_##NAME(const Head *head, const Geometry *g, const Selection *const *s, \
            Tally *tallies, uint64 *keys, Candidate *c, int images) { \
        EACH(y, images) EACH(x, head->rows) NAME(head, g, s, tallies, keys, c); \
    }
HOST_DECODE(decode_classes)
HOST_DECODE(decode_labelled)
extern "C" void host_rank_candidates(const Tally *tallies, const uint64 *keys, const Candidate *c,
        int rows, Candidate *sorted, unsigned *overlaps, int images) {
    EACH(y, images) EACH(x, rows) rank_candidates(tallies, keys, c, rows, sorted, overlaps);
}
extern "C" void host_overlap_upright(const Tally *tallies, const Candidate *sorted,
        const Selection *const *s, unsigned *overlaps, int images) {
    blockIdx.x = 0;
    EACH(y, images) overlap_upright(tallies, sorted, s, overlaps);
}
extern "C" void host_overlap_rotated(const Head *head, const Tally *tallies,
        const Candidate *sorted, const Selection *const *s, unsigned *overlaps, int images) {
    blockIdx.x = 0;
    EACH(y, images) overlap_rotated(head, tallies, sorted, s, overlaps);
}
extern "C" void host_suppress(unsigned *overlaps, Tally *tallies, const Candidate *sorted,
        const Selection *const *s, const Geometry *g, int final, Result *r, Kept *k, int images) {
    EACH(x, images) suppress(overlaps, tallies, sorted, s, g, final, r, k);
}
extern "C" void host_gather(const Head *head, const Kept *k, float *gathered, int images) {
    EACH(y, images) EACH(x, MAX_BOXES) gather(head, k, gathered);
}
extern "C" void host_paint_masks(const Head *head, const Kept *k, const Geometry *g,
        const Selection *const *s, int classes, int image, unsigned short *labels, int images) {
    EACH(y, (int)g[image].height) EACH(x, (int)g[image].width)
        paint_masks(head, k, g, s, classes, image, labels);
}
"""
_FIRST_USE = '__device__ inline float to_float(float value)'


def build(folder: Path) -> ctypes.CDLL:
    """Compile the kernels into a shared library in `folder`."""
    source, library = folder / 'kernels.cpp', folder / 'kernels.so'
    text = kernels.source().replace(_FIRST_USE, _HALVES + _FIRST_USE)
    source.write_text(_SHIM + text + _DRIVERS)
    subprocess.run(
        [COMPILER, '-O2', '-ffp-contract=off', '-shared', '-fPIC', '-w', str(source), '-o',
         str(library)], check=True)
    return ctypes.CDLL(str(library))


def letterbox(library, samplings, views, takes=None, dtype=np.float32) -> np.ndarray:
    """Run the letterbox kernel on images; return the tensor [n, 3, H, W]."""
    width, height = samplings[0].letterbox.network
    tensor = np.full((len(views), 3, height, width), 77, dtype)
    sources = np.zeros(len(views), kernels.SOURCE)
    staged = []
    for index, (sampling, view) in enumerate(zip(samplings, views)):
        staged.append(np.empty(sampling.staged_shape, np.uint8))
        sampling.stage(view.data, staged[-1])
        sources[index] = sampling.describe(
            staged[-1].ctypes.data, sampling.columns.ctypes.data, sampling.rows.ctypes.data)
    takes_ = np.array([takes or head_struct.takes(_standard(samplings[0].letterbox.network))])
    kernel = {np.float32: library.host_letterbox_f32, np.int8: library.host_letterbox_i8}[dtype]
    kernel(
        _address(sources), _address(takes_), _address(tensor), width, height, len(views))
    return tensor


def _standard(size):
    return kernel_check.check_card('yolov8', 1, 1, size=size)


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
