/*
 * LayerNorm (formulas: ops/layer_norm.c): a warp a row. A row is read three times, but from the L1 cache after the
 * first: memory sees 2 tensors in forward (x, y) and 3 or 4 in backward (x, dy, dx, and dx before if it is added to).
 * Mean first, then the squares around it, so that a large mean costs no digits.
 */
#include "backend/cuda/kernels/norm.cuh"

namespace
{
enum { ROWS = 8 }; /* of a block, a warp each */

template <class T, int W>
__global__ void __launch_bounds__(ROWS *WARP)
    layer_norm_forward(const T *x, const float *gamma, const float *beta, T *y, float2 *stats, int64_t rows, int64_t c,
                       int64_t y_stride, float eps)
{
    const int64_t row = int64_t(blockIdx.x) * ROWS + threadIdx.x / WARP;
    const int64_t begin = threadIdx.x % WARP * W, step = WARP * W;
    if (row >= rows)
        return;
    float v[W], scale[W], shift[W], sum = 0, square = 0;
    for (int64_t i = begin; i < c; i += step) {
        load<W>(x + row * c + i, v);
        for (int k = 0; k < W; k++)
            sum += v[k];
    }
    const float mean = warp_sum(sum) / float(c);
    for (int64_t i = begin; i < c; i += step) {
        load<W>(x + row * c + i, v);
        for (int k = 0; k < W; k++)
            square += (v[k] - mean) * (v[k] - mean);
    }
    const float rstd = 1.0f / sqrtf(warp_sum(square) / float(c) + eps);
    if (begin == 0)
        stats[row] = make_float2(mean, rstd);
    for (int64_t i = begin; i < c; i += step) {
        load<W>(x + row * c + i, v);
        load_floats<W>(gamma + i, scale);
        load_floats<W>(beta + i, shift);
        for (int k = 0; k < W; k++)
            v[k] = (v[k] - mean) * rstd * scale[k] + shift[k];
        store<W>(y + row * y_stride + i, v);
    }
}

/* dx may be dy: the sums are complete, and each element is read before it is written. */
template <class T, int W>
__global__ void __launch_bounds__(ROWS *WARP)
    layer_norm_gradient(const T *x, const float *gamma, const float2 *stats, const T *dy, T *dx, bool accumulate,
                        int64_t rows, int64_t c)
{
    const int64_t row = int64_t(blockIdx.x) * ROWS + threadIdx.x / WARP;
    const int64_t begin = threadIdx.x % WARP * W, step = WARP * W;
    if (row >= rows)
        return;
    const float2 s = stats[row];
    float z[W], du[W], scale[W], sum = 0, sum_z = 0;
    for (int64_t i = begin; i < c; i += step) {
        load<W>(x + row * c + i, z);
        load<W>(dy + row * c + i, du);
        load_floats<W>(gamma + i, scale);
        for (int k = 0; k < W; k++) {
            const float weighed = scale[k] * du[k];
            sum += weighed;
            sum_z += weighed * ((z[k] - s.x) * s.y);
        }
    }
    const float mean = warp_sum(sum) / float(c), mean_z = warp_sum(sum_z) / float(c);
    for (int64_t i = begin; i < c; i += step) {
        load<W>(x + row * c + i, z);
        load<W>(dy + row * c + i, du);
        load_floats<W>(gamma + i, scale);
        for (int k = 0; k < W; k++)
            du[k] = s.y * (scale[k] * du[k] - mean - (z[k] - s.x) * s.y * mean_z);
        put<W>(dx + row * c + i, accumulate, du);
    }
}

/* For dgamma and dbeta: sums over rows, each with its own statistics. */
template <class T, int W> struct layer_norm_sums {
    using columns = no_columns;
    using sum = gradient_sums;
    const T *x, *dy;
    const float2 *stats;
    int64_t c;

    __device__ void add(const columns &, int64_t, int64_t row, int64_t column, sum (&s)[W]) const
    {
        const float2 of_row = stats[row];
        float z[W], du[W];
        load<W>(x + row * c + column, z);
        load<W>(dy + row * c + column, du);
        for (int k = 0; k < W; k++)
            s[k] += gradient_sums{du[k], du[k] * (z[k] - of_row.x) * of_row.y};
    }
    __device__ sum weigh(const sum &s, int64_t) const
    {
        return s;
    }
};

unsigned blocks(int64_t rows)
{
    return unsigned(divide_up(rows, ROWS));
}
} // namespace

size_t draft_cuda_layer_norm_scratch(int64_t rows, int64_t c)
{
    return most_chunks_of(rows, c, COLUMN_CHUNKS) * size_t(c) * sizeof(gradient_sums);
}

void draft_cuda_layer_norm(draft_cuda_stream stream, enum draft_dtype type, int64_t rows, int64_t c, float eps,
                           const void *x, const float *gamma, const float *beta, void *y, int64_t y_stride,
                           float *stats)
{
    with_vectors(type, {c, y_stride}, {x, y, gamma, beta}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        launch(layer_norm_forward<T, WIDTH_OF(w)>, blocks(rows), ROWS * WARP, 0, stream, as<T>(x), gamma, beta,
               as<T>(y), reinterpret_cast<float2 *>(stats), rows, c, y_stride, eps);
    });
}

void draft_cuda_layer_norm_backward(draft_cuda_stream stream, enum draft_dtype type, int64_t rows, int64_t c,
                                    const void *x, const float *gamma, const float *stats, const void *dy,
                                    struct draft_cuda_gradient dx, struct draft_cuda_gradient dgamma,
                                    struct draft_cuda_gradient dbeta, void *scratch)
{
    const float2 *of_row = reinterpret_cast<const float2 *>(stats);
    with_vectors(type, {c}, {x, dy, dx.to, gamma}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        constexpr int W = WIDTH_OF(w);
        if (dgamma.to || dbeta.to) {
            gradient_sums *parts = static_cast<gradient_sums *>(scratch);
            const column_layout l =
                run_column_sums<W>(stream, 1, rows, c, layer_norm_sums<T, W>{as<T>(x), as<T>(dy), of_row, c}, parts,
                                   static_cast<gradient_sums *>(nullptr), 1);
            run_each(stream, c, parameter_gradients{parts, l.chunks, c, dgamma, dbeta});
        }
        if (dx.to)
            launch(layer_norm_gradient<T, W>, blocks(rows), ROWS * WARP, 0, stream, as<T>(x), gamma, of_row, as<T>(dy),
                   as<T>(dx.to), dx.accumulate, rows, c);
    });
}
