// Image bytes to network input in one pass: decode the encoding, bilinear resize, pad, normalize,
// HWC to CHW. Twin: core.letterbox.Letterboxer, whose cv2.resize interpolates 8-bit
// images with 11-bit fixed-point weights; the same integers are used here. The weights come
// from the host as tables, so that rows which no output pixel touches need not be uploaded.
// Where an image is antialiased (core.antialias), tables have 22-bit weights of any number.

enum Layout { PACKED = 0, YUV422 = 1, NV12 = 2 };

struct Column { int first, second, weight0, weight1; };

// Staged rows of the two source rows of an output row, and of their chroma (NV12).
struct Row { int first, second, chroma0, chroma1, weight0, weight1; };

struct Source {
    const unsigned char *data;
    const Column *columns;
    const Row *rows;
    int step, layout, pixel_bytes;
    int offset[3];  // PACKED: of R, G, B in a pixel; YUV422: of Y, U, V in a pair of pixels
    int left, top, width, height;  // of the resized image within the network's input
    int column_taps, row_taps;  // of an antialiased image, else 0
    int chroma_top, unused;  // first row of the chroma of such an image (NV12)
};

// core.image_input.ImageInput: what becomes of a byte in each plane, and which of R, G, B it is.
// `step` is the value that becomes 1 in int8, and 1 elsewhere.
struct Takes { float factor[3], offset[3]; int channel[3], pad; float step; };

struct Rgb { int value[3]; };

__device__ inline int clamp_byte(int value) {
    return value < 0 ? 0 : (value > 255 ? 255 : value);
}

// ITU-R BT.601 limited range in 20-bit fixed point, as OpenCV converts.
__device__ inline Rgb from_yuv(int luma, int u, int v) {
    int y = (luma > 16 ? luma - 16 : 0) * 1220542 + (1 << 19);
    u -= 128;
    v -= 128;
    Rgb out;
    out.value[0] = clamp_byte((y + 1673527 * v) >> 20);
    out.value[1] = clamp_byte((y - 852492 * v - 409993 * u) >> 20);
    out.value[2] = clamp_byte((y + 2116026 * u) >> 20);
    return out;
}

__device__ inline Rgb read_pixel(const Source &source, int row, int chroma_row, int x) {
    const unsigned char *line = source.data + (size_t)row * source.step;
    if (source.layout == PACKED) {
        const unsigned char *pixel = line + x * source.pixel_bytes;
        Rgb out;
        for (int c = 0; c < 3; ++c) out.value[c] = pixel[source.offset[c]];
        return out;
    }
    if (source.layout == YUV422) {
        const unsigned char *pair = line + (x >> 1) * 4;
        return from_yuv(pair[source.offset[0] + (x & 1) * 2], pair[source.offset[1]],
                        pair[source.offset[2]]);
    }
    const unsigned char *chroma = source.data + (size_t)chroma_row * source.step + (x & ~1);
    return from_yuv(line[x], chroma[0], chroma[1]);
}

__device__ inline Rgb interpolated(const Source &source, int column_index, int row_index) {
    const Column column = source.columns[column_index];
    const Row row = source.rows[row_index];
    Rgb p00 = read_pixel(source, row.first, row.chroma0, column.first);
    Rgb p01 = read_pixel(source, row.first, row.chroma0, column.second);
    Rgb p10 = read_pixel(source, row.second, row.chroma1, column.first);
    Rgb p11 = read_pixel(source, row.second, row.chroma1, column.second);
    Rgb result;
    for (int c = 0; c < 3; ++c) {
        int upper = p00.value[c] * column.weight0 + p01.value[c] * column.weight1;
        int lower = p10.value[c] * column.weight0 + p11.value[c] * column.weight1;
        result.value[c] = (((row.weight0 * (upper >> 4)) >> 16)
                           + ((row.weight1 * (lower >> 4)) >> 16) + 2) >> 2;
    }
    return result;
}

// The weighted sum of all pixels below a triangle, of 8 bits between the axes and after them.
__device__ inline Rgb antialiased(const Source &source, int column_index, int row_index) {
    const int *columns = (const int *)source.columns + column_index;
    const int *rows = (const int *)source.rows + row_index;
    const int half = 1 << 21;
    Rgb sum = {{half, half, half}};
    for (int j = 0; j < source.row_taps; ++j) {
        int row_weight = rows[(j + 1) * source.height], y = rows[0] + j;
        if (!row_weight) continue;
        Rgb line = {{half, half, half}};
        for (int i = 0; i < source.column_taps; ++i) {
            int weight = columns[(i + 1) * source.width];
            if (!weight) continue;
            Rgb pixel = read_pixel(source, y, source.chroma_top + (y >> 1), columns[0] + i);
            for (int c = 0; c < 3; ++c) line.value[c] += weight * pixel.value[c];
        }
        for (int c = 0; c < 3; ++c) sum.value[c] += row_weight * (line.value[c] >> 22);
    }
    for (int c = 0; c < 3; ++c) sum.value[c] >>= 22;
    return sum;
}

template <typename T>
__device__ inline void letterbox(
        const Source *sources, const Takes *takes, T *tensor, int width, int height) {
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    const Source source = sources[blockIdx.z];
    int plane = width * height;
    T *out = tensor + (size_t)blockIdx.z * 3 * plane + y * width + x;
    int column_index = x - source.left, row_index = y - source.top;
    bool inside = column_index >= 0 && column_index < source.width
        && row_index >= 0 && row_index < source.height;
    Rgb result = {{takes->pad, takes->pad, takes->pad}};
    if (inside)
        result = source.column_taps ? antialiased(source, column_index, row_index)
                                    : interpolated(source, column_index, row_index);
    for (int c = 0; c < 3; ++c) {
        float value = (float)result.value[takes->channel[c]] * takes->factor[c];
        store(out + c * plane, (value + takes->offset[c]) / takes->step);
    }
}

#define LETTERBOX_KERNEL(SUFFIX, T) \
    extern "C" __global__ void letterbox_##SUFFIX( \
            const Source *sources, const Takes *takes, T *tensor, int width, int height) { \
        letterbox(sources, takes, tensor, width, height); \
    }

LETTERBOX_KERNEL(f32, float)
LETTERBOX_KERNEL(f16, half_bits)
LETTERBOX_KERNEL(u8, unsigned char)
LETTERBOX_KERNEL(i8, signed char)
