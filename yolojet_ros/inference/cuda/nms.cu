// Greedy non-maximum suppression of up to 4096 candidates, deterministic. Twin: core.nms.nms.

// The rank of a candidate is the number of better ones; keys differ, so ranks do too.
// blockIdx.y is the image. Clears its row of the matrix of overlaps, where there is to be one whose
// bits are set singly.
extern "C" __global__ void rank_candidates(
        const Tally *tallies, const uint64 *keys, const Candidate *candidates, int capacity,
        Candidate *sorted, unsigned *overlaps) {
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
    if (index >= count || rank >= MAX_CANDIDATES) return;
    sorted[(size_t)image * MAX_CANDIDATES + rank] = candidates[(size_t)image * capacity + index];
    if (!overlaps) return;
    int words = (min(count, MAX_CANDIDATES) + 31) / 32;
    overlaps += (size_t)image * MAX_CANDIDATES * (MAX_CANDIDATES / 32) + rank * words;
    for (int word = 0; word < words; ++word) overlaps[word] = 0;
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

// Which candidates strike out which: bit j of row i, for all j > i. A row has `words` words, those
// before i's own are not set. Any grid does; blockIdx.y is the image.
struct Matrix { int count, words; unsigned *bits; };

__device__ inline Matrix matrix_of(const Tally *tallies, int image, unsigned *overlaps) {
    Matrix matrix;
    matrix.count = min(tallies[image].candidates, MAX_CANDIDATES);
    matrix.words = (matrix.count + 31) / 32;
    matrix.bits = overlaps + (size_t)image * MAX_CANDIDATES * (MAX_CANDIDATES / 32);
    return matrix;
}

// A thread for a word. Neighbours have the same one of neighbouring rows, so they read the same
// others.
extern "C" __global__ void overlap_upright(
        const Tally *tallies, const Candidate *sorted, const Selection *const *selections,
        unsigned *overlaps) {
    int image = blockIdx.y;
    const Matrix matrix = matrix_of(tallies, image, overlaps);
    const Selection *selection = selections[image];
    sorted += (size_t)image * MAX_CANDIDATES;
    float threshold = selection->iou_threshold;
    int agnostic = selection->agnostic, tasks = matrix.count * matrix.words;
    for (int task = blockIdx.x * blockDim.x + threadIdx.x; task < tasks;
         task += gridDim.x * blockDim.x) {
        int i = task % matrix.count, word = task / matrix.count;
        if (word < i >> 5) continue;
        const Box box = sorted[i].box;
        int label = sorted[i].label, end = min(word * 32 + 32, matrix.count);
        unsigned struck = 0;
        for (int j = max(i + 1, word * 32); j < end; ++j)
            if ((agnostic || sorted[j].label == label) && iou(box, sorted[j].box) > threshold)
                struck |= 1u << (j & 31);
        matrix.bits[i * matrix.words + word] = struck;
    }
}

// A thread for a pair, whose overlap takes long to find. The words are zero before.
extern "C" __global__ void overlap_rotated(
        const Head *head, const Tally *tallies, const Candidate *sorted,
        const Selection *const *selections, unsigned *overlaps) {
    int image = blockIdx.y;
    const Matrix matrix = matrix_of(tallies, image, overlaps);
    const Selection *selection = selections[image];
    sorted += (size_t)image * MAX_CANDIDATES;
    float threshold = selection->iou_threshold;
    int agnostic = selection->agnostic, pairs = matrix.count * matrix.count;
    for (int pair = blockIdx.x * blockDim.x + threadIdx.x; pair < pairs;
         pair += gridDim.x * blockDim.x) {
        int i = pair / matrix.count, j = pair % matrix.count;
        if (j <= i) continue;
        const Candidate best = sorted[i], other = sorted[j];
        // Boxes whose upright ones do not meet do not either.
        if ((agnostic || other.label == best.label) && iou(best.box, other.box) > 0.0f
                && rotated_iou(read_rotated(*head, image, best.row),
                               read_rotated(*head, image, other.row)) > threshold)
            atomicOr(&matrix.bits[i * matrix.words + (j >> 5)], 1u << (j & 31));
    }
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

// One block for an image. The best candidate alive is kept and strikes out, in parallel, what it
// overlaps; it becomes a result if it is wanted. The rows of a final head are objects already:
// none strikes out another. Ends the frame: the tally starts from zero again.
extern "C" __global__ void suppress(
        unsigned *overlaps, Tally *tallies, const Candidate *sorted,
        const Selection *const *selections, const Geometry *geometries, int is_final,
        Result *results, Kept *kept_boxes) {
    __shared__ unsigned alive[MAX_CANDIDATES / 32], wanted[MAX_CANDIDATES / 32];
    __shared__ unsigned nearby[NEARBY_WORDS];
    __shared__ int found[MAX_BOXES];
    int image = blockIdx.x, thread = threadIdx.x;
    const Matrix matrix = matrix_of(tallies, image, overlaps);
    int total = tallies[image].candidates, count = matrix.count, words = matrix.words;
    sorted += (size_t)image * MAX_CANDIDATES;
    for (int word = thread; word < words; word += blockDim.x) {
        int left = count - word * 32;
        alive[word] = left >= 32 ? 0xffffffffu : (1u << left) - 1;
        wanted[word] = 0;
    }
    // Every kept candidate waits for its row: it comes from shared memory where all rows have room.
    bool fits = count * words <= NEARBY_WORDS;
    for (int i = thread; i < count * words && fits && !is_final; i += blockDim.x)
        nearby[i] = matrix.bits[i];
    const unsigned *rows = fits ? nearby : matrix.bits;
    __syncthreads();
    for (int i = thread; i < count; i += blockDim.x)
        if (sorted[i].wanted) atomicOr(&wanted[i >> 5], 1u << (i & 31));
    __syncthreads();
    int kept = 0, max_boxes = min(selections[image]->max_boxes, MAX_BOXES);
    int current = next_alive(alive, 0, count);
    while (current < count && kept < max_boxes) {
        if (wanted[current >> 5] >> (current & 31) & 1) {
            if (thread == 0) found[kept] = current;
            ++kept;
        }
        for (int word = (current >> 5) + thread; word < words && !is_final; word += blockDim.x)
            alive[word] &= ~rows[current * words + word];
        __syncthreads();
        // A slow thread may still look while others strike out: only bits after its find change.
        current = next_alive(alive, current + 1, count);
    }
    Result *result = results + image;
    Kept *keep = kept_boxes + image;
    for (int i = thread; i < kept; i += blockDim.x) {
        const Candidate best = sorted[found[i]];
        result->boxes[i] = to_image(geometries[image], best.box);
        result->scores[i] = best.score;
        result->labels[i] = best.label;
        keep->boxes[i] = best.box;
        keep->scores[i] = best.score;
        keep->labels[i] = best.label;
        keep->rows[i] = best.row;
    }
    if (thread == 0) {
        result->count = keep->count = kept;
        result->candidates = total;
        result->broken = tallies[image].broken;
        tallies[image].candidates = tallies[image].broken = 0;
    }
}
