// Types that the kernels share. Plain CUDA C++ for every architecture from Maxwell on;
// no header is needed, so NVRTC compiles it as it is. The host mirrors the structs as NumPy
// dtypes in kernels.py. Built with --fmad=false: the NumPy twins round after every operation.

typedef unsigned long long uint64;

#define MAX_CANDIDATES 4096
#define MAX_BOXES 300
#define MAX_ROI_POINTS 32
#define MAX_SIDE 16777216.0f
#define MAX_SCORE 1.01f
#define ANCHORS_PER_BLOCK 32
#define CLASS_GROUPS 8
#define RANK_THREADS 256

struct __align__(16) Box { float x1, y1, x2, y2; };

// The box is in network pixels; `wanted` says whether it passes the filters of size and region.
struct Candidate { Box box; float score; int label, wanted, unused; };

// How many candidates an image has so far, and how many rows no detection can be.
struct Tally { int candidates, broken; };

// How network pixels map back to the image (core.letterbox.Letterbox.inverse_clipped).
struct Geometry { float left, top, scale_x, scale_y, width, height; };

// core.filters.Selection; the thresholds, one float for each class, follow it in memory.
struct Selection {
    float iou_threshold, min_size;
    int agnostic, max_boxes, corners;
    float roi[2 * MAX_ROI_POINTS];
};

// What the host reads: `count` boxes in image pixels, best first.
struct Result {
    int count, candidates, broken, unused;
    Box boxes[MAX_BOXES];
    float scores[MAX_BOXES];
    int labels[MAX_BOXES];
};

#ifdef __CUDACC__
typedef unsigned short half_bits;

__device__ inline float to_float(half_bits bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

__device__ inline void store(half_bits *target, float value) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(*target) : "f"(value));
}
#endif

__device__ inline float to_float(float value) { return value; }

__device__ inline void store(float *target, float value) { *target = value; }
