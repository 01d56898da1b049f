/*
 * Pictures: nearest upsampling, pooling, resizing by tables. Every backward is a gather: a thread looks up which
 * outputs were made of its pixel, so that nothing needs to be cleared and every sum has one order. Each output is
 * written once; inputs that several outputs share come from the cache after the first.
 */
#include "backend/cuda/kernels/columns.cuh"

namespace
{
/* As PyTorch and ops/upsample_nearest.c compute it: in float. */
__device__ int64_t source(int64_t i, int64_t in, int64_t out)
{
    const int64_t s = int64_t(floorf(float(i) * (float(in) / float(out))));
    return s < in ? s : in - 1;
}

template <class T, int W> struct upsampled {
    using columns = no_columns;
    struct draft_cuda_image s;
    const T *x;
    T *y;

    __device__ void operator()(const columns &, int64_t n, int64_t row, int64_t column) const
    {
        const int64_t i = source(row / s.out_w, s.h, s.out_h), j = source(row % s.out_w, s.w, s.out_w);
        float v[W];
        load<W>(x + ((n * s.h + i) * s.w + j) * s.c + column, v);
        store<W>(y + (n * s.out_h * s.out_w + row) * s.c + column, v);
    }
};

/* The outputs that may have been read from source i: one more on either side than exact arithmetic says. */
struct candidates {
    int64_t begin, end;

    __device__ candidates(int64_t i, int64_t in, int64_t out)
    {
        begin = i * out / in - 1;
        end = (i + 1) * out / in + 2;
        begin = begin > 0 ? begin : 0;
        end = i + 1 < in && end < out ? end : out;
    }
};

template <class T, int W> struct upsampled_gradient {
    using columns = no_columns;
    struct draft_cuda_image s;
    const T *dy;
    T *dx;
    bool accumulate;

    __device__ void operator()(const columns &, int64_t n, int64_t row, int64_t column) const
    {
        const int64_t y = row / s.w, x = row % s.w;
        const candidates rows(y, s.h, s.out_h), across(x, s.w, s.out_w);
        float sum[W] = {}, v[W];
        for (int64_t i = rows.begin; i < rows.end; i++)
            for (int64_t j = across.begin; j < across.end; j++)
                if (source(i, s.h, s.out_h) == y && source(j, s.w, s.out_w) == x) {
                    load<W>(dy + ((n * s.out_h + i) * s.out_w + j) * s.c + column, v);
                    for (int k = 0; k < W; k++)
                        sum[k] += v[k];
                }
        put<W>(dx + (n * s.h * s.w + row) * s.c + column, accumulate, sum);
    }
};

template <class T, int W> struct pooled {
    using columns = no_columns;
    struct draft_cuda_image s;
    int64_t window, stride;
    const T *x;
    T *y;

    __device__ void operator()(const columns &, int64_t n, int64_t row, int64_t column) const
    {
        const T *corner = x + ((n * s.h + row / s.out_w * stride) * s.w + row % s.out_w * stride) * s.c + column;
        float most[W], v[W];
        load<W>(corner, most);
        for (int64_t p = 0; p < window; p++)
            for (int64_t q = 0; q < window; q++) {
                load<W>(corner + (p * s.w + q) * s.c, v);
                for (int k = 0; k < W; k++)
                    most[k] = v[k] > most[k] || v[k] != v[k] ? v[k] : most[k];
            }
        store<W>(y + (n * s.out_h * s.out_w + row) * s.c + column, most);
    }
};

/* A row is one destination of one line; columns are what lies inside of the axis. */
template <class From, class To> struct resampled {
    using columns = no_columns;
    struct draft_cuda_taps taps;
    int64_t in, inner;
    const From *from;
    To *to;
    bool accumulate;

    __device__ void operator()(const columns &, int64_t, int64_t row, int64_t column) const
    {
        const int64_t i = row % taps.out;
        const From *p = from + (row / taps.out * in + taps.first[i]) * inner + column;
        float sum[1] = {accumulate ? widen(to[row * inner + column]) : 0.0f};
        for (int32_t j = 0; j < taps.count[i]; j++)
            sum[0] += taps.weight[i * taps.width + j] * widen(p[j * inner]);
        store<1>(to + row * inner + column, sum);
    }
};
} // namespace

void draft_cuda_upsample_nearest(draft_cuda_stream stream, enum draft_dtype type, const struct draft_cuda_image *image,
                                 const void *x, void *y)
{
    with_vectors(type, {image->c}, {x, y}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        run_column_each<WIDTH_OF(w)>(stream, image->n, image->out_h * image->out_w, image->c,
                                     upsampled<T, WIDTH_OF(w)>{*image, as<T>(x), as<T>(y)});
    });
}

void draft_cuda_upsample_nearest_backward(draft_cuda_stream stream, enum draft_dtype type,
                                          const struct draft_cuda_image *image, const void *dy,
                                          struct draft_cuda_gradient dx)
{
    with_vectors(type, {image->c}, {dy, dx.to}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        run_column_each<WIDTH_OF(w)>(
            stream, image->n, image->h * image->w, image->c,
            upsampled_gradient<T, WIDTH_OF(w)>{*image, as<T>(dy), as<T>(dx.to), dx.accumulate});
    });
}

void draft_cuda_max_pool(draft_cuda_stream stream, enum draft_dtype type, const struct draft_cuda_image *image,
                         int64_t window, int64_t stride, const void *x, void *y)
{
    with_vectors(type, {image->c}, {x, y}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        run_column_each<WIDTH_OF(w)>(stream, image->n, image->out_h * image->out_w, image->c,
                                     pooled<T, WIDTH_OF(w)>{*image, window, stride, as<T>(x), as<T>(y)});
    });
}

void draft_cuda_resample(draft_cuda_stream stream, enum draft_dtype from_type, enum draft_dtype to_type,
                         const struct draft_cuda_taps *taps, int64_t outer, int64_t in, int64_t inner, const void *from,
                         struct draft_cuda_gradient to)
{
    with_type(from_type, [&](auto f) {
        with_type(to_type, [&](auto t) {
            using From = TYPE_OF(f);
            using To = TYPE_OF(t);
            run_column_each<1>(stream, 1, outer * taps->out, inner,
                               resampled<From, To>{*taps, in, inner, as<From>(from), as<To>(to.to), to.accumulate});
        });
    });
}
