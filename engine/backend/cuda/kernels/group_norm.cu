/*
 * GroupNorm, with SiLU on top when asked (formulas: ops/group_norm.c). Three kernels each way: sums over chunks of
 * rows, totals of each group, the elementwise pass. The tensor moves 3 times in forward (read, read, write) and 5 or 6
 * times in backward (x and dy twice, dx once, and read before if it is added to). Forward of a small tensor, as they
 * are in a UNet, is one kernel, a block for each group of a sample: two launches less are worth its shorter loads.
 *
 * Channels are read 16 bytes at a time though a group may be 10 wide: sums are kept per channel and become groups only
 * in shared memory. Mean and variance are Welford's running ones, joined as Chan does (1983): no mean, however large,
 * and no outlier costs digits.
 */
#include "backend/cuda/kernels/norm.cuh"

namespace
{

struct moments {
    float count, mean, square; /* square: sum of (x - mean)^2 */

    __device__ void operator+=(const moments &other)
    {
        if (other.count == 0)
            return;
        const float all = count + other.count, share = other.count / all, apart = other.mean - mean;
        mean += apart * share;
        square += other.square + apart * apart * count * share;
        count = all;
    }
};

/* Of W columns, which have been given equally many. */
template <int W> __device__ __forceinline__ void add_to_moments(const float (&v)[W], moments (&s)[W])
{
    const float count = s[0].count + 1.0f, share = 1.0f / count;
    for (int k = 0; k < W; k++) {
        const float apart = v[k] - s[k].mean;
        s[k].mean += apart * share;
        s[k].square += apart * (v[k] - s[k].mean);
        s[k].count = count;
    }
}

template <class T, int W> struct group_moments {
    using columns = no_columns;
    using sum = moments;
    const T *x;
    int64_t rows, c;

    __device__ void add(const columns &, int64_t n, int64_t row, int64_t column, sum (&s)[W]) const
    {
        float v[W];
        load<W>(x + (n * rows + row) * c + column, v);
        add_to_moments<W>(v, s);
    }
    __device__ sum weigh(const sum &s, int64_t) const
    {
        return s;
    }
};

struct group_statistics {
    float2 *stats;
    int groups;
    float eps;

    __device__ void operator()(int64_t n, int g, const moments &m) const
    {
        stats[n * groups + g] = make_float2(m.mean, 1.0f / sqrtf(m.square / m.count + eps));
    }
};

struct norm_numbers {
    const float *gamma, *beta;
    const float2 *stats;
    int64_t rows, c;
    int groups, group; /* how many, and how wide */
    bool silu;
};

/* What both elementwise passes and the backward sums keep of a channel. */
template <int W> struct norm_channel {
    float mean[W], rstd[W], gamma[W], beta[W];

    __device__ norm_channel(const norm_numbers &norm, int64_t n, int64_t column)
    {
        load_floats<W>(norm.gamma + column, gamma);
        load_floats<W>(norm.beta + column, beta);
        for (int k = 0; k < W; k++) {
            const float2 s = norm.stats[n * norm.groups + int(column + k) / norm.group];
            mean[k] = s.x;
            rstd[k] = s.y;
        }
    }
};

template <class T, int W> struct group_norm_forward {
    norm_numbers norm;
    const T *x;
    T *y;

    struct columns : norm_channel<W> {
        __device__ columns(const group_norm_forward &f, int64_t n, int64_t column) : norm_channel<W>(f.norm, n, column)
        {
        }
    };
    __device__ int64_t place(int64_t n, int64_t row, int64_t column) const
    {
        return (n * norm.rows + row) * norm.c + column;
    }
    __device__ void give(const columns &at, int64_t i, float (&v)[W]) const
    {
        for (int k = 0; k < W; k++) {
            const float u = (v[k] - at.mean[k]) * at.rstd[k] * at.gamma[k] + at.beta[k];
            v[k] = norm.silu ? u * sigmoid(u) : u;
        }
        store<W>(y + i, v);
    }
    __device__ void operator()(const columns &at, int64_t n, int64_t row, int64_t column) const
    {
        const int64_t i = place(n, row, column);
        float v[W];
        load<W>(x + i, v);
        give(at, i, v);
    }
};

/* --- One kernel, a block for each group of a sample --------------------------------------------------------------- */

enum { WHOLE_BLOCK = 1024, WHOLE_WARPS = WHOLE_BLOCK / WARP };
/* Rows that a thread reads before it works on them. */
template <int W> constexpr int AHEAD = W < 8 ? 4 : 2;

/* Every lane gets it. */
__device__ moments warp_moments(moments m)
{
    for (int d = WARP / 2; d > 0; d /= 2)
        m += moments{__shfl_xor_sync(~0u, m.count, d), __shfl_xor_sync(~0u, m.mean, d),
                     __shfl_xor_sync(~0u, m.square, d)};
    return m;
}

/* A row of a group is `vectors` threads wide, a block `lanes` rows high, in whole warps. The second time the group is
 * read it comes from the cache. Grid (groups, n). */
template <class T, int W>
__global__ void __launch_bounds__(WHOLE_BLOCK) group_norm_whole(const __grid_constant__ group_norm_forward<T, W> f,
                                                                float2 *stats, float eps, int vectors, int lanes)
{
    moments *of_warp = dynamic_shared<moments>(); /* [WHOLE_WARPS] */
    const int g = blockIdx.x, lane = threadIdx.x / vectors, warp = threadIdx.x / WARP;
    const int64_t n = blockIdx.y, rows = f.norm.rows, step = int64_t(lanes) * AHEAD<W>;
    const int64_t first = lane < lanes ? lane : rows; /* threads behind the last lane have no row */
    const int64_t column = int64_t(g) * f.norm.group + threadIdx.x % vectors * W;
    float v[AHEAD<W>][W];
    moments s[W] = {};
    for (int64_t begin = first; begin < rows; begin += step) {
        for (int a = 0; a < AHEAD<W>; a++)
            if (begin + a * lanes < rows)
                load<W>(f.x + f.place(n, begin + a * lanes, column), v[a]);
        for (int a = 0; a < AHEAD<W>; a++)
            if (begin + a * lanes < rows)
                add_to_moments<W>(v[a], s);
    }
    for (int k = 1; k < W; k++)
        s[0] += s[k];
    s[0] = warp_moments(s[0]);
    if (threadIdx.x % WARP == 0)
        of_warp[warp] = s[0];
    __syncthreads();
    if (warp == 0) {
        const bool is_there = threadIdx.x < blockDim.x / WARP;
        const moments all = warp_moments(is_there ? of_warp[threadIdx.x] : moments{});
        if (threadIdx.x == 0)
            group_statistics{stats, f.norm.groups, eps}(n, g, all);
    }
    __syncthreads();
    if (first >= rows)
        return;
    const typename group_norm_forward<T, W>::columns at(f, n, column);
    for (int64_t begin = first; begin < rows; begin += step) {
        for (int a = 0; a < AHEAD<W>; a++)
            if (begin + a * lanes < rows)
                load<W>(f.x + f.place(n, begin + a * lanes, column), v[a]);
        for (int a = 0; a < AHEAD<W>; a++)
            if (begin + a * lanes < rows)
                f.give(at, f.place(n, begin + a * lanes, column), v[a]);
    }
}

/* Worth it up to 16 MB of bf16, and while a block's share is not long: beyond, more blocks are faster than fewer
 * launches. By the shape alone, as all here. */
bool is_small(const struct draft_group_norm_shape *s)
{
    const int64_t most = 1 << 23, most_of_group = 1 << 17, group = s->c / s->groups;
    return s->n * s->positions * s->c <= most && s->positions * group <= most_of_group && group <= WHOLE_BLOCK;
}

template <class T, int W>
void run_group_norm_whole(cudaStream_t stream, const struct draft_group_norm_shape *s,
                          const group_norm_forward<T, W> &f, float2 *stats)
{
    const int vectors = f.norm.group / W, most = WHOLE_BLOCK / vectors;
    const int lanes = s->positions < most ? int(s->positions) : most;
    const unsigned block = unsigned(divide_up(int64_t(lanes) * vectors, WARP) * WARP);
    launch(group_norm_whole<T, W>, dim3(unsigned(s->groups), unsigned(s->n)), block, WHOLE_WARPS * sizeof(moments),
           stream, f, stats, s->eps, vectors, lanes);
}

template <class T, int W> struct group_norm_gradient {
    using sum = gradient_sums;
    norm_numbers norm;
    const T *x, *dy;
    T *dx;                      /* NULL while the sums are taken */
    const gradient_sums *means; /* [n, groups]: of gamma du and gamma du z; read by the elementwise pass */
    bool accumulate;

    struct columns : norm_channel<W> {
        float mean_du[W], mean_du_z[W];

        __device__ columns(const group_norm_gradient &f, int64_t n, int64_t column) : norm_channel<W>(f.norm, n, column)
        {
            for (int k = 0; k < W; k++) {
                const gradient_sums m =
                    f.dx ? f.means[n * f.norm.groups + int(column + k) / f.norm.group] : gradient_sums{};
                mean_du[k] = m.du;
                mean_du_z[k] = m.du_z;
            }
        }
    };
    __device__ void read(const columns &at, int64_t i, float (&z)[W], float (&du)[W]) const
    {
        load<W>(x + i, z);
        load<W>(dy + i, du);
        for (int k = 0; k < W; k++) {
            z[k] = (z[k] - at.mean[k]) * at.rstd[k];
            if (norm.silu)
                du[k] *= silu_slope(z[k] * at.gamma[k] + at.beta[k]);
        }
    }
    __device__ void add(const columns &at, int64_t n, int64_t row, int64_t column, sum (&s)[W]) const
    {
        float z[W], du[W];
        read(at, (n * norm.rows + row) * norm.c + column, z, du);
        for (int k = 0; k < W; k++)
            s[k] += gradient_sums{du[k], du[k] * z[k]};
    }
    __device__ sum weigh(const sum &s, int64_t column) const
    {
        return {norm.gamma[column] * s.du, norm.gamma[column] * s.du_z};
    }
    __device__ void operator()(const columns &at, int64_t n, int64_t row, int64_t column) const
    {
        const int64_t i = (n * norm.rows + row) * norm.c + column;
        float z[W], du[W];
        read(at, i, z, du);
        for (int k = 0; k < W; k++)
            du[k] = at.rstd[k] * (at.gamma[k] * du[k] - at.mean_du[k] - z[k] * at.mean_du_z[k]);
        put<W>(dx + i, accumulate, du);
    }
};

struct group_means {
    gradient_sums *means;
    int groups;
    float count;

    __device__ void operator()(int64_t n, int g, const gradient_sums &s) const
    {
        means[n * groups + g] = {s.du / count, s.du_z / count};
    }
};

/* --- Host side ---------------------------------------------------------------------------------------------------- */

/* Means, parts of groups, parts of columns: room for forward and backward and every vector width. */
struct group_norm_scratch {
    size_t means, of_group, of_column, all; /* bytes: where each begins, and all of them */

    explicit group_norm_scratch(const struct draft_group_norm_shape *s)
    {
        const size_t group_parts =
            most_chunks_of(s->positions, s->c, GROUP_CHUNKS) * columns_of(1, s->c, 1, 1, 1).tiles;
        const size_t column_parts = most_chunks_of(s->positions, s->c, COLUMN_CHUNKS);
        means = 0;
        of_group = means + size_t(s->n * s->groups) * sizeof(gradient_sums);
        of_column = of_group + size_t(s->n * s->groups) * group_parts * sizeof(moments);
        all = of_column + size_t(s->n * s->c) * column_parts * sizeof(gradient_sums);
    }
};

static_assert(sizeof(moments) >= sizeof(gradient_sums), "a part of a group is the larger of the two");

norm_numbers numbers(const struct draft_group_norm_shape *s, const float *gamma, const float *beta, const float2 *stats)
{
    return {gamma, beta, stats, s->positions, s->c, int(s->groups), int(s->c / s->groups), s->silu};
}

/* f(T(), W): the most neighbours, 16 bytes at most, that a group's rows can be cut into. */
template <class F>
void with_group_vectors(enum draft_dtype type, int group, std::initializer_list<const void *> addresses, F f)
{
    bool whole = true;
    for (const void *address : addresses)
        whole = whole && aligned(address);
    with_type(type, [&](auto t) {
        constexpr int wide = 16 / int(sizeof t);
        if (whole && group % wide == 0)
            f(t, std::integral_constant<int, wide>());
        else if (whole && group % (wide / 2) == 0)
            f(t, std::integral_constant<int, wide / 2>());
        else if (whole && group % 2 == 0)
            f(t, std::integral_constant<int, 2>());
        else
            f(t, std::integral_constant<int, 1>());
    });
}

bool empty(const struct draft_group_norm_shape *s)
{
    return s->n == 0 || s->positions == 0 || s->c == 0;
}
} // namespace

size_t draft_cuda_group_norm_scratch(const struct draft_group_norm_shape *shape)
{
    return group_norm_scratch(shape).all;
}

void draft_cuda_group_norm(draft_cuda_stream stream, enum draft_dtype type, const struct draft_group_norm_shape *s,
                           const void *x, const float *gamma, const float *beta, void *y, float *stats, void *scratch)
{
    if (empty(s))
        return;
    float2 *of_group = reinterpret_cast<float2 *>(stats);
    const norm_numbers norm = numbers(s, gamma, beta, of_group);
    if (is_small(s)) {
        with_group_vectors(type, norm.group, {x, y, gamma, beta}, [&](auto t, auto w) {
            using T = TYPE_OF(t);
            constexpr int W = WIDTH_OF(w);
            run_group_norm_whole(stream, s, group_norm_forward<T, W>{norm, as<T>(x), as<T>(y)}, of_group);
        });
        return;
    }
    moments *parts = reinterpret_cast<moments *>(static_cast<char *>(scratch) + group_norm_scratch(s).of_group);
    with_vectors(type, {s->c}, {x, y, gamma, beta}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        constexpr int W = WIDTH_OF(w);
        const column_layout l =
            run_column_sums<W>(stream, s->n, s->positions, s->c, group_moments<T, W>{as<T>(x), s->positions, s->c},
                               nullptr, parts, norm.group);
        run_group_totals(stream, s->n, norm.groups, parts, l, group_statistics{of_group, norm.groups, s->eps});
        run_column_each<W>(stream, s->n, s->positions, s->c, group_norm_forward<T, W>{norm, as<T>(x), as<T>(y)});
    });
}

void draft_cuda_group_norm_backward(draft_cuda_stream stream, enum draft_dtype type,
                                    const struct draft_group_norm_shape *s, const void *x, const float *gamma,
                                    const float *beta, const float *stats, const void *dy,
                                    struct draft_cuda_gradient dx, struct draft_cuda_gradient dgamma,
                                    struct draft_cuda_gradient dbeta, void *scratch)
{
    if (empty(s))
        return;
    const norm_numbers norm = numbers(s, gamma, beta, reinterpret_cast<const float2 *>(stats));
    const group_norm_scratch at(s);
    char *bytes = static_cast<char *>(scratch);
    gradient_sums *means = reinterpret_cast<gradient_sums *>(bytes + at.means);
    gradient_sums *of_group = reinterpret_cast<gradient_sums *>(bytes + at.of_group);
    gradient_sums *of_column = reinterpret_cast<gradient_sums *>(bytes + at.of_column);
    const bool parameters = dgamma.to || dbeta.to;
    with_vectors(type, {s->c}, {x, dy, dx.to, gamma, beta}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        constexpr int W = WIDTH_OF(w);
        group_norm_gradient<T, W> f{norm, as<T>(x), as<T>(dy), nullptr, means, dx.accumulate};
        const column_layout l = run_column_sums<W>(stream, s->n, s->positions, s->c, f,
                                                   parameters ? of_column : nullptr, of_group, norm.group);
        if (dx.to) {
            run_group_totals(stream, s->n, norm.groups, of_group, l,
                             group_means{means, norm.groups, float(s->positions) * float(norm.group)});
            f.dx = as<T>(dx.to);
            run_column_each<W>(stream, s->n, s->positions, s->c, f);
        }
        if (parameters)
            run_each(stream, s->c, parameter_gradients{of_column, s->n * l.chunks, s->c, dgamma, dbeta});
    });
}
