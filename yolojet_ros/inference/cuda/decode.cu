// Network output to candidates in network pixels: threshold first, then decode only what is left.
// Twin: core.decode.decode. blockIdx.y is the image. The candidates land in any order; their keys
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
    candidates[slot].row = anchor;
}

#define INFINITE __int_as_float(0x7f800000)

// How many rows of an image are used.
__device__ inline int used_rows(const Head &head, int image) {
    if (!head.count.data) return head.rows;
    int used = (int)read(head.count, image, 0, 0);
    return used < 0 ? 0 : min(used, head.rows);
}

// Column, row and stride of an anchor point; twin: core.decode.grid.
__device__ inline void anchor_point(const Head &head, int anchor, float *point) {
    for (int stride = 8; stride <= 32; stride *= 2) {
        int columns = (int)head.width / stride, count = columns * ((int)head.height / stride);
        if (anchor < count || stride == 32) {
            point[0] = (float)(anchor % columns);
            point[1] = (float)(anchor / columns);
            point[2] = (float)stride;
            return;
        }
        anchor -= count;
    }
}

// A rotated box: cx, cy, w, h in network pixels and angle in radians.
struct Rotated { float x, y, width, height, angle; };

__device__ inline Rotated read_rotated(const Head &head, int image, int row) {
    Rotated box = {read(head.box, image, row, 0), read(head.box, image, row, 1),
                   read(head.box, image, row, 2), read(head.box, image, row, 3),
                   read(head.extra, image, row, 0)};
    return box;
}

// Half of the width's and of the height's vector; twin: core.rotated.axes.
struct Axes { float along_x, along_y, across_x, across_y; };

__device__ inline Axes axes(const Rotated &box) {
    float cosine = cosf(box.angle), sine = sinf(box.angle);
    float half_width = box.width * 0.5f, half_height = box.height * 0.5f;
    Axes vectors = {cosine * half_width, sine * half_width,
                    -sine * half_height, cosine * half_height};
    return vectors;
}

// The upright box in network pixels; twin: core.decode._boxes.
__device__ inline Box read_box(const Head &head, int image, int row) {
    if (head.rotated) {
        Rotated turned = read_rotated(head, image, row);
        Axes vectors = axes(turned);
        float half_width = fabsf(vectors.along_x) + fabsf(vectors.across_x);
        float half_height = fabsf(vectors.along_y) + fabsf(vectors.across_y);
        if (turned.width <= 0.0f || turned.height <= 0.0f) {  // none, but NaN stays NaN
            half_width *= 0.0f;
            half_height *= 0.0f;
        }
        Box box = {turned.x - half_width, turned.y - half_height,
                   turned.x + half_width, turned.y + half_height};
        return box;
    }
    float v[4];
    for (int i = 0; i < 4; ++i) v[i] = read(head.box, image, row, i);
    if (head.grid) {
        float point[3];
        anchor_point(head, row, point);
        v[0] = (v[0] + point[0]) * point[2];
        v[1] = (v[1] + point[1]) * point[2];
        v[2] = expf(v[2]) * point[2];
        v[3] = expf(v[3]) * point[2];
    }
    if (head.normalized) {
        v[0] *= head.width, v[2] *= head.width;
        v[1] *= head.height, v[3] *= head.height;
    }
    if (head.corners) {
        Box box = {v[0], v[1], v[2], v[3]};
        return box;
    }
    float half_width = v[2] * 0.5f, half_height = v[3] * 0.5f;
    Box box = {v[0] - half_width, v[1] - half_height, v[0] + half_width, v[1] + half_height};
    return box;
}

struct Best { float score; int label; };

// The best class of every groups-th score of a row.
template <typename T>
__device__ inline Best best_class(const T *scores, int step, int classes, int first, int groups) {
    Best best = {-INFINITE, -1};
    for (int c = first; c < classes; c += groups) {
        float score = to_float(scores[(size_t)c * step]);
        if (score != score) {  // a NaN spoils the row, as it does NumPy's maximum
            best.score = INFINITE;
            best.label = -1;
            break;
        }
        if (score > best.score) {
            best.score = score;
            best.label = c;
        }
    }
    return best;
}

// One column of threads for a row of the head: each looks for the best class of its share.
extern "C" __global__ void decode_classes(
        const Head *heads, const Geometry *geometries, const Selection *const *selections,
        Tally *tallies, uint64 *keys, Candidate *candidates) {
    __shared__ float best_score[CLASS_GROUPS][ANCHORS_PER_BLOCK];
    __shared__ int best_label[CLASS_GROUPS][ANCHORS_PER_BLOCK];
    const Head &head = *heads;
    int row = blockIdx.x * blockDim.x + threadIdx.x, image = blockIdx.y;
    const Selection *selection = selections[image];
    bool used = row < used_rows(head, image);
    Best best = {-INFINITE, -1};
    if (used) {
        const Values &score = head.score;
        size_t start = (size_t)image * score.image + (size_t)row * score.row;
        best = score.type == FLOAT32
            ? best_class((const float *)score.data + start, score.column, head.classes,
                         threadIdx.y, blockDim.y)
            : best_class((const half_bits *)score.data + start, score.column, head.classes,
                         threadIdx.y, blockDim.y);
    }
    best_score[threadIdx.y][threadIdx.x] = best.score;
    best_label[threadIdx.y][threadIdx.x] = best.label;
    __syncthreads();
    if (threadIdx.y != 0 || !used) return;
    for (int group = 1; group < blockDim.y; ++group) {
        float score = best_score[group][threadIdx.x];
        int other = best_label[group][threadIdx.x];
        if (score > best.score || (score == best.score && other < best.label)) {
            best.score = score;
            best.label = other;
        }
    }
    // A spoiled row stays spoiled: its logit is no score of 1.
    float value = best.score;
    if (head.logits && best.label >= 0) value = 1.0f / (1.0f + expf(-value));
    if (head.objectness.data) value *= read(head.objectness, image, row, 0);
    if (!(value <= MAX_SCORE)) {
        atomicAdd(&tallies[image].broken, 1);
        return;
    }
    value = value > 1.0f ? 1.0f : value;
    const float *thresholds = (const float *)(selection + 1);
    if (best.label < 0 || !(value >= thresholds[best.label])) return;
    size_t base = (size_t)image * head.rows;
    add_candidate(geometries[image], selection, read_box(head, image, row), value, best.label,
                  row, tallies + image, keys + base, candidates + base);
}

// A head whose rows have one score and the class.
extern "C" __global__ void decode_labelled(
        const Head *heads, const Geometry *geometries, const Selection *const *selections,
        Tally *tallies, uint64 *keys, Candidate *candidates) {
    const Head &head = *heads;
    int row = blockIdx.x * blockDim.x + threadIdx.x, image = blockIdx.y;
    if (row >= used_rows(head, image)) return;
    const Selection *selection = selections[image];
    const float *thresholds = (const float *)(selection + 1);
    float score = read(head.score, image, row, 0), wanted = read(head.label, image, row, 0);
    // A score in its place is mostly no whole number.
    bool known = wanted >= 0.0f && wanted < (float)head.classes && wanted == floorf(wanted);
    // Rows that are not used have a score of 0 or less, and any class.
    if (!(score <= MAX_SCORE && (known || score <= 0.0f))) {
        atomicAdd(&tallies[image].broken, 1);
        return;
    }
    if (!known) return;
    score = score > 1.0f ? 1.0f : score;
    int label = (int)wanted;
    if (!(score >= thresholds[label])) return;
    size_t base = (size_t)image * head.rows;
    add_candidate(geometries[image], selection, read_box(head, image, row), score, label, row,
                  tallies + image, keys + base, candidates + base);
}
