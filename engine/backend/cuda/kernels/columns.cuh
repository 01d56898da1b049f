/*
 * Kernels over [n, rows, c] in which a thread stays with its columns (channels) and walks down rows: what belongs to a
 * channel is read once, and no index is divided. Neighbouring threads hold neighbouring columns, W of them each.
 *
 *   column_each   the same for every row: norms applied, a channel's value added
 *   column_sums   sums over chunks of rows, per column or per group of columns; group_totals adds the chunks up
 *
 * A column's functor F has
 *   struct columns          what a thread keeps of its W columns; columns(f, n, column) reads it
 *   f(columns, n, row, column)                    column_each
 *   F::sum, with +=; F::sum{} is empty; f.add(columns, n, row, column, sum[W]); f.weigh(sum, column) on the way into a
 *   group                                         column_sums
 *
 * The order of a sum: a thread's rows, then the lanes of the block, then the columns of a group, then the chunks. All
 * of it follows from the shape.
 */
#ifndef DRAFT_BACKEND_CUDA_KERNELS_COLUMNS_CUH
#define DRAFT_BACKEND_CUDA_KERNELS_COLUMNS_CUH

#include "backend/cuda/kernels/device.cuh"

/* A block is `lanes` rows of `tile` threads; grid (chunks of rows, tiles of columns, n). */
struct column_layout {
    int tile, lanes;
    unsigned tiles, chunks;

    dim3 grid(int64_t n) const
    {
        return dim3(chunks, tiles, unsigned(n));
    }
    unsigned block() const
    {
        return unsigned(tile * lanes);
    }
};

enum { COLUMN_BLOCK = 256, GROUP_BLOCK = 128 };

/* Chunks are what keeps memory busy: a large picture needs many blocks at once. Parts of groups are few numbers, parts
 * of columns are as many as a row is wide, and one thread adds up a column's. */
enum { GROUP_CHUNKS = 1024, COLUMN_CHUNKS = 128 };

inline column_layout columns_of(int64_t rows, int64_t c, int width, int64_t rows_per_lane, int64_t most_chunks)
{
    column_layout l;
    const int64_t vectors = divide_up(c, width), tiles = divide_up(vectors, COLUMN_BLOCK);
    l.tiles = unsigned(tiles);
    l.tile = int(vectors > 0 ? divide_up(vectors, tiles) : 1);
    l.lanes = l.tile < COLUMN_BLOCK ? COLUMN_BLOCK / l.tile : 1;
    l.lanes = l.lanes > rows && rows > 0 ? int(rows) : l.lanes;
    const int64_t chunks = divide_up(rows, l.lanes * rows_per_lane);
    l.chunks = unsigned(chunks < most_chunks ? chunks : most_chunks);
    return l;
}

/* Never no chunk: an empty sum is a sum. */
inline column_layout sum_columns_of(int64_t rows, int64_t c, int width, int64_t most_chunks)
{
    column_layout l = columns_of(rows, c, width, 4, most_chunks);
    l.chunks = l.chunks > 0 ? l.chunks : 1;
    return l;
}

/* The most chunks, whatever the vector width turns out to be: for sizes of scratch. */
inline size_t most_chunks_of(int64_t rows, int64_t c, int64_t most_chunks)
{
    size_t most = 1;
    for (int width : {1, 4, 8}) {
        const column_layout l = sum_columns_of(rows, c, width, most_chunks);
        most = l.chunks > most ? l.chunks : most;
    }
    return most;
}

inline column_layout each_columns_of(int64_t rows, int64_t c, int width)
{
    return columns_of(rows, c, width, 4, INT32_MAX);
}

/* For functors that keep nothing of their columns. */
struct no_columns {
    template <class F> __device__ no_columns(const F &, int64_t, int64_t)
    {
    }
};

/* The rows [begin, end) of this block's chunk. */
struct row_range {
    int64_t begin, end;

    __device__ explicit row_range(int64_t rows)
    {
        const int64_t per_chunk = (rows + gridDim.x - 1) / gridDim.x;
        begin = per_chunk * blockIdx.x;
        end = begin + per_chunk < rows ? begin + per_chunk : rows;
    }
};

template <int W, class F>
__global__ void __launch_bounds__(COLUMN_BLOCK)
    column_each(const __grid_constant__ F f, int64_t rows, int64_t c, int tile)
{
    const int lanes = blockDim.x / tile, lane = threadIdx.x / tile;
    const int64_t column = (int64_t(blockIdx.y) * tile + threadIdx.x % tile) * W, n = blockIdx.z;
    if (column >= c)
        return;
    const typename F::columns columns(f, n, column);
    const row_range range(rows);
    for (int64_t row = range.begin + lane; row < range.end; row += lanes)
        f(columns, n, row, column);
}

template <int W, class F> void run_column_each(cudaStream_t stream, int64_t n, int64_t rows, int64_t c, F f)
{
    const column_layout l = each_columns_of(rows, c, W);
    assert(n <= 65535 && l.tiles <= 65535); /* what the other two dimensions of a grid hold */
    launch(column_each<W, F>, l.grid(n), l.block(), 0, stream, f, rows, c, l.tile);
}

/* of_column (NULL: not wanted): [n, chunks, c]. of_group (NULL: not wanted): [n, chunks * tiles, groups], a group's
 * columns `group` side by side; a tile that holds none of them leaves it empty. */
template <int W, class F>
__global__ void __launch_bounds__(COLUMN_BLOCK)
    column_sums(const __grid_constant__ F f, int64_t rows, int64_t c, int tile, typename F::sum *of_column,
                typename F::sum *of_group, int group)
{
    using sum = typename F::sum;
    sum *of_lane = dynamic_shared<sum>(); /* [lanes, tile * W] */
    const int lanes = blockDim.x / tile, lane = threadIdx.x / tile, width = tile * W, mine = threadIdx.x % tile * W;
    const int64_t first = int64_t(blockIdx.y) * width, column = first + mine, n = blockIdx.z;
    if (column < c) {
        sum s[W] = {};
        const typename F::columns columns(f, n, column);
        const row_range range(rows);
        for (int64_t row = range.begin + lane; row < range.end; row += lanes)
            f.add(columns, n, row, column, s);
        for (int k = 0; k < W; k++)
            of_lane[lane * width + mine + k] = s[k];
    }
    __syncthreads();
    const int present = int(c - first < width ? c - first : width); /* columns of this tile that are there */
    for (int i = threadIdx.x; i < present; i += blockDim.x) {
        sum s = of_lane[i];
        for (int l = 1; l < lanes; l++)
            s += of_lane[l * width + i];
        of_lane[i] = s;
        if (of_column)
            of_column[(n * gridDim.x + blockIdx.x) * c + first + i] = s;
    }
    if (!of_group)
        return;
    __syncthreads();
    const int groups = int(c / group);
    for (int g = threadIdx.x; g < groups; g += blockDim.x) {
        const int64_t begin = int64_t(g) * group - first, end = begin + group;
        sum s = {};
        for (int64_t i = begin > 0 ? begin : 0; i < end && i < present; i++)
            s += f.weigh(of_lane[i], first + i);
        of_group[((n * gridDim.x + blockIdx.x) * gridDim.y + blockIdx.y) * groups + g] = s;
    }
}

/* How it was cut, for whoever adds the parts up. */
template <int W, class F>
column_layout run_column_sums(cudaStream_t stream, int64_t n, int64_t rows, int64_t c, F f, typename F::sum *of_column,
                              typename F::sum *of_group, int64_t group)
{
    const column_layout l = sum_columns_of(rows, c, W, of_column ? COLUMN_CHUNKS : GROUP_CHUNKS);
    launch(column_sums<W, F>, l.grid(n), l.block(), sizeof(typename F::sum) * l.block() * W, stream, f, rows, c, l.tile,
           of_column, of_group, int(group));
    return l;
}

/* finish(n, g, sum of the group's parts). Grid (groups, n). */
template <class S, class F>
__global__ void __launch_bounds__(GROUP_BLOCK) group_totals(const S *parts, int count, const __grid_constant__ F finish)
{
    S *of_thread = dynamic_shared<S>();
    const int groups = gridDim.x, g = blockIdx.x, t = threadIdx.x;
    const int64_t n = blockIdx.y;
    S s = {};
    for (int i = t; i < count; i += GROUP_BLOCK)
        s += parts[(n * count + i) * groups + g];
    of_thread[t] = s;
    for (int half = GROUP_BLOCK / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half)
            of_thread[t] += of_thread[t + half];
    }
    if (t == 0)
        finish(n, g, of_thread[0]);
}

template <class S, class F>
void run_group_totals(cudaStream_t stream, int64_t n, int64_t groups, const S *parts, const column_layout &l, F finish)
{
    launch(group_totals<S, F>, dim3(unsigned(groups), unsigned(n)), GROUP_BLOCK, sizeof(S) * GROUP_BLOCK, stream, parts,
           int(l.chunks * l.tiles), finish);
}

#endif
