/*
 * Moving numbers without arithmetic: types, windows of larger arrays (concatenation, slices, crop, pad), tokens,
 * tables, patches. Each number is read once and written once; what a paste clears is written once and never read.
 */
#include "backend/cuda/kernels/columns.cuh"

namespace
{
enum { CONVERTED = 4 }; /* a thread: 16 bytes of F32, 8 of bf16 */

template <class From, class To, int W> struct converted {
    const From *from;
    To *to;
    bool accumulate;

    __device__ void operator()(int64_t i) const
    {
        float v[W];
        load<W>(from + i * W, v);
        put<W>(to + i * W, accumulate, v);
    }
};

/* A thread's share of a matrix, every `step`-th W numbers from `first` on. */
template <int W> __device__ void convert_matrix(const struct draft_cuda_conversion &a, int64_t first, int64_t step)
{
    __nv_bfloat16 *to = static_cast<__nv_bfloat16 *>(a.to);
    for (int64_t i = first; i < a.rows * a.c / W; i += step) {
        const int64_t row = i * W / a.c, column = i * W - row * a.c;
        float v[W];
        load<W>(a.from + i * W, v);
        store<W>(to + row * a.to_stride + column, v);
    }
}

template <int W> struct matrix_converted {
    struct draft_cuda_conversion a;

    __device__ void operator()(int64_t i) const
    {
        convert_matrix<W>(a, i, a.rows * a.c);
    }
};

/* Grid (parts of a matrix, matrices). */
template <int W>
__global__ void __launch_bounds__(EACH_BLOCK) matrices_converted(const struct draft_cuda_conversion *all)
{
    convert_matrix<W>(all[blockIdx.y], int64_t(blockIdx.x) * EACH_BLOCK + threadIdx.x, int64_t(gridDim.x) * EACH_BLOCK);
}

template <class T, int W> struct filled {
    T *to;
    float value;

    __device__ void operator()(int64_t i) const
    {
        float v[W];
        for (int k = 0; k < W; k++)
            v[k] = value;
        store<W>(to + i * W, v);
    }
};

/* --- Windows ------------------------------------------------------------------------------------------------------ */

template <class T, int W> struct cut {
    using columns = no_columns;
    struct draft_cuda_window at;
    const T *big;
    T *small;
    bool accumulate;

    __device__ void operator()(const columns &, int64_t n, int64_t row, int64_t column) const
    {
        float v[W];
        load<W>(big + (n * at.big_h + at.top + row) * at.big_w + at.left + column, v);
        put<W>(small + (n * at.h + row) * at.w + column, accumulate, v);
    }
};

/* Over the window; or with `clear` over all of big, W columns being in the window together or not at all. */
template <class T, int W> struct pasted {
    using columns = no_columns;
    struct draft_cuda_window at;
    const T *small;
    T *big;
    bool accumulate, clear;

    __device__ void operator()(const columns &, int64_t n, int64_t row, int64_t column) const
    {
        const int64_t i = clear ? row - at.top : row, j = clear ? column - at.left : column;
        float v[W] = {};
        if (i >= 0 && i < at.h && j >= 0 && j < at.w)
            load<W>(small + (n * at.h + i) * at.w + j, v);
        put<W>(big + (n * at.big_h + at.top + i) * at.big_w + at.left + j, accumulate, v);
    }
};

template <class T, int W> struct joined {
    using columns = no_columns;
    const T *a, *b;
    T *y;
    int64_t ca, cb;

    __device__ void operator()(const columns &, int64_t, int64_t row, int64_t column) const
    {
        float v[W];
        load<W>(column < ca ? a + row * ca + column : b + row * cb + column - ca, v);
        store<W>(y + row * (ca + cb) + column, v);
    }
};

/* One row, however long. */
template <class T, int W> struct joined_once {
    joined<T, W> all;

    __device__ void operator()(int64_t i) const
    {
        all(no_columns(all, 0, 0), 0, 0, i * W);
    }
};

/* --- Tokens and tables -------------------------------------------------------------------------------------------- */

template <class T, int W> struct token_prepended {
    using columns = no_columns;
    const T *token, *x;
    T *y;
    int64_t s, c;

    __device__ void operator()(const columns &, int64_t n, int64_t row, int64_t column) const
    {
        float v[W];
        load<W>(row == 0 ? token + column : x + (n * s + row - 1) * c + column, v);
        store<W>(y + (n * (s + 1) + row) * c + column, v);
    }
};

/* y[i] = x[i * block + index[i]]: a row of each sample (block: its rows), or of one table (block 0). */
template <class T, int W> struct rows_picked {
    using columns = no_columns;
    const int32_t *index;
    const T *x;
    T *y;
    int64_t block, c;

    __device__ void operator()(const columns &, int64_t, int64_t row, int64_t column) const
    {
        float v[W];
        load<W>(x + (row * block + (index ? index[row] : 0)) * c + column, v);
        store<W>(y + row * c + column, v);
    }
};

template <class T, int W> struct row_returned {
    using columns = no_columns;
    const int32_t *index;
    const T *dy;
    T *dx;
    int64_t s, c;
    bool accumulate;

    __device__ void operator()(const columns &, int64_t n, int64_t row, int64_t column) const
    {
        float v[W] = {};
        if (row == (index ? index[n] : 0))
            load<W>(dy + n * c + column, v);
        put<W>(dx + (n * s + row) * c + column, accumulate, v);
    }
};

/* A gather, so that a token that occurs often is summed in the order of the text. Every row looks through all ids: the
 * table is trained by nobody yet, and count is a few prompts. */
template <class T, int W> struct table_gradient {
    using columns = no_columns;
    const int32_t *ids;
    const T *dy;
    T *dtable;
    int64_t count, c;
    bool accumulate;

    __device__ void operator()(const columns &, int64_t, int64_t row, int64_t column) const
    {
        float sum[W] = {}, v[W];
        for (int64_t i = 0; i < count; i++)
            if (ids[i] == row) {
                load<W>(dy + i * c + column, v);
                for (int k = 0; k < W; k++)
                    sum[k] += v[k];
            }
        put<W>(dtable + row * c + column, accumulate, sum);
    }
};

/* --- Patches ------------------------------------------------------------------------------------------------------ */

/* Columns are (p, q, channel) of the weight; W of them share p and q. */
template <class T, int W> struct patch_column {
    int64_t p, q, channel;
    bool padding;

    template <class F> __device__ patch_column(const F &f, int64_t, int64_t column)
    {
        channel = column % f.s.c;
        q = column / f.s.c % f.s.kw;
        p = column / f.s.c / f.s.kw;
        padding = p >= f.s.kh;
    }
};

template <class T, int W> struct patches_taken {
    using columns = patch_column<T, W>;
    struct draft_conv_shape s;
    const T *x;
    T *patches;
    int64_t out_h, out_w, stride;

    __device__ void operator()(const columns &at, int64_t n, int64_t row, int64_t column) const
    {
        const int64_t i = row / out_w * s.stride + at.p - s.pad_top, j = row % out_w * s.stride + at.q - s.pad_left;
        float v[W] = {};
        if (!at.padding && i >= 0 && i < s.h && j >= 0 && j < s.w)
            load<W>(x + ((n * s.h + i) * s.w + j) * s.c + at.channel, v);
        store<W>(patches + (n * out_h * out_w + row) * stride + column, v);
    }
};

/* Over the pixels of x: all places of the window that hold this one. */
template <class T, int W> struct patches_returned {
    using columns = no_columns;
    struct draft_conv_shape s;
    const T *dpatches;
    T *dx;
    int64_t out_h, out_w, stride;
    bool accumulate;

    __device__ void operator()(const columns &, int64_t n, int64_t row, int64_t column) const
    {
        float sum[W] = {}, v[W];
        for (int64_t p = 0; p < s.kh; p++) {
            const int64_t i = row / s.w + s.pad_top - p;
            if (i < 0 || i % s.stride != 0 || i / s.stride >= out_h)
                continue;
            for (int64_t q = 0; q < s.kw; q++) {
                const int64_t j = row % s.w + s.pad_left - q;
                if (j < 0 || j % s.stride != 0 || j / s.stride >= out_w)
                    continue;
                load<W>(dpatches + ((n * out_h + i / s.stride) * out_w + j / s.stride) * stride + (p * s.kw + q) * s.c +
                            column,
                        v);
                for (int k = 0; k < W; k++)
                    sum[k] += v[k];
            }
        }
        put<W>(dx + (n * s.h * s.w + row) * s.c + column, accumulate, sum);
    }
};
} // namespace

void draft_cuda_convert(draft_cuda_stream stream, enum draft_dtype from_type, enum draft_dtype to_type, int64_t n,
                        const void *from, struct draft_cuda_gradient to)
{
    with_type(from_type, [&](auto f) {
        with_type(to_type, [&](auto t) {
            using From = TYPE_OF(f);
            using To = TYPE_OF(t);
            if (n % CONVERTED == 0 && aligned(from) && aligned(to.to))
                run_each(stream, n / CONVERTED,
                         converted<From, To, CONVERTED>{as<From>(from), as<To>(to.to), to.accumulate});
            else
                run_each(stream, n, converted<From, To, 1>{as<From>(from), as<To>(to.to), to.accumulate});
        });
    });
}

void draft_cuda_convert_matrices(draft_cuda_stream stream, const struct draft_cuda_conversion *at, int count,
                                 bool whole)
{
    const dim3 grid(64, unsigned(count));
    launch(whole ? matrices_converted<4> : matrices_converted<1>, grid, EACH_BLOCK, 0, stream, at);
}

void draft_cuda_convert_rows(draft_cuda_stream stream, const struct draft_cuda_conversion *one)
{
    run_each(stream, one->rows * one->c, matrix_converted<1>{*one});
}

void draft_cuda_fill(draft_cuda_stream stream, enum draft_dtype type, int64_t n, float value, void *to)
{
    with_vectors(type, {n}, {to}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        run_each(stream, n / WIDTH_OF(w), filled<T, WIDTH_OF(w)>{as<T>(to), value});
    });
}

void draft_cuda_cut(draft_cuda_stream stream, enum draft_dtype type, const struct draft_cuda_window *window,
                    const void *big, struct draft_cuda_gradient small)
{
    with_vectors(type, {window->w, window->left, window->big_w}, {big, small.to}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        run_column_each<WIDTH_OF(w)>(stream, window->n, window->h, window->w,
                                     cut<T, WIDTH_OF(w)>{*window, as<T>(big), as<T>(small.to), small.accumulate});
    });
}

void draft_cuda_paste(draft_cuda_stream stream, enum draft_dtype type, const struct draft_cuda_window *window,
                      const void *small, struct draft_cuda_gradient big, bool clear)
{
    const bool all = clear && !big.accumulate; /* nothing to clear where something is added to */
    with_vectors(type, {window->w, window->left, window->big_w}, {small, big.to}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        run_column_each<WIDTH_OF(w)>(stream, window->n, all ? window->big_h : window->h,
                                     all ? window->big_w : window->w,
                                     pasted<T, WIDTH_OF(w)>{*window, as<T>(small), as<T>(big.to), big.accumulate, all});
    });
}

void draft_cuda_join(draft_cuda_stream stream, enum draft_dtype type, int64_t rows, int64_t ca, int64_t cb,
                     const void *a, const void *b, void *y)
{
    with_vectors(type, {ca, cb}, {a, b, y}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        constexpr int W = WIDTH_OF(w);
        const joined<T, W> all{as<T>(a), as<T>(b), as<T>(y), ca, cb};
        if (rows == 1)
            run_each(stream, (ca + cb) / W, joined_once<T, W>{all});
        else
            run_column_each<W>(stream, 1, rows, ca + cb, all);
    });
}

void draft_cuda_prepend_token(draft_cuda_stream stream, enum draft_dtype type, int64_t n, int64_t s, int64_t c,
                              const void *token, const void *x, void *y)
{
    with_vectors(type, {c}, {token, x, y}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        run_column_each<WIDTH_OF(w)>(stream, n, s + 1, c,
                                     token_prepended<T, WIDTH_OF(w)>{as<T>(token), as<T>(x), as<T>(y), s, c});
    });
}

void draft_cuda_select_token(draft_cuda_stream stream, enum draft_dtype type, int64_t n, int64_t s, int64_t c,
                             const int32_t *index, const void *x, void *y)
{
    with_vectors(type, {c}, {x, y}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        run_column_each<WIDTH_OF(w)>(stream, 1, n, c, rows_picked<T, WIDTH_OF(w)>{index, as<T>(x), as<T>(y), s, c});
    });
}

void draft_cuda_select_token_backward(draft_cuda_stream stream, enum draft_dtype type, int64_t n, int64_t s, int64_t c,
                                      const int32_t *index, const void *dy, struct draft_cuda_gradient dx)
{
    with_vectors(type, {c}, {dy, dx.to}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        run_column_each<WIDTH_OF(w)>(stream, n, s, c,
                                     row_returned<T, WIDTH_OF(w)>{index, as<T>(dy), as<T>(dx.to), s, c, dx.accumulate});
    });
}

void draft_cuda_embedding(draft_cuda_stream stream, enum draft_dtype type, int64_t count, int64_t c, const int32_t *ids,
                          const void *table, void *y)
{
    with_vectors(type, {c}, {table, y}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        run_column_each<WIDTH_OF(w)>(stream, 1, count, c,
                                     rows_picked<T, WIDTH_OF(w)>{ids, as<T>(table), as<T>(y), 0, c});
    });
}

void draft_cuda_embedding_backward(draft_cuda_stream stream, enum draft_dtype type, int64_t count, int64_t vocabulary,
                                   int64_t c, const int32_t *ids, const void *dy, struct draft_cuda_gradient dtable)
{
    with_vectors(type, {c}, {dy, dtable.to}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        run_column_each<WIDTH_OF(w)>(
            stream, 1, vocabulary, c,
            table_gradient<T, WIDTH_OF(w)>{ids, as<T>(dy), as<T>(dtable.to), count, c, dtable.accumulate});
    });
}

void draft_cuda_patches(draft_cuda_stream stream, enum draft_dtype type, const struct draft_conv_shape *shape,
                        const void *x, int64_t stride, void *patches)
{
    const int64_t out_h = draft_conv_out_h(shape), out_w = draft_conv_out_w(shape);
    assert(stride >= shape->kh * shape->kw * shape->c);
    with_vectors(type, {shape->c, stride}, {x, patches}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        run_column_each<WIDTH_OF(w)>(
            stream, shape->n, out_h * out_w, stride,
            patches_taken<T, WIDTH_OF(w)>{*shape, as<T>(x), as<T>(patches), out_h, out_w, stride});
    });
}

void draft_cuda_patches_backward(draft_cuda_stream stream, enum draft_dtype type, const struct draft_conv_shape *shape,
                                 const void *dpatches, int64_t stride, struct draft_cuda_gradient dx)
{
    const int64_t out_h = draft_conv_out_h(shape), out_w = draft_conv_out_w(shape);
    with_vectors(type, {shape->c, stride}, {dpatches, dx.to}, [&](auto t, auto w) {
        using T = TYPE_OF(t);
        run_column_each<WIDTH_OF(w)>(stream, shape->n, shape->h * shape->w, shape->c,
                                     patches_returned<T, WIDTH_OF(w)>{*shape, as<T>(dpatches), as<T>(dx.to), out_h,
                                                                      out_w, stride, dx.accumulate});
    });
}
