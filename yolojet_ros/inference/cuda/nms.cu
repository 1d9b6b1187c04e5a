// Greedy non-maximum suppression of up to 4096 candidates, deterministic. Twin: core.nms.nms.

// The rank of a candidate is the number of better ones; keys differ, so ranks do too.
// blockIdx.y is the image.
extern "C" __global__ void rank_candidates(
        const Tally *tallies, const uint64 *keys, const Candidate *candidates, int capacity,
        Candidate *sorted) {
    __shared__ uint64 tile[RANK_THREADS];
    int image = blockIdx.y, count = tallies[image].candidates;
    int first = blockIdx.x * blockDim.x;
    if (first >= count) return;
    keys += (size_t)image * capacity;
    int index = first + threadIdx.x, rank = 0;
    uint64 own = index < count ? keys[index] : 0;
    for (int start = 0; start < count; start += blockDim.x) {
        int size = min((int)blockDim.x, count - start);
        if (threadIdx.x < size) tile[threadIdx.x] = keys[start + threadIdx.x];
        __syncthreads();
        for (int i = 0; i < size; ++i) rank += tile[i] > own;
        __syncthreads();
    }
    if (index < count && rank < MAX_CANDIDATES)
        sorted[(size_t)image * MAX_CANDIDATES + rank] =
            candidates[(size_t)image * capacity + index];
}

// The order of the operations is that of core.boxes.iou.
__device__ inline float iou(const Box &a, const Box &b) {
    float width = fminf(a.x2, b.x2) - fmaxf(a.x1, b.x1);
    float height = fminf(a.y2, b.y2) - fmaxf(a.y1, b.y1);
    float intersection = fmaxf(width, 0.0f) * fmaxf(height, 0.0f);
    float area_a = (a.x2 - a.x1) * (a.y2 - a.y1), area_b = (b.x2 - b.x1) * (b.y2 - b.y1);
    float joint = (area_a + area_b) - intersection;
    return joint > 0.0f ? intersection / joint : 0.0f;
}

// The part of a convex polygon where sign * coordinate <= limit; returns its corners.
// Twin: core.rotated._clip. A rectangle clipped by four lines has 8 corners at most; what rounding
// adds is dropped.
__device__ inline int clip_polygon(
        const float (*polygon)[2], int corners, int axis, float sign, float limit,
        float (*kept)[2]) {
    int count = 0;
    for (int i = 0; i < corners; ++i) {
        const float *point = polygon[i], *before = polygon[i ? i - 1 : corners - 1];
        float inside = limit - sign * point[axis], was = limit - sign * before[axis];
        if ((inside >= 0.0f) != (was >= 0.0f) && count < MAX_CORNERS) {
            float share = was / (was - inside);
            kept[count][0] = before[0] + (point[0] - before[0]) * share;
            kept[count][1] = before[1] + (point[1] - before[1]) * share;
            ++count;
        }
        if (inside >= 0.0f && count < MAX_CORNERS) {
            kept[count][0] = point[0];
            kept[count][1] = point[1];
            ++count;
        }
    }
    return count;
}

// Exact overlap of rotated boxes; twin: core.rotated.pair_iou.
__device__ inline float rotated_iou(const Rotated &a, const Rotated &b) {
    float first[MAX_CORNERS][2], second[MAX_CORNERS][2];
    Axes vectors = axes(a);
    float cosine = cosf(b.angle), sine = sinf(b.angle);
    for (int i = 0; i < 4; ++i) {
        float along = i == 1 || i == 2 ? 1.0f : -1.0f, across = i >= 2 ? 1.0f : -1.0f;
        float x = a.x + (along * vectors.along_x + across * vectors.across_x) - b.x;
        float y = a.y + (along * vectors.along_y + across * vectors.across_y) - b.y;
        first[i][0] = x * cosine + y * sine;
        first[i][1] = y * cosine - x * sine;
    }
    int corners = clip_polygon(first, 4, 0, 1.0f, b.width * 0.5f, second);
    corners = clip_polygon(second, corners, 0, -1.0f, b.width * 0.5f, first);
    corners = clip_polygon(first, corners, 1, 1.0f, b.height * 0.5f, second);
    corners = clip_polygon(second, corners, 1, -1.0f, b.height * 0.5f, first);
    float area = 0.0f;
    for (int i = 0; i < corners; ++i) {
        const float *point = first[i], *after = first[i + 1 < corners ? i + 1 : 0];
        area += point[0] * after[1] - after[0] * point[1];
    }
    float shared = fabsf(area) * 0.5f;
    float joint = (a.width * a.height + b.width * b.height) - shared;
    return joint > 0.0f ? shared / joint : 0.0f;
}

// Return the first living candidate from `start` on, or `count`.
__device__ inline int next_alive(const volatile unsigned *alive, int start, int count) {
    for (int word = start >> 5; word * 32 < count; ++word) {
        unsigned bits = alive[word];
        if (word == start >> 5) bits &= 0xffffffffu << (start & 31);
        if (bits) return word * 32 + __ffs(bits) - 1;
    }
    return count;
}

// Which candidates strike out which, for rotated boxes, whose overlap takes too long to look for
// it one kept box at a time: bit j of row i. blockIdx.y is the image; any grid does.
extern "C" __global__ void overlap_rotated(
        const Head *head, const Tally *tallies, const Candidate *sorted,
        const Selection *const *selections, unsigned *overlaps) {
    int image = blockIdx.y, count = min(tallies[image].candidates, MAX_CANDIDATES);
    const Selection *selection = selections[image];
    sorted += (size_t)image * MAX_CANDIDATES;
    overlaps += (size_t)image * MAX_CANDIDATES * (MAX_CANDIDATES / 32);
    float threshold = selection->iou_threshold;
    int agnostic = selection->agnostic, pairs = count * count;
    for (int pair = blockIdx.x * blockDim.x + threadIdx.x; pair < pairs;
         pair += gridDim.x * blockDim.x) {
        int i = pair / count, j = pair % count;
        if (j <= i) continue;
        const Candidate best = sorted[i], other = sorted[j];
        // Boxes whose upright ones do not meet do not either.
        if ((agnostic || other.label == best.label) && iou(best.box, other.box) > 0.0f
                && rotated_iou(read_rotated(*head, image, best.row),
                               read_rotated(*head, image, other.row)) > threshold)
            atomicOr(&overlaps[i * (MAX_CANDIDATES / 32) + (j >> 5)], 1u << (j & 31));
    }
}

// One block for an image. Every kept box strikes out all later ones that overlap it, in parallel;
// the next box still alive is kept next, and becomes a result if it is wanted. The rows of a
// final head are objects already: none strikes out another. Ends the frame: the tally
// starts from zero again.
template <bool ROTATED>
__device__ inline void suppress(
        unsigned *overlaps, Tally *tallies, const Candidate *sorted,
        const Selection *const *selections, const Geometry *geometries, int is_final,
        Result *results, Kept *kept_boxes) {
    __shared__ unsigned alive[MAX_CANDIDATES / 32];
    int image = blockIdx.x, thread = threadIdx.x;
    const Selection *selection = selections[image];
    int total = tallies[image].candidates, count = min(total, MAX_CANDIDATES);
    sorted += (size_t)image * MAX_CANDIDATES;
    Result *result = results + image;
    Kept *keep = kept_boxes + image;
    for (int word = thread; word * 32 < count; word += blockDim.x) {
        int left = count - word * 32;
        alive[word] = left >= 32 ? 0xffffffffu : (1u << left) - 1;
    }
    __syncthreads();
    float threshold = selection->iou_threshold;
    int agnostic = selection->agnostic, kept = 0;
    int max_boxes = min(selection->max_boxes, MAX_BOXES);
    int current = next_alive(alive, 0, count);
    while (current < count && kept < max_boxes) {
        const Candidate best = sorted[current];
        if (best.wanted) {
            if (thread == 0) {
                result->boxes[kept] = to_image(geometries[image], best.box);
                result->scores[kept] = best.score;
                result->labels[kept] = best.label;
                keep->boxes[kept] = best.box;
                keep->scores[kept] = best.score;
                keep->labels[kept] = best.label;
                keep->rows[kept] = best.row;
            }
            ++kept;
        }
        if (ROTATED && !is_final) {
            const unsigned *struck = overlaps
                + ((size_t)image * MAX_CANDIDATES + current) * (MAX_CANDIDATES / 32);
            for (int word = thread; word * 32 < count; word += blockDim.x)
                alive[word] &= ~struck[word];
        }
        for (int i = current + 1 + thread; i < count && !ROTATED && !is_final; i += blockDim.x) {
            if (!(alive[i >> 5] >> (i & 31) & 1)) continue;
            const Candidate other = sorted[i];
            if ((agnostic || other.label == best.label) && iou(best.box, other.box) > threshold)
                atomicAnd(&alive[i >> 5], ~(1u << (i & 31)));
        }
        __syncthreads();
        // A slow thread may still look while others strike out: only bits after its find change.
        current = next_alive(alive, current + 1, count);
    }
    if (ROTATED && !is_final) {  // the next frame's overlaps start from zero
        int words = (count + 31) / 32;
        for (int i = thread; i < count * words; i += blockDim.x)
            overlaps[((size_t)image * MAX_CANDIDATES + i / words) * (MAX_CANDIDATES / 32)
                     + i % words] = 0;
    }
    if (thread == 0) {
        result->count = keep->count = kept;
        result->candidates = total;
        result->broken = tallies[image].broken;
        tallies[image].candidates = tallies[image].broken = 0;
    }
}

#define SUPPRESS_KERNEL(NAME, ROTATED) \
    extern "C" __global__ void NAME( \
            unsigned *overlaps, Tally *tallies, const Candidate *sorted, \
            const Selection *const *selections, const Geometry *geometries, int is_final, \
            Result *results, Kept *kept) { \
        suppress<ROTATED>( \
            overlaps, tallies, sorted, selections, geometries, is_final, results, kept); \
    }

SUPPRESS_KERNEL(suppress_upright, false)
SUPPRESS_KERNEL(suppress_rotated, true)
