/* Products of words, and the words of Winograd's weights. */
#include "backend/cpu/kernels/words.h"

#include "backend/cpu/kernels/kernels_isa.h"

#if defined(__AVX512VNNI__)

/* The intrinsic, on integers, costs gcc 12 three moves a product to keep 24 sums of floats in their registers. */
INLINE vf multiply_add(vf sum, vf row, vf x)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(row), "v"(x));
    return sum;
}

#define BLOCK                     ISA(block_words)
#define BLOCK_DEPTH               WORDS_DEPTH
#define MULTIPLY_ADD(sum, x, row) multiply_add(sum, row, (vf)_mm512_set1_ps(x))
#define IN_FLOAT(sum)             ((vf)_mm512_cvtepi32_ps((__m512i)(sum)))
#include "backend/cpu/kernels/block.h"

/* Rows 2p and 2p + 1 of a matrix as pairs: a vector of 32-bit lanes, the first row in the low halves. */
INLINE vf pair_of(vf even, vf odd)
{
    __m512i low = _mm512_cvtps_epi32((__m512)even), high = _mm512_cvtps_epi32((__m512)odd);
    return (vf)_mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi32(0xffff)), _mm512_slli_epi32(high, 16));
}

void ISA(words)(int64_t depth, const float *panel, float *words)
{
    float factor[36 * NR];
    for (int k = 0; k < 36; k++)
        for (int64_t j = 0; j < NR; j += VL) {
            const float *in = panel + k * depth * NR + j;
            float *out = words + k * (depth / 2) * NR + j, scales[VL];
            vi largest = {0};
            for (int64_t c = 0; c < depth; c++)
                largest = larger_magnitude(largest, load(in + c * NR));
            for (int l = 0; l < VL; l++)
                scales[l] = word_scale(((vf)largest)[l], &factor[k * NR + j + l]);
            vf scale = load(scales);
            for (int64_t c = 0; c < depth; c += 2)
                store(out + c / 2 * NR, pair_of(load(in + c * NR) * scale, load(in + (c + 1) * NR) * scale));
        }
    memcpy(words + 36 * (depth / 2) * NR, factor, sizeof factor);
}

#endif
