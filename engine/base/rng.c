#include "base/rng.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* --- Philox 4x32-10 ------------------------------------------------------------------------------------------------
 */

void draft_philox_block(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4])
{
    uint32_t k0 = key[0], k1 = key[1];
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* Seed, purpose and step give a key of their own; index and block then count under it. */
static void derive_key(uint64_t seed, enum draft_purpose purpose, uint64_t step, uint32_t key[2])
{
    uint32_t words[4];
    draft_philox_block((uint32_t[2]){(uint32_t)seed, (uint32_t)(seed >> 32)},
                       (uint32_t[4]){(uint32_t)step, (uint32_t)(step >> 32), (uint32_t)purpose, 0}, words);
    key[0] = words[0];
    key[1] = words[1];
}

static void draw(const uint32_t key[2], uint64_t index, uint64_t block, uint32_t words[4])
{
    draft_philox_block(
        key, (uint32_t[4]){(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)index, (uint32_t)(index >> 32)}, words);
}

void draft_philox_randn(uint64_t seed, enum draft_purpose purpose, uint64_t step, uint64_t index, float *out, size_t n)
{
    uint32_t key[2], words[4];
    derive_key(seed, purpose, step, key);
    for (size_t i = 0; i < n; i += 4) {
        float four[4];
        draw(key, index, i / 4, words);
        for (int j = 0; j < 4;
             j += 2) { /* Box and Muller 1958, in double so that every libm rounds to the same float */
            double radius = sqrt(-2.0 * log(((double)words[j] + 0.5) * 0x1p-32));
            double angle = 2.0 * M_PI * ((double)words[j + 1] + 0.5) * 0x1p-32;
            four[j] = (float)(radius * cos(angle));
            four[j + 1] = (float)(radius * sin(angle));
        }
        memcpy(out + i, four, (n - i < 4 ? n - i : 4) * sizeof *out);
    }
}

void draft_philox_permutation(uint64_t seed, uint64_t epoch, uint32_t *out, size_t n)
{
    uint32_t key[2], words[4];
    uint64_t block = 0;
    int left = 0;
    derive_key(seed, DRAFT_PURPOSE_SHUFFLE, epoch, key);
    for (size_t i = 0; i < n; i++)
        out[i] = (uint32_t)i;
    for (size_t i = n; i > 1; i--) { /* Fisher and Yates; Lemire 2019 for a number below i without bias */
        uint64_t product;
        do {
            if (left == 0) {
                draw(key, 0, block++, words);
                left = 4;
            }
            product = (uint64_t)words[--left] * i;
        } while ((uint32_t)product < (uint32_t)(-(uint32_t)i) % (uint32_t)i);
        size_t other = (size_t)(product >> 32);
        uint32_t swap = out[i - 1];
        out[i - 1] = out[other];
        out[other] = swap;
    }
}

/* --- torch.randn on the CPU ----------------------------------------------------------------------------------------
 */

enum { MT_N = 624, MT_M = 397 };

void draft_torch_generator_seed(struct draft_torch_generator *mt, uint64_t seed)
{
    *mt = (struct draft_torch_generator){.next = MT_N};
    mt->state[0] = (uint32_t)seed; /* as PyTorch: the upper half is dropped */
    for (uint32_t i = 1; i < MT_N; i++)
        mt->state[i] = 1812433253u * (mt->state[i - 1] ^ mt->state[i - 1] >> 30) + i;
}

static uint32_t mt_next(struct draft_torch_generator *mt)
{
    if (mt->next == MT_N) {
        for (int i = 0; i < MT_N; i++) {
            uint32_t y = (mt->state[i] & 0x80000000u) | (mt->state[(i + 1) % MT_N] & 0x7fffffffu);
            mt->state[i] = mt->state[(i + MT_M) % MT_N] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
        }
        mt->next = 0;
    }
    uint32_t y = mt->state[mt->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

static float uniform24(struct draft_torch_generator *mt)
{
    return (float)(mt_next(mt) & 0xffffffu) * 0x1p-24f;
}

static double uniform53(struct draft_torch_generator *mt)
{
    uint64_t high = mt_next(mt), low = mt_next(mt);
    return (double)((high << 32 | low) & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;
}

/* at::normal_distribution<double>: pairs, the second kept for the next number, of a later call if need be. */
static void scalar_path(struct draft_torch_generator *mt, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (mt->has_kept) {
            out[i] = (float)mt->kept;
            mt->has_kept = false;
            continue;
        }
        double u1 = uniform53(mt), u2 = uniform53(mt);
        double radius = sqrt(-2.0 * log1p(-u2)), angle = 2.0 * M_PI * u1;
        mt->kept = radius * sin(angle);
        mt->has_kept = true;
        out[i] = (float)(radius * cos(angle));
    }
}

/*
 * at::native::normal_fill_16_AVX2 takes its logarithm, sine and cosine from avx_mathfun (Cephes' single-precision
 * polynomials), compiled with fused multiply-adds: done here number by number, fused at the same places, so that the
 * numbers are PyTorch's to the last bit. No product below is added without being fused, whatever the compiler does.
 */
static float cephes_log(float x)
{
    static const float p[] = {7.0376836292E-2f,  -1.1514610310E-1f, 1.1676998740E-1f,
                              -1.2420140846E-1f, 1.4249322787E-1f,  -1.6668057665E-1f,
                              2.0000714765E-1f,  -2.4999993993E-1f, 3.3333331174E-1f};
    int exponent;
    float m = frexpf(x, &exponent); /* [0.5, 1) */
    float e = (float)exponent;
    if (m < 0.707106781186547524f) {
        e -= 1.0f;
        x = (m - 1.0f) + m;
    } else {
        x = m - 1.0f;
    }
    float z = x * x, y = p[0];
    for (int i = 1; i < 9; i++)
        y = fmaf(y, x, p[i]);
    y = y * x;
    y = fmaf(y, z, e * -2.12194440e-4f);
    y = fmaf(z, -0.5f, y);
    return fmaf(e, 0.693359375f, x + y);
}

/* For 0 <= x < 2 pi. */
static void cephes_sincos(float x, float *sine, float *cosine)
{
    int octant = ((int)(x * 1.27323954473516f) + 1) & ~1; /* 4 / pi */
    float y = (float)octant;
    x = fmaf(y, -0.78515625f, x);
    x = fmaf(y, -2.4187564849853515625e-4f, x);
    x = fmaf(y, -3.77489497744594108e-8f, x);
    float z = x * x;
    float c = fmaf(fmaf(2.443315711809948E-005f, z, -1.388731625493765E-003f), z, 4.166664568298827E-002f) * z;
    c = fmaf(c, z, z * -0.5f) + 1.0f;
    float s = fmaf(fmaf(-1.9515295891E-4f, z, 8.3321608736E-3f), z, -1.6666654611E-1f) * z;
    s = fmaf(s, x, x);
    bool swapped = (octant & 2) != 0;
    float first = swapped ? c : s, second = swapped ? s : c;
    *sine = octant & 4 ? -first : first;
    *cosine = (octant - 2) & 4 ? second : -second;
}

/* Uniform numbers to normal ones, the first eight with the last eight (Box and Muller). */
static void normal_16(float *x)
{
    for (int j = 0; j < 8; j++) {
        float sine, cosine;
        float radius = sqrtf(-2.0f * cephes_log(1.0f - x[j]));
        cephes_sincos(2.0f * (float)M_PI * x[j + 8], &sine, &cosine);
        x[j] = radius * cosine;
        x[j + 8] = radius * sine;
    }
}

void draft_torch_generator_randn(struct draft_torch_generator *mt, float *out, size_t n)
{
    if (n < 16) {
        scalar_path(mt, out, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        out[i] = uniform24(mt);
    for (size_t i = 0; i + 16 <= n; i += 16)
        normal_16(out + i);
    if (n % 16 != 0) { /* the last sixteen are drawn anew, over what was there */
        for (size_t i = n - 16; i < n; i++)
            out[i] = uniform24(mt);
        normal_16(out + n - 16);
    }
}

void draft_torch_randn(uint64_t seed, float *out, size_t n)
{
    struct draft_torch_generator mt;
    draft_torch_generator_seed(&mt, seed);
    draft_torch_generator_randn(&mt, out, n);
}
