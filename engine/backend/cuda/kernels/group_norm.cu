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

template <class T, int W> struct group_moments {
    using columns = no_columns;
    using sum = moments;
    const T *x;
    int64_t rows, c;

    __device__ void add(const columns &, int64_t n, int64_t row, int64_t column, sum (&s)[W]) const
    {
        float v[W];
        load<W>(x + (n * rows + row) * c + column, v);
        const float count = s[0].count + 1.0f, share = 1.0f / count;
        for (int k = 0; k < W; k++) {
            const float apart = v[k] - s[k].mean;
            s[k].mean += apart * share;
            s[k].square += apart * (v[k] - s[k].mean);
            s[k].count = count;
        }
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
    __device__ void operator()(const columns &at, int64_t n, int64_t row, int64_t column) const
    {
        const int64_t i = (n * norm.rows + row) * norm.c + column;
        float v[W];
        load<W>(x + i, v);
        for (int k = 0; k < W; k++) {
            const float u = (v[k] - at.mean[k]) * at.rstd[k] * at.gamma[k] + at.beta[k];
            v[k] = norm.silu ? u * sigmoid(u) : u;
        }
        store<W>(y + i, v);
    }
};

/* --- One kernel, a block for each group of a sample --------------------------------------------------------------- */

enum { WHOLE_BLOCK = 1024, WHOLE_WARPS = WHOLE_BLOCK / WARP };
enum { AHEAD = 4 }; /* rows that a thread reads before it works on them */

/* Every lane gets it. */
__device__ moments warp_moments(moments m)
{
    for (int d = WARP / 2; d > 0; d /= 2)
        m += moments{__shfl_xor_sync(~0u, m.count, d), __shfl_xor_sync(~0u, m.mean, d),
                     __shfl_xor_sync(~0u, m.square, d)};
    return m;
}

/* The places in a small tensor of the rows that a thread walks down: begin, begin + step, .. below end. */
struct walk {
    int begin, step, end;
};

/* f(place, v[W]) with every row, in their order. */
template <class T, int W, class F> static __device__ __forceinline__ void each_row(const walk &w, const T *x, F f)
{
    int at = w.begin;
    for (; at + (AHEAD - 1) * w.step < w.end; at += AHEAD * w.step) {
        float v[AHEAD][W];
        for (int a = 0; a < AHEAD; a++)
            load<W>(x + at + a * w.step, v[a]);
        for (int a = 0; a < AHEAD; a++)
            f(at + a * w.step, v[a]);
    }
    for (; at < w.end; at += w.step) {
        float v[W];
        load<W>(x + at, v);
        f(at, v);
    }
}

/* Of W columns, `count` rows of each. Sums of squares are taken around the first number that the thread meets in a
 * column: neither a mean nor an outlier costs digits. */
template <class T, int W> static __device__ moments walk_moments(const walk &w, const T *x, float count)
{
    float first[W], sum[W] = {}, square[W] = {};
    load<W>(x + w.begin, first);
    each_row<T, W>(w, x, [&](int, const float(&v)[W]) {
        for (int k = 0; k < W; k++) {
            const float apart = v[k] - first[k];
            sum[k] += apart;
            square[k] += apart * apart;
        }
    });
    moments all = {};
    for (int k = 0; k < W; k++)
        all += moments{count, first[k] + sum[k] / count, fmaxf(square[k] - sum[k] * sum[k] / count, 0.0f)};
    return all;
}

/* A row of a group is `vectors` threads wide, a block `lanes` rows high, in whole warps. The second time the group is
 * read it comes from the cache. Grid (groups, n). */
template <class T, int W>
__global__ void __launch_bounds__(WHOLE_BLOCK, 1)
    group_norm_whole(const __grid_constant__ norm_numbers norm, const T *x, T *y, float2 *stats, float eps, int vectors,
                     int lanes)
{
    moments *of_warp = dynamic_shared<moments>(); /* [WHOLE_WARPS] */
    float2 *result = reinterpret_cast<float2 *>(of_warp + WHOLE_WARPS);
    const int g = blockIdx.x, n = blockIdx.y, lane = threadIdx.x / vectors, warp = threadIdx.x / WARP;
    const int rows = int(norm.rows), c = int(norm.c), column = g * norm.group + threadIdx.x % vectors * W;
    const walk w = {(n * rows + lane) * c + column, lanes * c, (n + 1) * rows * c};
    const bool is_there = lane < lanes; /* threads behind the last lane have no row */
    moments of_thread = {};
    if (is_there)
        of_thread = walk_moments<T, W>(w, x, float((rows - lane + lanes - 1) / lanes));
    of_thread = warp_moments(of_thread);
    if (threadIdx.x % WARP == 0)
        of_warp[warp] = of_thread;
    __syncthreads();
    if (warp == 0) {
        const moments all = warp_moments(threadIdx.x < blockDim.x / WARP ? of_warp[threadIdx.x] : moments{});
        if (threadIdx.x == 0) {
            group_statistics{stats, norm.groups, eps}(n, g, all);
            *result = stats[n * norm.groups + g];
        }
    }
    __syncthreads();
    if (!is_there)
        return;
    const float mean = result->x, rstd = result->y;
    float scale[W], shift[W];
    load_floats<W>(norm.gamma + column, scale);
    load_floats<W>(norm.beta + column, shift);
    for (int k = 0; k < W; k++)
        scale[k] *= rstd;
    each_row<T, W>(w, x, [&](int at, float(&v)[W]) {
        for (int k = 0; k < W; k++) {
            const float u = (v[k] - mean) * scale[k] + shift[k];
            v[k] = norm.silu ? u * sigmoid(u) : u;
        }
        store<W>(y + at, v);
    });
}

/* Worth it up to 16 MB of bf16, and while a block's share is not long: beyond, more blocks are faster than fewer
 * launches. By the shape alone, as all here. */
bool is_small(const struct draft_group_norm_shape *s)
{
    const int64_t most = 1 << 23, most_of_group = 1 << 17, group = s->c / s->groups;
    return s->n * s->positions * s->c <= most && s->positions * group <= most_of_group && group <= WHOLE_BLOCK;
}

template <class T, int W>
void run_group_norm_whole(cudaStream_t stream, const struct draft_group_norm_shape *s, const norm_numbers &norm,
                          const T *x, T *y, float2 *stats)
{
    const int vectors = norm.group / W, most = WHOLE_BLOCK / vectors;
    const int lanes = s->positions < most ? int(s->positions) : most;
    const unsigned block = unsigned(divide_up(int64_t(lanes) * vectors, WARP) * WARP);
    launch(group_norm_whole<T, W>, dim3(unsigned(s->groups), unsigned(s->n)), block,
           WHOLE_WARPS * sizeof(moments) + sizeof(float2), stream, norm, x, y, stats, s->eps, vectors, lanes);
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

/* f(T(), W): how many neighbours of a group's rows a thread holds, 4 at most. */
template <class F>
void with_group_vectors(enum draft_dtype type, int group, std::initializer_list<const void *> addresses, F f)
{
    bool whole = true;
    for (const void *address : addresses)
        whole = whole && aligned(address);
    with_type(type, [&](auto t) {
        if (whole && group % 4 == 0)
            f(t, std::integral_constant<int, 4>());
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
            run_group_norm_whole<T, W>(stream, s, norm, as<T>(x), as<T>(y), of_group);
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
