/*
 * A matrix times one row. The matrix is read once, 16 bytes at a time, a warp for each number of the result; what is
 * added to it is added in F32.
 */
#include "backend/cuda/kernels/device.cuh"

namespace
{
enum { NUMBERS = 8 }; /* of a block, a warp each */

template <class T, int W>
__global__ void __launch_bounds__(NUMBERS *WARP)
    row_product(int64_t o, int64_t k, const T *x, const T *w, const T *b, const T *c, T *y)
{
    const int64_t i = int64_t(blockIdx.x) * NUMBERS + threadIdx.x / WARP;
    if (i >= o)
        return;
    float u[W], v[W], sum = 0;
    for (int64_t j = threadIdx.x % WARP * W; j < k; j += WARP * W) {
        load<W>(x + j, u);
        load<W>(w + i * k + j, v);
        for (int l = 0; l < W; l++)
            sum += u[l] * v[l];
    }
    sum = warp_sum(sum);
    if (threadIdx.x % WARP != 0)
        return;
    sum += b ? widen(b[i]) : 0.0f;
    sum += c ? widen(c[i]) : 0.0f;
    narrow(sum, y + i);
}
} // namespace

void draft_cuda_row_product(draft_cuda_stream stream, enum draft_dtype type, int64_t o, int64_t k, const void *x,
                            const void *w, const void *b, const void *c, void *y)
{
    with_vectors(type, {k}, {x, w}, [&](auto t, auto width) {
        using T = TYPE_OF(t);
        launch(row_product<T, WIDTH_OF(width)>, unsigned(divide_up(o, NUMBERS)), NUMBERS * WARP, 0, stream, o, k,
               as<T>(x), as<T>(w), as<T>(b), as<T>(c), as<T>(y));
    });
}
