/*
 * Floats as 16-bit integers with a common factor, two neighbours along the depth in one 32-bit element (VPDPWSSD of
 * AVX512_VNNI: the rate of VDPBF16PS). With a factor for each row of the left matrix and each column of the right one
 * they keep 11 bits below the largest, where bf16 keeps 8 of each number: Winograd's transforms of tiles of 6x6 make
 * bf16's error five times as large, so products between them are of these.
 */
#ifndef DRAFT_BACKEND_CPU_KERNELS_WORDS_H
#define DRAFT_BACKEND_CPU_KERNELS_WORDS_H

#include "backend/cpu/kernels/vec.h"

#if defined(__AVX512VNNI__)

enum {
    WORDS_DEPTH = 128,   /* pairs that are added up as integers */
    LARGEST_WORD = 2896, /* 2 WORDS_DEPTH LARGEST_WORD^2 < 2^31 */
};

/* Lane by lane the bits of the larger of |a| and x, which order like the numbers; infinity and NaN are above all. */
INLINE vi larger_magnitude(vi a, vf x)
{
    return (vi)_mm512_max_epi32((__m512i)a, _mm512_and_si512((__m512i)x, _mm512_set1_epi32(0x7fffffff)));
}

INLINE float largest_lane(vi magnitudes)
{
    int32_t bits = _mm512_reduce_max_epi32((__m512i)magnitudes);
    float largest;
    memcpy(&largest, &bits, sizeof largest);
    return largest;
}

/* What makes words of numbers up to `largest`, and the factor that undoes it. A NaN or an infinity among the numbers is
 * in the factor, and so in every result. */
INLINE float word_scale(float largest, float *factor)
{
    *factor = largest * (1.0f / LARGEST_WORD);
    return largest > 1e-30f ? LARGEST_WORD / largest : 0.0f; /* its reciprocal is finite */
}

INLINE void store_words(int16_t *to, vf scaled)
{
    _mm256_storeu_si256((__m256i_u *)to, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32((__m512)scaled)));
}

#endif

#endif
