/*
 * Sums: over rows, over everything, over pairs of vectors. Their inputs are read once; losses and norms are added up in
 * double, since they are few numbers that decide much. In two stages where a sum is long: parts of fixed size by many
 * blocks, then one block adds the parts in their order.
 */
#include "backend/cuda/kernels/columns.cuh"
#include "backend/cuda/kernels/long_sum.cuh"

namespace
{
/* --- Over rows
 * -------------------------------------------------------------------------------------------------------- */

template <class T, int W> struct row_sums {
    using columns = no_columns;
    using sum = float;
    const T *x;
    int64_t x_stride, b_stride;

    __device__ void add(const columns &, int64_t b, int64_t row, int64_t column, sum (&s)[W]) const
    {
        float v[W];
        load<W>(x + b * b_stride + row * x_stride + column, v);
        for (int k = 0; k < W; k++)
            s[k] += v[k];
    }
    __device__ sum weigh(const sum &s, int64_t) const
    {
        return s;
    }
};

template <class T> struct chunks_added {
    using columns = no_columns;
    const float *parts; /* [b, chunks, c] */
    T *sum;
    int64_t chunks, c;
    bool accumulate;

    __device__ void operator()(const columns &, int64_t, int64_t b, int64_t column) const
    {
        float s[1] = {0};
        for (int64_t i = 0; i < chunks; i++)
            s[0] += parts[(b * chunks + i) * c + column];
        put<1>(sum + b * c + column, accumulate, s);
    }
};

/* --- Over everything
 * --------------------------------------------------------------------------------------------------- */

template <class T> struct value_of {
    const T *x;

    __device__ double operator()(int64_t i) const
    {
        return double(widen(x[i]));
    }
};

template <class T> struct square_difference {
    const T *a, *b;

    __device__ double operator()(int64_t i) const
    {
        const double d = double(widen(a[i])) - double(widen(b[i]));
        return d * d;
    }
};

struct mean_of {
    float *y;
    int64_t n;

    __device__ void operator()(double sum) const
    {
        *y = float(sum / double(n));
    }
};

template <class T> struct mean_gradient {
    const float *dy;
    T *dx;
    int64_t n;
    bool accumulate;

    __device__ void operator()(int64_t i) const
    {
        float d[1] = {*dy / float(n)};
        put<1>(dx + i, accumulate, d);
    }
};

template <class T> struct square_difference_gradient {
    const T *a, *b;
    const float *dy;
    T *da;
    float share; /* 2 / n */
    bool accumulate;

    __device__ void operator()(int64_t i) const
    {
        float d[1] = {share * *dy * (widen(a[i]) - widen(b[i]))};
        put<1>(da + i, accumulate, d);
    }
};

/* --- Rows and pairs: a warp or a block each
 * ------------------------------------------------------------------------------ */

struct norms {
    double a, b, cosine;
};

template <class T> __device__ norms measure(const T *a, const T *b, int64_t c)
{
    double aa = 0, bb = 0, ab = 0;
    for (int64_t i = threadIdx.x; i < c; i += WARP) {
        const double u = double(widen(a[i])), v = double(widen(b[i]));
        aa += u * u;
        bb += v * v;
        ab += u * v;
    }
    aa = sqrt(warp_sum(aa));
    bb = sqrt(warp_sum(bb));
    return {aa, bb, warp_sum(ab) / (aa * bb)};
}

template <class T> __global__ void __launch_bounds__(WARP) cosine(const T *a, const T *b, float *y, int64_t c)
{
    const int64_t row = blockIdx.x;
    const norms n = measure(a + row * c, b + row * c, c);
    if (threadIdx.x == 0)
        y[row] = float(n.cosine);
}

template <class T>
__global__ void __launch_bounds__(WARP)
    cosine_gradient(const T *a, const T *b, const float *dy, T *da, bool accumulate, int64_t c)
{
    const int64_t row = blockIdx.x;
    a += row * c;
    b += row * c;
    const norms n = measure(a, b, c);
    const double d = double(dy[row]) / n.a;
    for (int64_t i = threadIdx.x; i < c; i += WARP) {
        float v[1] = {float(d * (double(widen(b[i])) / n.b - n.cosine * double(widen(a[i])) / n.a))};
        put<1>(da + row * c + i, accumulate, v);
    }
}

template <class T>
__global__ void __launch_bounds__(WARP)
    lpips_stage(const T *x, const float *linear, float *out, int64_t positions, int64_t c)
{
    const int64_t row = blockIdx.x;
    double square = 0;
    for (int64_t i = threadIdx.x; i < c; i += WARP) {
        const double v = double(widen(x[row * c + i]));
        square += v * v;
    }
    const double norm = sqrt(warp_sum(square)) + 1e-10;
    for (int64_t i = threadIdx.x; i < c; i += WARP)
        out[row * c + i] = float(double(widen(x[row * c + i])) / norm) * sqrtf(linear[i] / float(positions));
}

/* Grid (n, n): the blocks under the diagonal measure, and write both places; those above have nothing to do. */
__global__ void __launch_bounds__(LONG_BLOCK)
    pair_distance(const float *vectors, float *distance, int64_t n, int64_t length)
{
    const int64_t i = blockIdx.y, j = blockIdx.x;
    if (j > i)
        return;
    double sum = 0;
    if (j < i)
        for (int64_t k = threadIdx.x; k < length; k += LONG_BLOCK) {
            const double d = double(vectors[i * length + k]) - double(vectors[j * length + k]);
            sum += d * d;
        }
    sum = long_block_sum(sum);
    if (threadIdx.x == 0)
        distance[i * n + j] = distance[j * n + i] = float(sum);
}
} // namespace

size_t draft_cuda_sum_rows_scratch(const struct draft_cuda_rows *r)
{
    return size_t(r->b) * most_chunks_of(r->rows, r->c, COLUMN_CHUNKS) * size_t(r->c) * sizeof(float);
}

void draft_cuda_sum_rows(draft_cuda_stream stream, enum draft_dtype type, enum draft_dtype sum_type,
                         const struct draft_cuda_rows *r, const void *x, struct draft_cuda_gradient sum, void *scratch)
{
    float *parts = static_cast<float *>(scratch);
    int64_t chunks = 0;
    with_vectors(type, {r->c, r->x_stride, r->b_stride}, {x}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        const column_layout l = run_column_sums<WIDTH_OF(w)>(
            stream, r->b, r->rows, r->c, row_sums<T, WIDTH_OF(w)>{as<T>(x), r->x_stride, r->b_stride}, parts,
            static_cast<float *>(nullptr), 1);
        chunks = l.chunks;
    });
    with_type(sum_type, [&](auto t) {
        using T = TYPE_OF(t);
        run_column_each<1>(stream, 1, r->b, r->c, chunks_added<T>{parts, as<T>(sum.to), chunks, r->c, sum.accumulate});
    });
}

size_t draft_cuda_mean_scratch(int64_t n)
{
    return long_sum_scratch(n);
}

void draft_cuda_mean(draft_cuda_stream stream, enum draft_dtype type, int64_t n, const void *x, float *y, void *scratch)
{
    with_type(type, [&](auto t) {
        run_long_sum(stream, n, value_of<TYPE_OF(t)>{as<TYPE_OF(t)>(x)}, mean_of{y, n}, scratch);
    });
}

void draft_cuda_mean_backward(draft_cuda_stream stream, enum draft_dtype type, int64_t n, const float *dy,
                              struct draft_cuda_gradient dx)
{
    with_type(type, [&](auto t) {
        using T = TYPE_OF(t);
        run_each(stream, n, mean_gradient<T>{dy, as<T>(dx.to), n, dx.accumulate});
    });
}

void draft_cuda_mean_square_difference(draft_cuda_stream stream, enum draft_dtype type, int64_t n, const void *a,
                                       const void *b, float *y, void *scratch)
{
    with_type(type, [&](auto t) {
        using T = TYPE_OF(t);
        run_long_sum(stream, n, square_difference<T>{as<T>(a), as<T>(b)}, mean_of{y, n}, scratch);
    });
}

void draft_cuda_mean_square_difference_backward(draft_cuda_stream stream, enum draft_dtype type, int64_t n,
                                                const void *a, const void *b, const float *dy,
                                                struct draft_cuda_gradient da)
{
    with_type(type, [&](auto t) {
        using T = TYPE_OF(t);
        run_each(stream, n,
                 square_difference_gradient<T>{as<T>(a), as<T>(b), dy, as<T>(da.to), 2.0f / float(n), da.accumulate});
    });
}

void draft_cuda_cosine(draft_cuda_stream stream, enum draft_dtype type, int64_t rows, int64_t c, const void *a,
                       const void *b, float *y)
{
    with_type(type, [&](auto t) {
        using T = TYPE_OF(t);
        launch(cosine<T>, unsigned(rows), WARP, 0, stream, as<T>(a), as<T>(b), y, c);
    });
}

void draft_cuda_cosine_backward(draft_cuda_stream stream, enum draft_dtype type, int64_t rows, int64_t c, const void *a,
                                const void *b, const float *dy, struct draft_cuda_gradient da)
{
    with_type(type, [&](auto t) {
        using T = TYPE_OF(t);
        launch(cosine_gradient<T>, unsigned(rows), WARP, 0, stream, as<T>(a), as<T>(b), dy, as<T>(da.to), da.accumulate,
               c);
    });
}

void draft_cuda_lpips_stage(draft_cuda_stream stream, enum draft_dtype type, int64_t positions, int64_t c,
                            const void *x, const float *linear, float *out)
{
    with_type(type, [&](auto t) {
        using T = TYPE_OF(t);
        launch(lpips_stage<T>, unsigned(positions), WARP, 0, stream, as<T>(x), linear, out, positions, c);
    });
}

void draft_cuda_pair_distances(draft_cuda_stream stream, int64_t n, int64_t length, const float *vectors,
                               float *distance)
{
    launch(pair_distance, dim3(unsigned(n), unsigned(n)), LONG_BLOCK, LONG_SHARED, stream, vectors, distance, n,
           length);
}
