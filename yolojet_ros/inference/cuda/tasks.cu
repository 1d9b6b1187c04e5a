// What a task knows of each detection beyond its box: gathered rows, and masks painted into one
// image. Twins: core.decode._keypoints and core.masks.PrototypeMasks.

// Copy the box (4 values as the head has them) and the extra columns of every kept row, so that
// the host gets them in one piece. blockIdx.x is the detection, blockIdx.y the image.
extern "C" __global__ void gather(const Head *heads, const Kept *kept, float *gathered) {
    const Head &head = *heads;
    int index = blockIdx.x, image = blockIdx.y, width = 4 + head.extras;
    if (index >= kept[image].count) return;
    int row = kept[image].rows[index];
    float *target = gathered + ((size_t)image * MAX_BOXES + index) * width;
    for (int i = threadIdx.x; i < width; i += blockDim.x)
        target[i] = i < 4 ? read(head.box, image, row, i) : read(head.extra, image, row, i - 4);
}

// Sampling of the prototypes at an image pixel along one axis; those in the padding are left out.
struct Tap { int first, second; float weight; };

__device__ inline Tap tap(
        int pixel, float source, float forward, float offset, float network, int size) {
    float cells = (float)size / network, limit = (float)(size - 1);
    float first_cell = fminf(fmaxf(offset * cells, 0.0f), limit);
    float last_cell = (offset + source * forward) * cells - 1.0f;
    last_cell = fminf(fmaxf(last_cell, first_cell), limit);
    float position = (((float)pixel + 0.5f) * forward + offset) * cells - 0.5f;
    position = fminf(fmaxf(position, first_cell), last_cell);
    Tap found;
    found.first = (int)floorf(position);
    found.second = min(found.first + 1, size - 1);
    found.weight = position - (float)found.first;
    return found;
}

// Coefficients times prototypes, interpolated to a pixel.
__device__ inline float mask_value(
        const Head &head, int image, int row, const Tap &x, const Tap &y) {
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int m = 0; m < head.extras; ++m) {
        float coefficient = read(head.extra, image, row, m);
        int plane = m * head.mask_height;
        sums[0] += coefficient * read(head.prototypes, image, plane + y.first, x.first);
        sums[1] += coefficient * read(head.prototypes, image, plane + y.first, x.second);
        sums[2] += coefficient * read(head.prototypes, image, plane + y.second, x.first);
        sums[3] += coefficient * read(head.prototypes, image, plane + y.second, x.second);
    }
    float left = sums[0] + (sums[2] - sums[0]) * y.weight;
    float right = sums[1] + (sums[3] - sums[1]) * y.weight;
    return left + (right - left) * x.weight;
}

// One thread for a pixel of one image: 1 + index of the best detection whose mask is there, 0 for
// none. Detections below the thresholds of what is published are left out.
extern "C" __global__ void paint_masks(
        const Head *heads, const Kept *all_kept, const Geometry *geometries,
        const Selection *const *selections, int classes, int image, unsigned short *labels) {
    __shared__ int here[MAX_BOXES];
    __shared__ int listed;
    const Head &head = *heads;
    const Kept &kept = all_kept[image];
    const Geometry &geometry = geometries[image];
    const float *thresholds = (const float *)(selections[image] + 1) + classes;
    int width = (int)geometry.width, height = (int)geometry.height;
    int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
    int left = blockIdx.x * blockDim.x, top = blockIdx.y * blockDim.y;
    // Boxes that touch this block's pixels; marked first, so that their order stays.
    for (int i = thread; i < kept.count; i += threads) {
        Box box = to_image(geometry, kept.boxes[i]);
        here[i] = box.x1 <= (float)(left + blockDim.x) && box.x2 > (float)left
            && box.y1 <= (float)(top + blockDim.y) && box.y2 > (float)top
            && kept.scores[i] >= thresholds[kept.labels[i]];
    }
    __syncthreads();
    if (thread == 0) {
        int count = 0;
        for (int i = 0; i < kept.count; ++i)
            if (here[i]) here[count++] = i;
        listed = count;
    }
    __syncthreads();
    int x = left + threadIdx.x, y = top + threadIdx.y;
    if (x >= width || y >= height) return;
    int label = 0;
    if (listed) {
        Tap across = tap(
            x, geometry.width, geometry.forward_x, geometry.left, head.width, head.mask_width);
        Tap down = tap(
            y, geometry.height, geometry.forward_y, geometry.top, head.height, head.mask_height);
        for (int i = 0; i < listed && !label; ++i) {
            int index = here[i];
            Box box = to_image(geometry, kept.boxes[index]);
            if ((float)x < box.x1 || (float)x >= box.x2 || (float)y < box.y1 || (float)y >= box.y2)
                continue;
            if (mask_value(head, image, kept.rows[index], across, down) > 0.0f) label = 1 + index;
        }
    }
    labels[(size_t)y * width + x] = (unsigned short)label;
}
