/*
 * Element by element: activations, GEGLU, weighted sums, clamps, and the arithmetic of a sampler's step. Each reads its
 * inputs once and writes once: 2 tensors for a map, 3 for a sum or a map's gradient, one more where a gradient is added
 * to; GEGLU reads 2c and writes c a row, backward reads 3c and writes 2c (the 4c output is computed again, never kept).
 * In place is allowed where cuda.h says so: every element is read before it is written, by the same thread.
 */
#include "backend/cuda/kernels/columns.cuh"

uint64_t draft_cuda_launches;

namespace
{
/* y = f(x); f is told the number of the first element too, for functions of the channel. */
template <class T, int W, class F> struct unary {
    const T *x;
    T *y;
    F f;

    __device__ void operator()(int64_t i) const
    {
        float v[W];
        load<W>(x + i * W, v);
        f.template all<W>(i * W, v);
        store<W>(y + i * W, v);
    }
};

/* dx = f(x, dy) (+ dx) */
template <class T, int W, class F> struct gradient {
    const T *x, *dy;
    T *dx;
    bool accumulate;
    F f;

    __device__ void operator()(int64_t i) const
    {
        float v[W], d[W];
        load<W>(x + i * W, v);
        load<W>(dy + i * W, d);
        for (int k = 0; k < W; k++)
            d[k] = f(v[k], d[k]);
        put<W>(dx + i * W, accumulate, d);
    }
};

template <class F> void run_unary(cudaStream_t stream, enum draft_dtype type, int64_t n, const void *x, void *y, F f)
{
    with_vectors(type, {n}, {x, y}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        run_each(stream, n / WIDTH_OF(w), unary<T, WIDTH_OF(w), F>{as<T>(x), as<T>(y), f});
    });
}

template <class F>
void run_gradient(cudaStream_t stream, enum draft_dtype type, int64_t n, const void *x, const void *dy,
                  struct draft_cuda_gradient dx, F f)
{
    with_vectors(type, {n}, {x, dy, dx.to}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        run_each(stream, n / WIDTH_OF(w),
                 gradient<T, WIDTH_OF(w), F>{as<T>(x), as<T>(dy), as<T>(dx.to), dx.accumulate, f});
    });
}

/* --- Functions ---------------------------------------------------------------------------------------------------- */

/* The kind is the same for every thread: a branch on it costs nothing next to memory, a kernel for each would cost
 * code. */
const float QUICK = 1.702f; /* quick_gelu: x sigmoid(1.702 x) */

struct map_value {
    enum draft_map map;

    __device__ float operator()(float v) const
    {
        switch (map) {
        case DRAFT_MAP_SILU:
            return v * sigmoid(v);
        case DRAFT_MAP_GELU:
            return v * normal_cdf(v);
        case DRAFT_MAP_QUICK_GELU:
            return v * sigmoid(QUICK * v);
        default:
            return v < 0.0f ? 0.0f : v; /* NaN stays NaN */
        }
    }
    template <int W> __device__ void all(int64_t, float (&v)[W]) const
    {
        for (int k = 0; k < W; k++)
            v[k] = (*this)(v[k]);
    }
};

struct map_slope {
    enum draft_map map;

    __device__ float operator()(float v, float dy) const
    {
        switch (map) {
        case DRAFT_MAP_SILU:
            return dy * silu_slope(v);
        case DRAFT_MAP_GELU:
            return dy * (normal_cdf(v) + v * normal_density(v));
        case DRAFT_MAP_QUICK_GELU: {
            const float s = sigmoid(QUICK * v);
            return dy * (s * (1.0f + QUICK * v * (1.0f - s)));
        }
        default:
            return v > 0.0f ? dy : 0.0f;
        }
    }
};

struct clamp_value {
    struct draft_cuda_clamp a;

    template <int W> __device__ void all(int64_t, float (&v)[W]) const
    {
        for (int k = 0; k < W; k++) {
            const float scaled = a.scale * v[k] + a.shift, above = scaled < a.lo ? a.lo : scaled;
            v[k] = above > a.hi ? a.hi : above;
        }
    }
};

struct clamp_slope {
    struct draft_cuda_clamp a;

    __device__ float operator()(float v, float dy) const
    {
        const float scaled = a.scale * v + a.shift;
        return scaled >= a.lo && scaled <= a.hi ? a.scale * dy : 0.0f;
    }
};

/* (v - mean) / std by channel; backward is the same without the mean. */
struct channel_scale {
    float mean[DRAFT_CUDA_MAX_CHANNELS], std[DRAFT_CUDA_MAX_CHANNELS];
    int channels;

    channel_scale(int64_t c, const float *m, const float *s) : mean(), std(), channels(int(c))
    {
        assert(c >= 1 && c <= DRAFT_CUDA_MAX_CHANNELS);
        for (int i = 0; i < channels; i++) {
            mean[i] = m ? m[i] : 0.0f;
            std[i] = s[i];
        }
    }
    template <int W> __device__ void all(int64_t first, float (&v)[W]) const
    {
        int c = int(first % channels);
        for (int k = 0; k < W; k++) {
            v[k] = (v[k] - mean[c]) / std[c];
            c = c + 1 < channels ? c + 1 : 0;
        }
    }
};

template <class T, int W> struct channel_scale_gradient {
    channel_scale scale;
    const T *dy;
    T *dx;
    bool accumulate;

    __device__ void operator()(int64_t i) const
    {
        float d[W];
        load<W>(dy + i * W, d);
        scale.all<W>(i * W, d);
        put<W>(dx + i * W, accumulate, d);
    }
};

/* alpha a + beta b (+ y) */
template <class T, int W> struct weighted_pair {
    const T *a, *b;
    float alpha, beta;
    T *y;
    bool accumulate;

    __device__ void operator()(int64_t i) const
    {
        float v[W], other[W];
        load<W>(a + i * W, v);
        for (int k = 0; k < W; k++)
            v[k] *= alpha;
        if (b) {
            load<W>(b + i * W, other);
            for (int k = 0; k < W; k++)
                v[k] += beta * other[k];
        }
        put<W>(y + i * W, accumulate, v);
    }
};

template <class T, int W> struct added_to_rows {
    const T *x, *b;
    T *y;
    int64_t c;

    struct columns {
        float b[W];

        __device__ columns(const added_to_rows &f, int64_t, int64_t column)
        {
            load<W>(f.b + column, b);
        }
    };
    __device__ void operator()(const columns &at, int64_t, int64_t row, int64_t column) const
    {
        const int64_t i = row * c + column;
        float v[W];
        load<W>(x + i, v);
        for (int k = 0; k < W; k++)
            v[k] += at.b[k];
        store<W>(y + i, v);
    }
};

/* --- GEGLU: x [rows, 2c] = (a, b) --------------------------------------------------------------------------------- */

template <class T, int W> struct geglu_forward {
    using columns = no_columns;
    const T *x;
    T *y;
    int64_t c, y_stride;

    __device__ void operator()(const columns &, int64_t, int64_t row, int64_t column) const
    {
        float a[W], b[W];
        load<W>(x + row * 2 * c + column, a);
        load<W>(x + (row * 2 + 1) * c + column, b);
        for (int k = 0; k < W; k++)
            a[k] *= b[k] * normal_cdf_for<T>(b[k]);
        store<W>(y + row * y_stride + column, a);
    }
};

template <class T, int W> struct geglu_gradient {
    using columns = no_columns;
    const T *x, *dy;
    T *dx;
    int64_t c;
    bool accumulate;

    __device__ void operator()(const columns &, int64_t, int64_t row, int64_t column) const
    {
        const int64_t at_a = row * 2 * c + column, at_b = at_a + c;
        float a[W], b[W], d[W];
        load<W>(x + at_a, a);
        load<W>(x + at_b, b);
        load<W>(dy + row * c + column, d);
        for (int k = 0; k < W; k++) {
            const float p = normal_cdf_for<T>(b[k]), slope = p + b[k] * normal_density(b[k]);
            const float da = d[k] * b[k] * p, db = d[k] * a[k] * slope;
            a[k] = da;
            b[k] = db;
        }
        put<W>(dx + at_a, accumulate, a);
        put<W>(dx + at_b, accumulate, b);
    }
};

/* --- A sampler's step --------------------------------------------------------------------------------------------- */

struct combined {
    const float *alpha, *a, *beta, *b;
    float *y;
    bool accumulate;

    __device__ void operator()(int64_t i) const
    {
        float v = *alpha * a[i];
        if (b)
            v += *beta * b[i];
        y[i] = accumulate ? y[i] + v : v;
    }
};
} // namespace

void draft_cuda_map(draft_cuda_stream stream, enum draft_dtype type, enum draft_map map, int64_t n, const void *x,
                    void *y)
{
    run_unary(stream, type, n, x, y, map_value{map});
}

void draft_cuda_map_backward(draft_cuda_stream stream, enum draft_dtype type, enum draft_map map, int64_t n,
                             const void *x, const void *dy, struct draft_cuda_gradient dx)
{
    run_gradient(stream, type, n, x, dy, dx, map_slope{map});
}

void draft_cuda_geglu(draft_cuda_stream stream, enum draft_dtype type, int64_t rows, int64_t c, const void *x, void *y,
                      int64_t y_stride)
{
    with_vectors(type, {c, y_stride}, {x, y}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        run_column_each<WIDTH_OF(w)>(stream, 1, rows, c,
                                     geglu_forward<T, WIDTH_OF(w)>{as<T>(x), as<T>(y), c, y_stride});
    });
}

void draft_cuda_geglu_backward(draft_cuda_stream stream, enum draft_dtype type, int64_t rows, int64_t c, const void *x,
                               const void *dy, struct draft_cuda_gradient dx)
{
    with_vectors(type, {c}, {x, dy, dx.to}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        run_column_each<WIDTH_OF(w)>(
            stream, 1, rows, c, geglu_gradient<T, WIDTH_OF(w)>{as<T>(x), as<T>(dy), as<T>(dx.to), c, dx.accumulate});
    });
}

void draft_cuda_axpby(draft_cuda_stream stream, enum draft_dtype type, int64_t n, float alpha, const void *a,
                      float beta, const void *b, struct draft_cuda_gradient y)
{
    with_vectors(type, {n}, {a, b, y.to}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        run_each(stream, n / WIDTH_OF(w),
                 weighted_pair<T, WIDTH_OF(w)>{as<T>(a), as<T>(b), alpha, beta, as<T>(y.to), y.accumulate});
    });
}

void draft_cuda_add_to_rows(draft_cuda_stream stream, enum draft_dtype type, int64_t rows, int64_t c, const void *x,
                            const void *b, void *y)
{
    with_vectors(type, {c}, {x, b, y}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        run_column_each<WIDTH_OF(w)>(stream, 1, rows, c,
                                     added_to_rows<T, WIDTH_OF(w)>{as<T>(x), as<T>(b), as<T>(y), c});
    });
}

void draft_cuda_scale_clamp(draft_cuda_stream stream, enum draft_dtype type, int64_t n, struct draft_cuda_clamp clamp,
                            const void *x, void *y)
{
    run_unary(stream, type, n, x, y, clamp_value{clamp});
}

void draft_cuda_scale_clamp_backward(draft_cuda_stream stream, enum draft_dtype type, int64_t n,
                                     struct draft_cuda_clamp clamp, const void *x, const void *dy,
                                     struct draft_cuda_gradient dx)
{
    run_gradient(stream, type, n, x, dy, dx, clamp_slope{clamp});
}

void draft_cuda_normalize_channels(draft_cuda_stream stream, enum draft_dtype type, int64_t rows, int64_t c,
                                   const float *mean, const float *std, const void *x, void *y)
{
    run_unary(stream, type, rows * c, x, y, channel_scale(c, mean, std));
}

void draft_cuda_normalize_channels_backward(draft_cuda_stream stream, enum draft_dtype type, int64_t rows, int64_t c,
                                            const float *std, const void *dy, struct draft_cuda_gradient dx)
{
    const channel_scale scale(c, nullptr, std);
    with_vectors(type, {rows * c}, {dy, dx.to}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        run_each(stream, rows * c / WIDTH_OF(w),
                 channel_scale_gradient<T, WIDTH_OF(w)>{scale, as<T>(dy), as<T>(dx.to), dx.accumulate});
    });
}

void draft_cuda_combine(draft_cuda_stream stream, int64_t n, const float *alpha, const float *a, const float *beta,
                        const float *b, struct draft_cuda_gradient y)
{
    run_each(stream, n, combined{alpha, a, beta, b, as<float>(y.to), y.accumulate});
}
