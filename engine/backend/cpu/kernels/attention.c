/* The row work of attention between its matrix products. */
#include "backend/cpu/kernels/kernels_isa.h"

#define IVDEP _Pragma("GCC ivdep")

INLINE v4 larger(v4 a, v4 b)
{
    typedef int32_t v4i __attribute__((vector_size(16)));
    v4i m = a > b;
    return (v4)((m & (v4i)a) | (~m & (v4i)b));
}

INLINE float max_lanes(vf v)
{
#if defined(__AVX512F__)
    v4 q = larger(larger(__builtin_shufflevector(v, v, 0, 1, 2, 3), __builtin_shufflevector(v, v, 4, 5, 6, 7)),
                  larger(__builtin_shufflevector(v, v, 8, 9, 10, 11), __builtin_shufflevector(v, v, 12, 13, 14, 15)));
#elif defined(__AVX2__)
    v4 q = larger(__builtin_shufflevector(v, v, 0, 1, 2, 3), __builtin_shufflevector(v, v, 4, 5, 6, 7));
#else
    v4 q = v;
#endif
    q = larger(q, __builtin_shufflevector(q, q, 2, 3, 0, 1));
    return q[0] > q[1] ? q[0] : q[1];
}

/* A NaN among the scores must reach the output: the comparisons below pass over it, exp does not. */
void ISA(softmax_rows)(int64_t rows, int64_t padded, int64_t step, const int64_t *limit, float *s, float *maximum,
                       float *sum, float *factor)
{
    for (int64_t r = 0; r < rows; r++) {
        float *row = s + r * step;
        int64_t n = limit[r], whole = n / VL * VL;
        float top = maximum[r], before = top;
        vf tops = (vf){0} + top, total = {0};
        for (int64_t i = 0; i < whole; i += VL) {
            vf x = load(row + i);
            tops = choose(x > tops, x, tops);
        }
        top = max_lanes(tops);
        for (int64_t i = whole; i < n; i++)
            top = row[i] > top ? row[i] : top;
        factor[r] = top > before ? fast_exp(before - top) : 1.0f;
        maximum[r] = top;
        for (int64_t i = 0; i < whole; i += VL) {
            vf e = vector_exp(load(row + i) - top);
            store(row + i, e);
            total += e;
        }
        float rest = 0.0f;
        for (int64_t i = whole; i < n; i++)
            rest += row[i] = fast_exp(row[i] - top);
        for (int64_t i = n; i < padded; i++)
            row[i] = 0.0f;
        sum[r] = sum[r] * factor[r] + (sum_lanes(total) + rest);
    }
}

void ISA(softmax_backward_rows)(int64_t rows, int64_t padded, int64_t step, const int64_t *limit, float *s, float *dp,
                                const float *lse, const float *delta)
{
    for (int64_t r = 0; r < rows; r++) {
        float *p = s + r * step, *ds = dp + r * step;
        int64_t n = limit[r], whole = n / VL * VL;
        float l = lse[r], d = delta[r];
        for (int64_t i = 0; i < whole; i += VL) {
            vf e = vector_exp(load(p + i) - l);
            store(p + i, e);
            store(ds + i, e * (load(ds + i) - d));
        }
        for (int64_t i = whole; i < n; i++) {
            p[i] = fast_exp(p[i] - l);
            ds[i] = p[i] * (ds[i] - d);
        }
        for (int64_t i = n; i < padded; i++)
            p[i] = ds[i] = 0.0f;
    }
}

void ISA(scale_rows)(int64_t rows, int64_t c, int64_t step, const float *factor, float *y)
{
    for (int64_t r = 0; r < rows; r++) {
        float *out = y + r * step, f = factor[r];
        if (f == 1.0f)
            continue;
        IVDEP for (int64_t i = 0; i < c; i++) out[i] *= f;
    }
}

void ISA(move_rows)(int64_t rows, int64_t c, const float *x, int64_t x_step, const float *factor, float *y,
                    int64_t y_step, bool accumulate)
{
    for (int64_t r = 0; r < rows; r++) {
        const float *in = x + r * x_step;
        float *out = y + r * y_step, f = factor ? factor[r] : 1.0f;
        if (accumulate) {
            IVDEP for (int64_t i = 0; i < c; i++) out[i] += f * in[i];
        } else {
            IVDEP for (int64_t i = 0; i < c; i++) out[i] = f * in[i];
        }
    }
}

void ISA(row_dots)(int64_t rows, int64_t c, const float *a, const float *b, int64_t step, float *dot)
{
    for (int64_t r = 0; r < rows; r++) {
        const float *x = a + r * step, *y = b + r * step;
        int64_t i = 0;
        vf total = {0};
        for (; i + VL <= c; i += VL)
            total += load(x + i) * load(y + i);
        float rest = 0.0f;
        for (; i < c; i++)
            rest += x[i] * y[i];
        dot[r] = sum_lanes(total) + rest;
    }
}
