/* The row work of attention between its matrix products. */
#include "backend/cpu/kernels/kernels_isa.h"

#define IVDEP _Pragma("GCC ivdep")

/* A NaN among the scores must reach the output: the comparisons below may pass over it, 2^x does not. */
INLINE void softmax_lanes(int64_t keys, int vectors, float *s, float *maximum, float *sum, float *factor)
{
    vf top[2], total[2];
    for (int v = 0; v < vectors; v++) {
        top[v] = load(maximum + v * VL);
        total[v] = (vf){0};
    }
    for (int64_t i = 0; i < keys; i++)
        for (int v = 0; v < vectors; v++)
            top[v] = larger(load(s + i * NR + v * VL), top[v]);
    for (int64_t i = 0; i < keys; i++)
        for (int v = 0; v < vectors; v++) {
            vf e = vector_exp2(load(s + i * NR + v * VL) - top[v]);
            store(s + i * NR + v * VL, e);
            total[v] += e;
        }
    for (int v = 0; v < vectors; v++) {
        vf f = vector_exp2(load(maximum + v * VL) - top[v]);
        store(factor + v * VL, f);
        store(maximum + v * VL, top[v]);
        store(sum + v * VL, load(sum + v * VL) * f + total[v]);
    }
}

void ISA(softmax_panel)(int64_t keys, int64_t columns, float *s, float *maximum, float *sum, float *factor)
{
    if (columns > VL)
        softmax_lanes(keys, 2, s, maximum, sum, factor);
    else
        softmax_lanes(keys, 1, s, maximum, sum, factor);
}

void ISA(scale_panel)(int64_t rows, int64_t columns, const float *factor, float *y)
{
    bool same = true;
    for (int64_t i = 0; i < columns; i++)
        same &= factor[i] == 1.0f;
    for (int64_t r = 0; r < rows && !same; r++)
        for (int64_t i = 0; i < columns; i += VL)
            store(y + r * NR + i, load(y + r * NR + i) * load(factor + i));
}

void ISA(turn_panel)(int64_t rows, int64_t lanes, const float *panel, int64_t ldp, const float *factor, float *y,
                     int64_t y_step, bool accumulate)
{
    int64_t whole = rows / 4 * 4, quads = lanes / 4 * 4;
    for (int64_t l = 0; l < lanes; l++) {
        float f = factor ? factor[l] : 1.0f, *out = y + l * y_step;
        for (int64_t c = l < quads ? whole : 0; c < rows; c++)
            out[c] = f * panel[c * ldp + l] + (accumulate ? out[c] : 0.0f);
    }
    for (int64_t l = 0; l < quads; l += 4)
        for (int64_t c = 0; c < whole; c += 4) {
            v4 turned[4];
            turn_four(panel + c * ldp + l, ldp, turned);
            for (int i = 0; i < 4; i++) {
                float f = factor ? factor[l + i] : 1.0f;
                v4u *out = (v4u *)(y + (l + i) * y_step + c);
                *out = accumulate ? f * turned[i] + *out : f * turned[i];
            }
        }
}

void ISA(softmax_backward_rows)(int64_t rows, int64_t columns, int64_t step, const int64_t *limit, float *s, float *dp,
                                const float *lse, const float *delta)
{
    for (int64_t r = 0; r < rows; r++) {
        float *p = s + r * step, *ds = dp + r * step;
        float l = lse[r], d = delta[r];
        for (int64_t i = 0; i < columns; i += VL) {
            vf e = vector_exp2(load(p + i) - l);
            store(p + i, e);
            store(ds + i, e * (load(ds + i) - d));
        }
        for (int64_t i = limit[r]; i < columns; i++)
            p[i] = ds[i] = 0.0f;
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
