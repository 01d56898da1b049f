/*
 * Vectors of the instruction set being compiled, exp and erf on them, and the names of its symbols.
 * Included by the kernels only.
 */
#ifndef DRAFT_BACKEND_CPU_KERNELS_VEC_H
#define DRAFT_BACKEND_CPU_KERNELS_VEC_H

#include <math.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "backend/cpu/kernels.h"

#define DRAFT_JOIN_(a, b) a##_##b
#define DRAFT_JOIN(a, b)  DRAFT_JOIN_(a, b)
#define ISA(name)         DRAFT_JOIN(draft_##name, DRAFT_ISA)

/* MR x 2 sums, a row of b and elements of a stay in registers: 32 of them with AVX-512 and NEON, otherwise 16. NEON has
 * no broadcast operand: gcc spills from MR = 11 on, and 8 divides the blocks of 64 rows. */
#if defined(__AVX512F__)
enum { VL = 16, MR = 12 };
#elif defined(__AVX2__)
enum { VL = 8, MR = 6 };
#elif defined(__aarch64__)
enum { VL = 4, MR = 8 };
#else
enum { VL = 4, MR = 6 };
#endif
enum { NR = 2 * VL };

typedef float vf __attribute__((vector_size(VL * 4), may_alias));
typedef float vu __attribute__((vector_size(VL * 4), aligned(4), may_alias)); /* unaligned */

typedef int32_t vi __attribute__((vector_size(VL * 4), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE vf load(const float *p)
{
    return *(const vu *)p;
}

INLINE void store(float *p, vf v)
{
    *(vu *)p = v;
}

/* The first n < VL floats; the rest is zero. */
INLINE vf load_part(const float *p, int64_t n)
{
    vf v = {0};
    memcpy(&v, p, (size_t)n * sizeof(float));
    return v;
}

INLINE void store_part(float *p, vf v, int64_t n)
{
    memcpy(p, &v, (size_t)n * sizeof(float));
}

/* A product that is not fused with a sum after it: gcc fuses in one copy of a kernel and not in the next, and which of
 * them computes a number depends on how many threads there are. */
INLINE vf rounded(vf v)
{
#if defined(__AVX512F__)
    __asm__("" : "+v"(v));
#elif defined(__x86_64__)
    __asm__("" : "+x"(v));
#elif defined(__aarch64__)
    __asm__("" : "+w"(v));
#endif
    return v;
}

typedef float v4 __attribute__((vector_size(16), may_alias));
typedef float v4u __attribute__((vector_size(16), aligned(4), may_alias));
#if defined(__AVX2__)
typedef float v8 __attribute__((vector_size(32), may_alias));
#endif

/* mask ? a : b, lane by lane; mask is all ones or zero */
INLINE vf choose(vi mask, vf a, vf b)
{
    return (vf)((mask & (vi)a) | (~mask & (vi)b));
}

/* The larger lanes. Of a NaN and a number b wins: an unordered comparison is false. */
INLINE vf larger(vf a, vf b)
{
#if defined(__AVX512F__)
    return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_max_ps(a, b);
#else
    return choose(a > b, a, b);
#endif
}

/* The lanes of v added down to four. */
INLINE v4 quarter(vf v)
{
#if defined(__AVX512F__)
    v8 half = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
              __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    return __builtin_shufflevector(half, half, 0, 1, 2, 3) + __builtin_shufflevector(half, half, 4, 5, 6, 7);
#elif defined(__AVX2__)
    return __builtin_shufflevector((v8)v, (v8)v, 0, 1, 2, 3) + __builtin_shufflevector((v8)v, (v8)v, 4, 5, 6, 7);
#else
    return v;
#endif
}

/* The sums of four vectors. */
INLINE v4 four_sums(v4 a, v4 b, v4 c, v4 d)
{
    v4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
    v4 cd = __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
    return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

/* Four rows of four turned: turned[i][j] = b[j*ldb + i]. */
INLINE void turn_four(const float *b, int64_t ldb, v4 *turned)
{
    v4 r0 = *(const v4u *)b, r1 = *(const v4u *)(b + ldb), r2 = *(const v4u *)(b + 2 * ldb),
       r3 = *(const v4u *)(b + 3 * ldb);
    v4 a = __builtin_shufflevector(r0, r1, 0, 4, 1, 5), c = __builtin_shufflevector(r2, r3, 0, 4, 1, 5);
    v4 d = __builtin_shufflevector(r0, r1, 2, 6, 3, 7), e = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
    turned[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
    turned[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
    turned[2] = __builtin_shufflevector(d, e, 0, 1, 4, 5);
    turned[3] = __builtin_shufflevector(d, e, 2, 3, 6, 7);
}

INLINE float sum_lanes(vf v)
{
    v4 q = quarter(v);
    return (q[0] + q[2]) + (q[1] + q[3]);
}

/* exp within 1e-7, branch-free so that loops of it vectorise: 2^n e^r with |r| <= ln 2 / 2. Below -87 it is exp(-87),
 * above 88 exp(88): finite always; NaN stays NaN. */
INLINE float fast_exp(float x)
{
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float t = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: the integer sits in the low bits */
    float n = t - 12582912.0f;
    float r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t shift, bits;
    memcpy(&shift, &t, sizeof(shift));
    memcpy(&bits, &p, sizeof(bits));
    bits += (int32_t)((uint32_t)shift << 23);
    memcpy(&p, &bits, sizeof(p));
    return p;
}

/* The same on a vector. */
INLINE vf vector_exp(vf x)
{
    x = choose(x < -87.0f, (vf){0} - 87.0f, x);
    x = choose(x > 88.0f, (vf){0} + 88.0f, x);
    vf t = x * 1.44269504f + 12582912.0f, n = t - 12582912.0f;
    vf r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vf p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return (vf)((vi)p + ((vi)t << 23));
}

/* 2^x for x <= 0 within 1e-7, zero below -126; NaN stays NaN. */
INLINE vf vector_exp2(vf x)
{
    vf c = larger((vf){0} - 126.0f, x), t = c + 12582912.0f; /* 1.5 * 2^23, as above */
    vf r = c - (t - 12582912.0f);
    vf p = r * 1.3264727e-3f + 9.671513e-3f;
    p = p * r + 5.5507336e-2f;
    p = p * r + 2.4022242e-1f;
    p = p * r + 6.93147e-1f;
    p = p * r + 1.0f;
    return choose(x < -126.0f, (vf){0}, (vf)((vi)p + ((vi)t << 23)));
}

INLINE float sigmoid(float x)
{
    return 1.0f / (1.0f + fast_exp(-x));
}

/* The normal distribution function (1 + erf(x / sqrt 2)) / 2 within 7e-8, and within 2e-6 of itself above x = -2.5: a
 * polynomial for erf near 0, exp of a polynomial for erfc beyond, so that the negative side does not cancel. */
INLINE float normal_cdf(float x)
{
    float a = x * 0.70710678118654752f;
    float t = a < 0.0f ? -a : a;
    t = t > 9.0f ? 9.0f : t;
    float s = t * t;
    float r = -1.72853470e-5f * t + 3.83197126e-4f;
    float u = -3.88396438e-3f * t + 2.42546219e-2f;
    r = r * s + u;
    r = r * t - 1.06777877e-1f;
    r = r * t - 6.34846687e-1f;
    r = r * t - 1.28717512e-1f;
    r = r * t - t;
    float tail = 0.5f * fast_exp(r); /* erfc(t) / 2 */
    float far = a < 0.0f ? tail : 1.0f - tail;
    float q = -5.96761703e-4f;
    q = q * s + 4.99119423e-3f;
    q = q * s - 2.67681349e-2f;
    q = q * s + 1.12819925e-1f;
    q = q * s - 3.76125336e-1f;
    q = q * s + 1.28379166e-1f;
    float near = 0.5f + 0.5f * (q * a + a);
    return t > 0.927734375f ? far : near;
}

INLINE float normal_density(float x)
{
    return 0.3989422804014327f * fast_exp(-0.5f * x * x);
}

#endif
