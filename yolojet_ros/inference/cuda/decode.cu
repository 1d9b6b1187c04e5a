// Network output to candidates in network pixels: threshold first, then decode only what is left.
// Twin: core.head.decode. blockIdx.y is the image. The candidates land in any order; their keys
// (score descending, then anchor point ascending) make the result of NMS independent of it.

// Even-odd rule, as core.boxes.inside_polygon; the corners are 0..1 of the image.
__device__ inline bool inside_region(
        const Selection *selection, const Geometry &geometry, float x, float y) {
    int corners = selection->corners;
    bool inside = false;
    for (int i = 0; i < corners; ++i) {
        int next = i + 1 < corners ? i + 1 : 0;
        float x1 = selection->roi[2 * i] * geometry.width;
        float y1 = selection->roi[2 * i + 1] * geometry.height;
        float x2 = selection->roi[2 * next] * geometry.width;
        float y2 = selection->roi[2 * next + 1] * geometry.height;
        if ((y1 > y) != (y2 > y) && x < x1 + (y - y1) * (x2 - x1) / (y2 - y1)) inside = !inside;
    }
    return inside;
}

// Comparisons are written so that NaN stays NaN and fails the tests that follow.
__device__ inline float map_back(float value, float offset, float scale, float limit) {
    float mapped = (value - offset) * scale;
    if (mapped < 0.0f) mapped = 0.0f;
    return mapped > limit ? limit : mapped;
}

__device__ inline Box to_image(const Geometry &geometry, const Box &box) {
    Box mapped = {map_back(box.x1, geometry.left, geometry.scale_x, geometry.width),
                  map_back(box.y1, geometry.top, geometry.scale_y, geometry.height),
                  map_back(box.x2, geometry.left, geometry.scale_x, geometry.width),
                  map_back(box.y2, geometry.top, geometry.scale_y, geometry.height)};
    return mapped;
}

// The filters of size and region; twin: core.filters.Selection.keep_geometry.
__device__ inline bool is_wanted(
        const Selection *selection, const Geometry &geometry, const Box &box) {
    float width = box.x2 - box.x1, height = box.y2 - box.y1;
    float least = selection->min_size;
    if (!(width > 0.0f && height > 0.0f && width >= least && height >= least)) return false;
    return !selection->corners || inside_region(
        selection, geometry, (box.x1 + box.x2) * 0.5f, (box.y1 + box.y2) * 0.5f);
}

__device__ inline uint64 sort_key(float score, int anchor) {
    union { float value; unsigned bits; } ordered;
    ordered.value = score + 0.0f;  // -0 becomes +0: they are equal
    unsigned high = ordered.bits & 0x80000000u ? ~ordered.bits : ordered.bits | 0x80000000u;
    return ((uint64)high << 32) | (0xffffffffu - (unsigned)anchor);
}

__device__ inline void add_candidate(
        const Geometry &geometry, const Selection *selection, const Box &box, float score,
        int label, int anchor, Tally *tally, uint64 *keys, Candidate *candidates) {
    float width = box.x2 - box.x1, height = box.y2 - box.y1;
    if (!(width > -MAX_SIDE && width < MAX_SIDE && height > -MAX_SIDE && height < MAX_SIDE)) {
        atomicAdd(&tally->broken, 1);
        return;
    }
    if (!(width > 0.0f && height > 0.0f)) return;
    int slot = atomicAdd(&tally->candidates, 1);
    keys[slot] = sort_key(score, anchor);
    candidates[slot].box = box;
    candidates[slot].score = score;
    candidates[slot].label = label;
    candidates[slot].wanted = is_wanted(selection, geometry, to_image(geometry, box));
}

#define INFINITE __int_as_float(0x7f800000)

// One column of threads for an anchor point: each looks for the best class of its share.
template <typename T>
__device__ inline void decode(
        const T *output, const Geometry *geometries, const Selection *selection, int classes,
        int anchors, int row_stride, int anchor_stride, Tally *tallies, uint64 *keys,
        Candidate *candidates) {
    __shared__ float best_score[CLASS_GROUPS][ANCHORS_PER_BLOCK];
    __shared__ int best_label[CLASS_GROUPS][ANCHORS_PER_BLOCK];
    int anchor = blockIdx.x * blockDim.x + threadIdx.x, image = blockIdx.y;
    const T *values = output + (size_t)image * (4 + classes) * anchors + anchor * anchor_stride;
    float best = -INFINITE;
    int label = -1;
    if (anchor < anchors) {
        for (int c = threadIdx.y; c < classes; c += blockDim.y) {
            float score = to_float(values[(4 + c) * row_stride]);
            if (score != score) {  // a NaN spoils the anchor point, as it does NumPy's maximum
                best = INFINITE;
                label = -1;
                break;
            }
            if (score > best) {
                best = score;
                label = c;
            }
        }
    }
    best_score[threadIdx.y][threadIdx.x] = best;
    best_label[threadIdx.y][threadIdx.x] = label;
    __syncthreads();
    if (threadIdx.y != 0 || anchor >= anchors) return;
    for (int group = 1; group < blockDim.y; ++group) {
        float score = best_score[group][threadIdx.x];
        int other = best_label[group][threadIdx.x];
        if (score > best || (score == best && other < label)) {
            best = score;
            label = other;
        }
    }
    if (!(best <= MAX_SCORE)) {
        atomicAdd(&tallies[image].broken, 1);
        return;
    }
    best = best > 1.0f ? 1.0f : best;
    const float *thresholds = (const float *)(selection + 1);
    if (label < 0 || !(best >= thresholds[label])) return;
    float half_width = to_float(values[2 * row_stride]) * 0.5f;
    float half_height = to_float(values[3 * row_stride]) * 0.5f;
    float x = to_float(values[0]), y = to_float(values[row_stride]);
    Box box = {x - half_width, y - half_height, x + half_width, y + half_height};
    size_t base = (size_t)image * anchors;
    add_candidate(geometries[image], selection, box, best, label, anchor, tallies + image,
                  keys + base, candidates + base);
}

// Output of a network that ends in NMS: rows of x1, y1, x2, y2, score, class.
template <typename T>
__device__ inline void decode_final(
        const T *output, const Geometry *geometries, const Selection *selection, int classes,
        int rows, Tally *tallies, uint64 *keys, Candidate *candidates) {
    int index = blockIdx.x * blockDim.x + threadIdx.x, image = blockIdx.y;
    if (index >= rows) return;
    size_t base = (size_t)image * rows;
    const T *row = output + (base + index) * 6;
    const float *thresholds = (const float *)(selection + 1);
    float score = to_float(row[4]), wanted = to_float(row[5]);
    bool known = wanted > -1.0f && wanted < (float)classes;
    // Rows that are not used have a score of 0 or less, and any class.
    if (!(score <= MAX_SCORE && (known || score <= 0.0f))) {
        atomicAdd(&tallies[image].broken, 1);
        return;
    }
    if (!known) return;
    score = score > 1.0f ? 1.0f : score;
    int label = (int)wanted;
    if (!(score >= thresholds[label])) return;
    Box box = {to_float(row[0]), to_float(row[1]), to_float(row[2]), to_float(row[3])};
    add_candidate(geometries[image], selection, box, score, label, index, tallies + image,
                  keys + base, candidates + base);
}

#define DECODE_KERNELS(SUFFIX, T) \
    extern "C" __global__ void decode_##SUFFIX( \
            const T *output, const Geometry *geometries, const Selection *selection, \
            int classes, int anchors, int row_stride, int anchor_stride, Tally *tallies, \
            uint64 *keys, Candidate *candidates) { \
        decode(output, geometries, selection, classes, anchors, row_stride, anchor_stride, \
               tallies, keys, candidates); \
    } \
    extern "C" __global__ void decode_final_##SUFFIX( \
            const T *output, const Geometry *geometries, const Selection *selection, \
            int classes, int rows, Tally *tallies, uint64 *keys, Candidate *candidates) { \
        decode_final(output, geometries, selection, classes, rows, tallies, keys, candidates); \
    }

DECODE_KERNELS(f32, float)
#ifdef __CUDACC__
DECODE_KERNELS(f16, half_bits)
#endif
