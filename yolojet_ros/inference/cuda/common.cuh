// Types that the kernels share. Plain CUDA C++ for every architecture from Maxwell on;
// no header is needed, so NVRTC compiles it as it is. The host mirrors the structs as NumPy
// dtypes in kernels.py. Built with --fmad=false: the NumPy twins round after every operation.

typedef unsigned long long uint64;

#define MAX_CANDIDATES 4096
#define MAX_BOXES 300
#define MAX_ROI_POINTS 32
#define MAX_CORNERS 8
#define MAX_SIDE 16777216.0f
#define MAX_SCORE 1.01f
#define ANCHORS_PER_BLOCK 32
#define CLASS_GROUPS 8
#define RANK_THREADS 256
#define NEARBY_WORDS 8192

struct __align__(16) Box { float x1, y1, x2, y2; };

// The box is in network pixels; `wanted` says whether it passes the filters of size and region;
// `row` is where it lies in the head.
struct Candidate { Box box; float score; int label, wanted, row; };

// How many candidates an image has so far, and how many rows no detection can be.
struct Tally { int candidates, broken; };

// How network pixels map back to the image (core.letterbox.Letterbox.inverse_clipped), and
// image pixels forward.
struct Geometry { float left, top, scale_x, scale_y, width, height, forward_x, forward_y; };

// Where values of a head lie: distances of two images, rows and columns in values. Without data
// the head has no such values.
enum Type { FLOAT32 = 0, FLOAT16 = 1, INT32 = 2, INT64 = 3 };
struct Values { const void *data; int image, row, column, type; };

// core.head.Reading on the device. `count` says how many rows are used; `extra` begins the columns
// of the task; width, height: of the network's input.
struct Head {
    Values box, score, label, objectness, count, extra, prototypes;
    int rows, classes, extras, corners, normalized, grid, logits, rotated;
    int mask_width, mask_height;
    float width, height;
};

// core.filters.Selection; the thresholds, one float for each class, follow it in memory, and
// behind them those that a detection must reach to be painted. Each image has its own, found by
// a table of addresses.
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

// What stays of an image: boxes in network pixels, best first, and their rows in the head.
struct Kept {
    int count, unused[3];
    Box boxes[MAX_BOXES];
    float scores[MAX_BOXES];
    int labels[MAX_BOXES], rows[MAX_BOXES];
};

typedef unsigned short half_bits;

#ifdef __CUDACC__

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

__device__ inline void store(unsigned char *target, float value) {
    *target = (unsigned char)value;
}

// As QuantizeLinear of ONNX: a tie goes to the even number.
__device__ inline void store(signed char *target, float value) {
    *target = (signed char)fminf(fmaxf(rintf(value), -128.0f), 127.0f);
}

__device__ inline float read(const Values &values, int image, int row, int column) {
    size_t index = (size_t)image * values.image + (size_t)row * values.row
        + (size_t)column * values.column;
    if (values.type == FLOAT32) return ((const float *)values.data)[index];
    if (values.type == FLOAT16) return to_float(((const half_bits *)values.data)[index]);
    if (values.type == INT32) return (float)((const int *)values.data)[index];
    return (float)((const long long *)values.data)[index];
}
