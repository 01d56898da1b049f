/* Pieces of GroupNorm and LayerNorm on a few rows of channels; the drivers in backend/cpu/norm.c put them together. */
#include "backend/cpu/kernels/kernels_isa.h"

#define IVDEP _Pragma("GCC ivdep")

/* sum[c] over rows, four vectors of channels at a time so that the sums stay in registers. */
void ISA(sum_rows)(int64_t rows, int64_t c, const float *x, float *sum)
{
    int64_t i = 0;
    for (; i + 4 * VL <= c; i += 4 * VL) {
        vf s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
        for (int64_t r = 0; r < rows; r++) {
            const float *p = x + r * c + i;
            s0 += load(p);
            s1 += load(p + VL);
            s2 += load(p + 2 * VL);
            s3 += load(p + 3 * VL);
        }
        store(sum + i, s0);
        store(sum + i + VL, s1);
        store(sum + i + 2 * VL, s2);
        store(sum + i + 3 * VL, s3);
    }
    for (; i < c; i += VL) {
        int64_t n = c - i < VL ? c - i : VL;
        vf s = {0};
        for (int64_t r = 0; r < rows; r++)
            s += n == VL ? load(x + r * c + i) : load_part(x + r * c + i, n);
        store_part(sum + i, s, n);
    }
}

/* sum[c] of (x - shift)^2 */
static void sum_squares(int64_t rows, int64_t c, const float *x, const float *shift, float *sum)
{
    int64_t i = 0;
    for (; i + 2 * VL <= c; i += 2 * VL) {
        vf m0 = load(shift + i), m1 = load(shift + i + VL), s0 = {0}, s1 = {0};
        for (int64_t r = 0; r < rows; r++) {
            vf d0 = load(x + r * c + i) - m0, d1 = load(x + r * c + i + VL) - m1;
            s0 += d0 * d0;
            s1 += d1 * d1;
        }
        store(sum + i, s0);
        store(sum + i + VL, s1);
    }
    for (; i < c; i += VL) {
        int64_t n = c - i < VL ? c - i : VL;
        vf m = load_part(shift + i, n), s = {0};
        for (int64_t r = 0; r < rows; r++) {
            vf d = (n == VL ? load(x + r * c + i) : load_part(x + r * c + i, n)) - m;
            s += d * d;
        }
        store_part(sum + i, s, n);
    }
}

/* sum[c] of `repeat` rows lying side by side */
static void fold(int64_t c, int64_t repeat, float *sum)
{
    for (int64_t r = 1; r < repeat; r++)
        for (int64_t i = 0; i < c; i++)
            sum[i] += sum[r * c + i];
}

void ISA(group_moments)(int64_t rows, int64_t c, int64_t repeat, int64_t groups, const float *x, double *moments,
                        float *scratch)
{
    int64_t width = c / groups, wide = rows / repeat, rest = rows - wide * repeat;
    float *sum = scratch, *shift = sum + repeat * c, *rest_sum = shift + repeat * c;
    const float *rest_x = x + wide * repeat * c;
    ISA(sum_rows)(wide, repeat * c, x, sum);
    ISA(sum_rows)(rest, c, rest_x, rest_sum);
    fold(c, repeat, sum);
    for (int64_t g = 0; g < groups; g++) {
        double s = 0;
        for (int64_t i = g * width; i < (g + 1) * width; i++)
            s += (double)sum[i] + (double)rest_sum[i];
        moments[2 * g] = s / (double)(rows * width);
        for (int64_t i = g * width; i < (g + 1) * width; i++)
            shift[i] = (float)moments[2 * g];
    }
    for (int64_t r = 1; r < repeat; r++)
        memcpy(shift + r * c, shift, (size_t)c * sizeof(float));
    sum_squares(wide, repeat * c, x, shift, sum);
    sum_squares(rest, c, rest_x, shift, rest_sum);
    fold(c, repeat, sum);
    for (int64_t g = 0; g < groups; g++) {
        double s = 0;
        for (int64_t i = g * width; i < (g + 1) * width; i++)
            s += (double)sum[i] + (double)rest_sum[i];
        moments[2 * g + 1] = s;
    }
}

void ISA(norm_apply)(int64_t rows, int64_t c, const float *x, const float *mean, const float *scale, const float *beta,
                     bool silu, float *y)
{
    for (int64_t r = 0; r < rows; r++) {
        const float *in = x + r * c;
        float *out = y + r * c;
        if (silu) {
            IVDEP for (int64_t i = 0; i < c; i++)
            {
                float z = (in[i] - mean[i]) * scale[i] + beta[i];
                out[i] = z * sigmoid(z);
            }
        } else {
            IVDEP for (int64_t i = 0; i < c; i++) out[i] = (in[i] - mean[i]) * scale[i] + beta[i];
        }
    }
}

INLINE float through_silu(float z, float dy)
{
    float s = sigmoid(z);
    return dy * s * (1.0f + z * (1.0f - s));
}

void ISA(norm_sums)(int64_t rows, int64_t c, const float *x, const float *mean, const float *rstd, const float *gamma,
                    const float *beta, bool silu, const float *dy, float *dz, float *sums)
{
    float *sum = sums, *sum_hat = sums + c;
    memset(sums, 0, (size_t)(2 * c) * sizeof(float));
    for (int64_t r = 0; r < rows; r++) {
        const float *in = x + r * c, *g = dy + r * c;
        float *out = dz ? dz + r * c : NULL;
        if (silu && out) {
            IVDEP for (int64_t i = 0; i < c; i++)
            {
                float hat = (in[i] - mean[i]) * rstd[i];
                float d = through_silu(hat * gamma[i] + beta[i], g[i]);
                out[i] = d;
                sum[i] += d;
                sum_hat[i] += d * hat;
            }
        } else if (silu) {
            IVDEP for (int64_t i = 0; i < c; i++)
            {
                float hat = (in[i] - mean[i]) * rstd[i];
                float d = through_silu(hat * gamma[i] + beta[i], g[i]);
                sum[i] += d;
                sum_hat[i] += d * hat;
            }
        } else {
            IVDEP for (int64_t i = 0; i < c; i++)
            {
                sum[i] += g[i];
                sum_hat[i] += g[i] * ((in[i] - mean[i]) * rstd[i]);
            }
        }
    }
}

void ISA(norm_dx)(int64_t rows, int64_t c, const float *x, const float *mean, const float *rstd, const float *gamma,
                  const float *beta, bool silu, const float *dy, const float *a, const float *b, const float *k,
                  float *dx, bool accumulate)
{
    for (int64_t r = 0; r < rows; r++) {
        const float *in = x + r * c, *g = dy + r * c;
        float *out = dx + r * c;
        if (silu && accumulate) {
            IVDEP for (int64_t i = 0; i < c; i++)
            {
                float hat = (in[i] - mean[i]) * rstd[i];
                out[i] += a[i] * through_silu(hat * gamma[i] + beta[i], g[i]) - b[i] - k[i] * hat;
            }
        } else if (silu) {
            IVDEP for (int64_t i = 0; i < c; i++)
            {
                float hat = (in[i] - mean[i]) * rstd[i];
                out[i] = a[i] * through_silu(hat * gamma[i] + beta[i], g[i]) - b[i] - k[i] * hat;
            }
        } else if (accumulate) {
            IVDEP for (int64_t i = 0; i < c; i++) out[i] += a[i] * g[i] - b[i] - k[i] * ((in[i] - mean[i]) * rstd[i]);
        } else {
            IVDEP for (int64_t i = 0; i < c; i++) out[i] = a[i] * g[i] - b[i] - k[i] * ((in[i] - mean[i]) * rstd[i]);
        }
    }
}

void ISA(layer_norm)(int64_t rows, int64_t c, float eps, const float *x, const float *gamma, const float *beta,
                     float *y, float *stats)
{
    for (int64_t r = 0; r < rows; r++) {
        const float *in = x + r * c;
        float *out = y + r * c;
        vf s0 = {0}, s1 = {0};
        int64_t i = 0;
        for (; i + 2 * VL <= c; i += 2 * VL) {
            s0 += load(in + i);
            s1 += load(in + i + VL);
        }
        for (; i < c; i += VL)
            s0 += c - i < VL ? load_part(in + i, c - i) : load(in + i);
        float mean = sum_lanes(s0 + s1) / (float)c;
        s0 = s1 = (vf){0};
        for (i = 0; i + 2 * VL <= c; i += 2 * VL) {
            vf d0 = load(in + i) - mean, d1 = load(in + i + VL) - mean;
            s0 += d0 * d0;
            s1 += d1 * d1;
        }
        float rest = 0.0f;
        for (; i < c; i++)
            rest += (in[i] - mean) * (in[i] - mean);
        float variance = (sum_lanes(s0 + s1) + rest) / (float)c;
        float rstd = 1.0f / sqrtf(variance + eps);
        stats[2 * r] = mean;
        stats[2 * r + 1] = rstd;
        IVDEP for (int64_t j = 0; j < c; j++) out[j] = (in[j] - mean) * rstd * gamma[j] + beta[j];
    }
}

void ISA(layer_norm_dx)(int64_t rows, int64_t c, const float *x, const float *gamma, const float *stats,
                        const float *dy, float *dx, bool accumulate)
{
    for (int64_t r = 0; r < rows; r++) {
        const float *in = x + r * c, *g = dy + r * c;
        float *out = dx + r * c;
        float mean = stats[2 * r], rstd = stats[2 * r + 1];
        vf s0 = {0}, s1 = {0};
        int64_t i = 0;
        for (; i + VL <= c; i += VL) {
            vf d = load(g + i) * load(gamma + i);
            s0 += d;
            s1 += d * ((load(in + i) - mean) * rstd);
        }
        float rest0 = 0.0f, rest1 = 0.0f;
        for (; i < c; i++) {
            rest0 += g[i] * gamma[i];
            rest1 += g[i] * gamma[i] * ((in[i] - mean) * rstd);
        }
        float a = (sum_lanes(s0) + rest0) / (float)c, b = (sum_lanes(s1) + rest1) / (float)c;
        if (accumulate) {
            IVDEP for (int64_t j = 0; j < c; j++) out[j] += rstd * (g[j] * gamma[j] - a - ((in[j] - mean) * rstd) * b);
        } else {
            IVDEP for (int64_t j = 0; j < c; j++) out[j] = rstd * (g[j] * gamma[j] - a - ((in[j] - mean) * rstd) * b);
        }
    }
}

void ISA(layer_norm_sums)(int64_t rows, int64_t c, const float *x, const float *stats, const float *dy, float *sums)
{
    float *sum = sums, *sum_hat = sums + c;
    memset(sums, 0, (size_t)(2 * c) * sizeof(float));
    for (int64_t r = 0; r < rows; r++) {
        const float *in = x + r * c, *g = dy + r * c;
        float mean = stats[2 * r], rstd = stats[2 * r + 1];
        IVDEP for (int64_t i = 0; i < c; i++)
        {
            sum[i] += g[i];
            sum_hat[i] += g[i] * ((in[i] - mean) * rstd);
        }
    }
}
