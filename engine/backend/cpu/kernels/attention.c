/* The row work of attention between its matrix products. */
#include "backend/cpu/kernels/kernels_isa.h"

#define IVDEP _Pragma("GCC ivdep")

/* A NaN among the scores must reach the output: the comparisons below pass over it, exp does not. */
void ISA(softmax_rows)(int64_t rows, int64_t padded, int64_t step, const int64_t *limit, float *s, float *maximum,
                       float *sum, float *factor)
{
    for (int64_t r = 0; r < rows; r++) {
        float *row = s + r * step;
        int64_t n = limit[r], i = 0;
        float top = maximum[r];
        float lane[VL];
        for (int l = 0; l < VL; l++)
            lane[l] = top;
        for (; i + VL <= n; i += VL)
            for (int l = 0; l < VL; l++)
                lane[l] = row[i + l] > lane[l] ? row[i + l] : lane[l];
        for (; i < n; i++)
            top = row[i] > top ? row[i] : top;
        for (int l = 0; l < VL; l++)
            top = lane[l] > top ? lane[l] : top;
        factor[r] = n > 0 ? expf(maximum[r] - top) : 1.0f;
        maximum[r] = top;
        IVDEP for (int64_t j = 0; j < n; j++) row[j] = fast_exp(row[j] - top);
        for (int64_t j = n; j < padded; j++)
            row[j] = 0.0f;
        vf total = {0};
        for (i = 0; i + VL <= n; i += VL)
            total += load(row + i);
        if (i < n)
            total += load_part(row + i, n - i);
        sum[r] = sum[r] * factor[r] + sum_lanes(total);
    }
}

void ISA(softmax_backward_rows)(int64_t rows, int64_t padded, int64_t step, const int64_t *limit, float *s, float *dp,
                                const float *lse, const float *delta)
{
    for (int64_t r = 0; r < rows; r++) {
        float *p = s + r * step, *ds = dp + r * step;
        int64_t n = limit[r];
        float l = lse[r], d = delta[r];
        IVDEP for (int64_t j = 0; j < n; j++)
        {
            float e = fast_exp(p[j] - l);
            p[j] = e;
            ds[j] = e * (ds[j] - d);
        }
        for (int64_t j = n; j < padded; j++)
            p[j] = ds[j] = 0.0f;
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
