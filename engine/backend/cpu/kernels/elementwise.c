/* Elementwise kernels: plain loops that the compiler vectorises; every index is read before it is written. */
#include "backend/cpu/kernels/kernels_isa.h"

/* In place is allowed, so pointers are not restrict; IVDEP says that no iteration reads what another wrote. */
#define IVDEP _Pragma("GCC ivdep")

INLINE float gelu(float x)
{
    return x * normal_cdf(x);
}

INLINE float d_silu(float x)
{
    float s = sigmoid(x);
    return s * (1.0f + x * (1.0f - s));
}

INLINE float d_gelu(float x)
{
    return normal_cdf(x) + x * normal_density(x);
}

enum { QUICK_NUMERATOR = 1702, QUICK_DENOMINATOR = 1000 };
static const float quick = (float)QUICK_NUMERATOR / QUICK_DENOMINATOR; /* x sigmoid(1.702 x) */

INLINE float d_quick_gelu(float x)
{
    float s = sigmoid(quick * x);
    return s * (1.0f + quick * x * (1.0f - s));
}

#define MAP(EXPRESSION)                                                                                                \
    do {                                                                                                               \
        IVDEP for (int64_t i = 0; i < n; i++)                                                                          \
        {                                                                                                              \
            float v = x[i];                                                                                            \
            y[i] = EXPRESSION;                                                                                         \
        }                                                                                                              \
    } while (0)

void ISA(map)(enum draft_map map, int64_t n, const float *x, float *y)
{
    switch (map) {
    case DRAFT_MAP_SILU:
        MAP(v * sigmoid(v));
        break;
    case DRAFT_MAP_GELU:
        MAP(gelu(v));
        break;
    case DRAFT_MAP_QUICK_GELU:
        MAP(v * sigmoid(quick * v));
        break;
    case DRAFT_MAP_RELU:
        MAP(v < 0.0f ? 0.0f : v);
        break;
    }
}

#define MAP_BACKWARD(EXPRESSION)                                                                                       \
    do {                                                                                                               \
        if (accumulate) {                                                                                              \
            IVDEP for (int64_t i = 0; i < n; i++)                                                                      \
            {                                                                                                          \
                float v = x[i];                                                                                        \
                dx[i] += dy[i] * (EXPRESSION);                                                                         \
            }                                                                                                          \
        } else {                                                                                                       \
            IVDEP for (int64_t i = 0; i < n; i++)                                                                      \
            {                                                                                                          \
                float v = x[i];                                                                                        \
                dx[i] = dy[i] * (EXPRESSION);                                                                          \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)

void ISA(map_backward)(enum draft_map map, int64_t n, const float *x, const float *dy, float *dx, bool accumulate)
{
    switch (map) {
    case DRAFT_MAP_SILU:
        MAP_BACKWARD(d_silu(v));
        break;
    case DRAFT_MAP_GELU:
        MAP_BACKWARD(d_gelu(v));
        break;
    case DRAFT_MAP_QUICK_GELU:
        MAP_BACKWARD(d_quick_gelu(v));
        break;
    case DRAFT_MAP_RELU:
        MAP_BACKWARD(v > 0.0f ? 1.0f : 0.0f);
        break;
    }
}

void ISA(geglu)(int64_t rows, int64_t c, const float *x, float *y)
{
    for (int64_t r = 0; r < rows; r++) {
        const float *a = x + r * 2 * c, *gate = a + c;
        float *out = y + r * c;
        IVDEP for (int64_t i = 0; i < c; i++) out[i] = a[i] * gelu(gate[i]);
    }
}

#define GEGLU_BACKWARD(STORE)                                                                                          \
    do {                                                                                                               \
        IVDEP for (int64_t i = 0; i < c; i++)                                                                          \
        {                                                                                                              \
            float v = gate[i], p = normal_cdf(v);                                                                      \
            da[i] STORE g[i] * v *p;                                                                                   \
            dgate[i] STORE g[i] * a[i] * (p + v * normal_density(v));                                                  \
        }                                                                                                              \
    } while (0)

void ISA(geglu_backward)(int64_t rows, int64_t c, const float *x, const float *dy, float *dx, bool accumulate)
{
    for (int64_t r = 0; r < rows; r++) {
        const float *restrict a = x + r * 2 * c, *restrict gate = a + c, *restrict g = dy + r * c;
        float *restrict da = dx + r * 2 * c, *restrict dgate = da + c;
        if (accumulate)
            GEGLU_BACKWARD(+=);
        else
            GEGLU_BACKWARD(=);
    }
}

void ISA(axpby)(int64_t n, float alpha, const float *a, float beta, const float *b, float *y, bool accumulate)
{
    if (b && accumulate) {
        IVDEP for (int64_t i = 0; i < n; i++) y[i] += alpha * a[i] + beta * b[i];
    } else if (b) {
        IVDEP for (int64_t i = 0; i < n; i++) y[i] = alpha * a[i] + beta * b[i];
    } else if (accumulate) {
        IVDEP for (int64_t i = 0; i < n; i++) y[i] += alpha * a[i];
    } else {
        IVDEP for (int64_t i = 0; i < n; i++) y[i] = alpha * a[i];
    }
}
