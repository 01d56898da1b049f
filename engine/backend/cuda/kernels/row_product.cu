/*
 * Matrices times one row. Each matrix is read once, 16 bytes at a time, a warp for each number of a result; what is
 * added to it is added in F32. Several matrices are one launch: a block belongs to one of them.
 */
#include "backend/cuda/kernels/device.cuh"

namespace
{
enum { NUMBERS = 8 }; /* of a block, a warp each */

struct batch {
    struct draft_cuda_row row[DRAFT_CUDA_ROWS];
    unsigned begin[DRAFT_CUDA_ROWS + 1]; /* blocks */
};

template <class T, int W>
__global__ void __launch_bounds__(NUMBERS *WARP) row_products(const __grid_constant__ batch all, int64_t k, const T *x)
{
    int of = 0;
    while (blockIdx.x >= all.begin[of + 1])
        of++;
    const struct draft_cuda_row &row = all.row[of];
    const int64_t i = int64_t(blockIdx.x - all.begin[of]) * NUMBERS + threadIdx.x / WARP;
    if (i >= row.o)
        return;
    const T *w = static_cast<const T *>(row.w) + i * k;
    float u[W], v[W], sum = 0;
    for (int64_t j = threadIdx.x % WARP * W; j < k; j += WARP * W) {
        load<W>(x + j, u);
        load<W>(w + j, v);
        for (int l = 0; l < W; l++)
            sum += u[l] * v[l];
    }
    sum = warp_sum(sum);
    if (threadIdx.x % WARP != 0)
        return;
    sum += row.b ? widen(static_cast<const T *>(row.b)[i]) : 0.0f;
    sum += row.c ? widen(static_cast<const T *>(row.c)[i]) : 0.0f;
    narrow(sum, static_cast<T *>(row.y) + i);
}
} // namespace

void draft_cuda_row_products(draft_cuda_stream stream, enum draft_dtype type, int64_t k, const void *x,
                             const struct draft_cuda_row *row, int count)
{
    assert(count <= DRAFT_CUDA_ROWS);
    batch all = {};
    uintptr_t bits = 0; /* of all addresses */
    for (int i = 0; i < count; i++) {
        all.row[i] = row[i];
        all.begin[i + 1] = all.begin[i] + unsigned(divide_up(row[i].o, NUMBERS));
        bits |= reinterpret_cast<uintptr_t>(row[i].w);
    }
    with_vectors(type, {k}, {x, reinterpret_cast<const void *>(bits)}, [&](auto t, auto width) {
        using T = TYPE_OF(t);
        launch(row_products<T, WIDTH_OF(width)>, all.begin[count], NUMBERS * WARP, 0, stream, all, k, as<T>(x));
    });
}
