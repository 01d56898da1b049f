/*
 * Products of bf16 numbers, two along the depth in one 32-bit element, added up in float (VDPBF16PS), and the rounding
 * that makes such pairs. Only in the table of an instruction set that has them: nothing is emulated.
 */
#include "backend/cpu/kernels/kernels_isa.h"

#if defined(__AVX512BF16__)

#define BLOCK                     ISA(block_pairs)
#define BLOCK_DEPTH               DRAFT_K_BLOCK
#define MULTIPLY_ADD(sum, x, row) ((vf)_mm512_dpbf16_ps((__m512)(sum), (__m512bh)(row), (__m512bh)_mm512_set1_ps(x)))
#define IN_FLOAT(sum)             (sum)
#include "backend/cpu/kernels/block.h"

INLINE vf load_some(const float *p, int64_t n)
{
    return n >= VL ? load(p) : n > 0 ? load_part(p, n) : (vf){0};
}

void ISA(pair_columns)(int64_t rows, int64_t k, const float *x, int64_t x_step, float *pairs, int64_t step)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < k; c += 2 * VL) {
            const float *in = x + r * x_step + c;
            vf low = load_some(in, k - c), high = load_some(in + VL, k - c - VL);
            vf both = (vf)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
            int64_t left = (k - c + 1) / 2;
            if (left >= VL)
                store(pairs + r * step + c / 2, both);
            else
                store_part(pairs + r * step + c / 2, both, left);
        }
}

void ISA(pair_rows)(int64_t rows, int64_t columns, const float *x, int64_t x_step, float *pairs, int64_t wide,
                    int64_t step)
{
    for (int64_t r = 0; r < rows; r += 2)
        for (int64_t c = 0; c < wide; c += VL) {
            const float *in = x + r * x_step + c;
            vf even = load_some(in, columns - c), odd = r + 1 < rows ? load_some(in + x_step, columns - c) : (vf){0};
            __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)even));
            __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)odd));
            vf both = (vf)_mm512_or_si512(low, _mm512_slli_epi32(high, 16));
            if (wide - c >= VL)
                store(pairs + r / 2 * step + c, both);
            else
                store_part(pairs + r / 2 * step + c, both, wide - c);
        }
}

#endif
