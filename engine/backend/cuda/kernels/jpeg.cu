/*
 * The JPEG size estimate (formulas: ops/jpeg_size.c), every 8x8 block by itself: 64 threads, one a coefficient. The
 * CPU walks a picture's blocks in the order of the file, for the differences of DC; here a block asks which real block
 * stands before it (and, backward, after it). A picture of 3 hw numbers moves about 4 times: planes, coefficients,
 * their prices or gradients, and back.
 *
 * Colours and DCT are taken in double and rounded as the CPU rounds them: a coefficient may be 500 steps large, and the
 * staircase has a period of one.
 */
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/long_sum.cuh"

namespace
{
enum { COEFFICIENTS = 64, BLOCKS = 4, JPEG_THREADS = BLOCKS * COEFFICIENTS }; /* 8x8 blocks a thread block works on */

/* Where things are in a picture's planes: luma [height, width], then both chroma halves, padded to 16x16 units. */
struct geometry {
    int h, w, height, width;

    geometry(int64_t rows, int64_t columns)
        : h(int(rows)), w(int(columns)), height((h + 15) / 16 * 16), width((w + 15) / 16 * 16)
    {
    }
    __host__ __device__ int64_t plane_numbers() const
    {
        return int64_t(height) * width * 3 / 2;
    }
    __host__ __device__ int blocks() const
    {
        return int(plane_numbers() / COEFFICIENTS);
    }
};

/* Block `number` of a picture, numbered component after component in the order of the file. */
struct place {
    int first, count; /* the component's blocks */
    int chroma;       /* 0 or 1 */
    int64_t offset;   /* of its first pixel among the planes */
    int stride;       /* from row to row */
    bool real;        /* luma blocks wholly in the padding are the encoder's dummies */

    __device__ place(const geometry &g, int number)
    {
        const int luma = g.height / 8 * (g.width / 8), half = luma / 4;
        if (number < luma) { /* units of 2 x 2 blocks */
            const int unit = number / 4, across = g.width / 16;
            const int row = unit / across * 2 + number % 4 / 2, column = unit % across * 2 + number % 2;
            first = 0;
            count = luma;
            chroma = 0;
            stride = g.width;
            offset = int64_t(row) * 8 * stride + column * 8;
            real = row < (g.h + 7) / 8 && column < (g.w + 7) / 8;
        } else {
            const int which = (number - luma) / half, inside = (number - luma) % half, across = g.width / 16;
            first = luma + which * half;
            count = half;
            chroma = 1;
            stride = g.width / 2;
            offset = int64_t(first) * COEFFICIENTS + int64_t(inside / across) * 8 * stride + inside % across * 8;
            real = true;
        }
    }
};

/* The nearest real block of the same component in a direction, or -1. Dummies stand in units with real ones. */
__device__ int neighbour(const geometry &g, int number, int direction)
{
    const place here(g, number);
    for (int i = number + direction; i >= here.first && i < here.first + here.count; i += direction)
        if (place(g, i).real)
            return i;
    return -1;
}

/* --- Pictures to planes and back
 * ------------------------------------------------------------------------------------------ */

/* A chroma sample and the four pixels under it. */
template <class T> struct to_planes {
    struct draft_jpeg_model m;
    geometry g;
    const T *x;
    float *planes;

    __device__ void operator()(int64_t i) const
    {
        const int half_w = g.width / 2, half_h = g.height / 2;
        const int column = int(i % half_w), row = int(i / half_w % half_h);
        const int64_t n = i / half_w / half_h;
        float *luma = planes + n * g.plane_numbers(), sum[2] = {0, 0};
        for (int k = 0; k < 4; k++) {
            const int y = row * 2 + k / 2, z = column * 2 + k % 2;
            const T *p = x + ((n * g.h + (y < g.h ? y : g.h - 1)) * g.w + (z < g.w ? z : g.w - 1)) * 3;
            double value[3];
            for (int c = 0; c < 3; c++)
                value[c] = 255 * (m.colour[c * 3] * double(widen(p[0])) + m.colour[c * 3 + 1] * double(widen(p[1])) +
                                  m.colour[c * 3 + 2] * double(widen(p[2])));
            luma[int64_t(y) * g.width + z] = float(value[0] - 128);
            sum[0] += float(value[1] / 4);
            sum[1] += float(value[2] / 4);
        }
        float *chroma = luma + int64_t(g.height) * g.width + int64_t(row) * half_w + column;
        chroma[0] = sum[0];
        chroma[int64_t(half_h) * half_w] = sum[1];
    }
};

/* A pixel, and if it is at the edge, all of the padding that repeats it. */
template <class T> struct from_planes {
    struct draft_jpeg_model m;
    geometry g;
    const float *planes, *dsize;
    T *dx;
    bool accumulate;

    __device__ void operator()(int64_t i) const
    {
        const int z = int(i % g.w), y = int(i / g.w % g.h);
        const int64_t n = i / g.w / g.h, pixels = int64_t(g.height) * g.width;
        const int end_y = y + 1 < g.h ? y + 1 : g.height, end_z = z + 1 < g.w ? z + 1 : g.width;
        const float *luma = planes + n * g.plane_numbers(), scale = 255.0f * dsize[n] / 8000.0f; /* bits of a kB */
        float sum[3] = {0, 0, 0};
        for (int row = y; row < end_y; row++)
            for (int column = z; column < end_z; column++) {
                const float *chroma = luma + pixels + int64_t(row / 2) * (g.width / 2) + column / 2;
                sum[0] += luma[int64_t(row) * g.width + column];
                sum[1] += chroma[0] * 0.25f;
                sum[2] += chroma[pixels / 4] * 0.25f;
            }
        for (int c = 0; c < 3; c++) {
            float v[1] = {scale * (float(m.colour[c]) * sum[0] + float(m.colour[3 + c]) * sum[1] +
                                   float(m.colour[6 + c]) * sum[2])};
            put<1>(dx + i * 3 + c, accumulate, v);
        }
    }
};

/* --- Blocks
 * ----------------------------------------------------------------------------------------------------------------- */

struct job {
    struct draft_jpeg_model m;
    geometry g;
    int64_t n;
    float *planes, *coefficients; /* [n, plane_numbers]; coefficients block by block, in zigzag order */
    double *bits;                 /* [n, blocks] */
};

/* Shared memory of a thread block. */
struct workshop {
    double cosine[COEFFICIENTS];
    double a[BLOCKS][COEFFICIENTS], b[BLOCKS][COEFFICIENTS];
    float zero[BLOCKS][COEFFICIENTS], d_rest[BLOCKS][COEFFICIENTS], rest[BLOCKS][COEFFICIENTS + 1];
};

/* Thread t of 64 holds element t. out = C in C^T, or C^T in C for the transpose. Every thread of the thread block takes
 * part. */
__device__ double transformed(const workshop *s, double (&in)[COEFFICIENTS], double (&middle)[COEFFICIENTS], int t,
                              bool transpose)
{
    const int i = t / 8, j = t % 8;
    double sum = 0, out = 0;
    __syncthreads();
    for (int l = 0; l < 8; l++)
        sum += s->cosine[transpose ? l * 8 + i : i * 8 + l] * in[l * 8 + j];
    middle[t] = sum;
    __syncthreads();
    for (int l = 0; l < 8; l++)
        out += middle[i * 8 + l] * s->cosine[transpose ? l * 8 + j : j * 8 + l];
    return out;
}

__global__ void __launch_bounds__(JPEG_THREADS) to_coefficients(const __grid_constant__ job k)
{
    workshop *s = dynamic_shared<workshop>();
    const int mine = threadIdx.x / COEFFICIENTS, t = threadIdx.x % COEFFICIENTS;
    const int64_t number = int64_t(blockIdx.x) * BLOCKS + mine, blocks = k.g.blocks();
    const bool there = number < k.n * blocks;
    const int64_t n = there ? number / blocks : 0;
    const place at(k.g, there ? int(number % blocks) : 0);
    if (mine == 0)
        s->cosine[t] = k.m.cosine[t];
    s->a[mine][t] = double(k.planes[n * k.g.plane_numbers() + at.offset + int64_t(t / 8) * at.stride + t % 8]);
    const double frequency = transformed(s, s->a[mine], s->b[mine], t, false);
    s->a[mine][t] = frequency;
    __syncthreads();
    if (there) /* a dummy has no coefficients */
        k.coefficients[number * COEFFICIENTS + t] =
            at.real ? float(s->a[mine][k.m.zigzag[t]] / double(k.m.step[at.chroma][t])) : 0.0f;
}

/* s(q), the staircase with rounded edges. */
struct rounded {
    float s, slope;

    __device__ rounded(const struct draft_jpeg_model &m, float q)
    {
        const float turn = 6.28318530717958648f, part = turn * (q - rintf(q));
        s = q - m.steepness * sinf(part) / turn;
        slope = 1.0f - m.steepness * cosf(part);
    }
};

/* a n(s) + b log2(1 + s^2) and its slope */
struct priced {
    float bits, slope;

    __device__ priced(const struct draft_jpeg_model &m, float s, float a, float b)
    {
        const float square = s * s, sum = square + m.half_nonzero;
        bits = a * square / sum + b * log2f(1.0f + square);
        slope = a * 2.0f * s * m.half_nonzero / (sum * sum) + b * 2.0f * s / ((1.0f + square) * 0.693147180559945309f);
    }
};

__device__ float rounded_dc(const job &k, int64_t first, int block)
{
    return block < 0 ? 0.0f : rounded(k.m, k.coefficients[(first + block) * COEFFICIENTS]).s;
}

/* Forward: the bits of each block. Backward: their gradient, back through quantisation and DCT, into the planes. */
template <bool BACKWARD> __global__ void __launch_bounds__(JPEG_THREADS) price_blocks(const __grid_constant__ job k)
{
    workshop *s = dynamic_shared<workshop>();
    const int mine = threadIdx.x / COEFFICIENTS, t = threadIdx.x % COEFFICIENTS;
    const int64_t number = int64_t(blockIdx.x) * BLOCKS + mine, blocks = k.g.blocks();
    const bool there = number < k.n * blocks;
    const int64_t first = there ? number - number % blocks : 0; /* of the picture */
    const int block = there ? int(number - first) : 0;
    const place at(k.g, block);
    const int kind = at.chroma;
    const rounded r(k.m, k.coefficients[(first + block) * COEFFICIENTS + t]);
    const float sum = r.s * r.s + k.m.half_nonzero, zero = k.m.half_nonzero / sum;
    float(&zeros)[COEFFICIENTS] = s->zero[mine], (&d_rest)[COEFFICIENTS] = s->d_rest[mine];
    float(&rest)[COEFFICIENTS + 1] = s->rest[mine];
    if (BACKWARD && mine == 0)
        s->cosine[t] = k.m.cosine[t];
    zeros[t] = zero;
    __syncthreads();
    if (t == 0) {
        rest[COEFFICIENTS] = 1; /* rest[i]: product of zero[j], j >= i: how surely nothing follows */
        for (int i = COEFFICIENTS - 1; i > 0; i--)
            rest[i] = zeros[i] * rest[i + 1];
        if (BACKWARD) { /* d_rest[i]: of the run term, with respect to rest[i] */
            d_rest[0] = 0;
            for (int i = 1; i < COEFFICIENTS; i++)
                d_rest[i] = zeros[i] * (d_rest[i - 1] - 1.0f);
        }
    }
    __syncthreads();
    float bits, gradient;
    if (t == 0) { /* DC: the difference to the block before, and that of the block after to this one */
        const priced own(k.m, r.s - rounded_dc(k, first, neighbour(k.g, block, -1)), k.m.dc_nonzero, k.m.dc_magnitude);
        bits = k.m.end[kind] + (at.real ? own.bits : 0.0f);
        gradient = own.slope * r.slope;
        const int after = BACKWARD ? neighbour(k.g, block, 1) : -1;
        if (after >= 0)
            gradient -=
                priced(k.m, rounded_dc(k, first, after) - r.s, k.m.dc_nonzero, k.m.dc_magnitude).slope * r.slope;
    } else {
        const priced own(k.m, r.s, k.m.nonzero[kind], k.m.magnitude[kind]);
        bits = at.real ? own.bits + k.m.run[kind] * zero * (1.0f - rest[t + 1]) : 0.0f;
        const float d_zero = 1.0f - rest[t + 1] + (BACKWARD ? d_rest[t - 1] * rest[t + 1] : 0.0f);
        gradient = r.slope * (own.slope - k.m.run[kind] * d_zero * 2.0f * r.s * k.m.half_nonzero / (sum * sum));
    }
    if (BACKWARD) {
        s->a[mine][k.m.zigzag[t]] = at.real ? double(gradient / k.m.step[kind][t]) : 0.0;
        const float pixel = float(transformed(s, s->a[mine], s->b[mine], t, true));
        if (there)
            k.planes[first / blocks * k.g.plane_numbers() + at.offset + int64_t(t / 8) * at.stride + t % 8] = pixel;
        return;
    }
    s->a[mine][t] = double(bits);
    for (int half = COEFFICIENTS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half)
            s->a[mine][t] += s->a[mine][t + half];
    }
    if (t == 0 && there)
        k.bits[number] = s->a[mine][0];
}

__global__ void __launch_bounds__(LONG_BLOCK) total_bits(const __grid_constant__ job k, float *size)
{
    const int64_t n = blockIdx.x, blocks = k.g.blocks();
    double sum = 0;
    for (int64_t i = threadIdx.x; i < blocks; i += LONG_BLOCK)
        sum += k.bits[n * blocks + i];
    sum = long_block_sum(sum);
    if (threadIdx.x == 0)
        size[n] = float((sum + 8.0 * double(k.m.header_bytes)) / 8000.0);
}

/* --- Host side
 * ---------------------------------------------------------------------------------------------------------------- */

job prepared(const struct draft_cuda_pictures *p, const struct draft_jpeg_model *model, void *scratch)
{
    const geometry g(p->h, p->w);
    double *bits = static_cast<double *>(scratch);
    float *planes = reinterpret_cast<float *>(bits + p->n * g.blocks());
    return {*model, g, p->n, planes, planes + p->n * g.plane_numbers(), bits};
}

unsigned thread_blocks(const job &k)
{
    return unsigned(divide_up(k.n * k.g.blocks(), BLOCKS));
}

/* Planes and coefficients, which both directions begin with. */
void encode(cudaStream_t stream, enum draft_dtype type, const job &k, const void *x)
{
    with_type(type, [&](auto t) {
        using T = TYPE_OF(t);
        run_each(stream, k.n * (k.g.height / 2) * (k.g.width / 2), to_planes<T>{k.m, k.g, as<T>(x), k.planes});
    });
    launch(to_coefficients, thread_blocks(k), JPEG_THREADS, sizeof(workshop), stream, k);
}
} // namespace

size_t draft_cuda_jpeg_size_scratch(const struct draft_cuda_pictures *p)
{
    const geometry g(p->h, p->w);
    return size_t(p->n) * (size_t(g.blocks()) * sizeof(double) + size_t(g.plane_numbers()) * 2 * sizeof(float));
}

void draft_cuda_jpeg_size(draft_cuda_stream stream, enum draft_dtype type, const struct draft_cuda_pictures *pictures,
                          const struct draft_jpeg_model *model, const void *x, float *size, void *scratch)
{
    const job k = prepared(pictures, model, scratch);
    encode(stream, type, k, x);
    launch(price_blocks<false>, thread_blocks(k), JPEG_THREADS, sizeof(workshop), stream, k);
    launch(total_bits, unsigned(k.n), LONG_BLOCK, LONG_SHARED, stream, k, size);
}

void draft_cuda_jpeg_size_backward(draft_cuda_stream stream, enum draft_dtype type,
                                   const struct draft_cuda_pictures *pictures, const struct draft_jpeg_model *model,
                                   const void *x, const float *dsize, struct draft_cuda_gradient dx, void *scratch)
{
    const job k = prepared(pictures, model, scratch);
    encode(stream, type, k, x);
    launch(price_blocks<true>, thread_blocks(k), JPEG_THREADS, sizeof(workshop), stream, k);
    with_type(type, [&](auto t) {
        using T = TYPE_OF(t);
        run_each(stream, k.n * k.g.h * k.g.w, from_planes<T>{k.m, k.g, k.planes, dsize, as<T>(dx.to), dx.accumulate});
    });
}
