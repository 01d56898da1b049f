/* 16-bit floats, bit by bit: IEEE binary16 and bfloat16. Exact widening; narrowing rounds to nearest even. */
#ifndef DRAFT_TENSOR_HALF_H
#define DRAFT_TENSOR_HALF_H

#include <stdint.h>
#include <string.h>

static inline float draft_bits_to_f32(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t draft_f32_to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float draft_bf16_to_f32(uint16_t half)
{
    return draft_bits_to_f32((uint32_t)half << 16);
}

/* Too large becomes infinity, as IEEE says; NaN stays NaN. */
static inline uint16_t draft_f32_to_bf16(float value)
{
    uint32_t bits = draft_f32_to_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* Without ever reading a subnormal float, so that flush-to-zero modes do not matter. */
static inline float draft_f16_to_f32(uint16_t half)
{
    uint32_t bits = (uint32_t)(half & 0x7fff) << 13;
    uint32_t exponent = bits & 0x0f800000u;
    bits += (127u - 15u) << 23;
    if (exponent == 0x0f800000u)
        bits += (128u - 16u) << 23; /* infinity, NaN */
    else if (exponent == 0)
        bits = draft_f32_to_bits(draft_bits_to_f32(bits + (1u << 23)) - 0x1p-14f); /* subnormal: renormalise */
    return draft_bits_to_f32(bits | (uint32_t)(half & 0x8000) << 16);
}

/* Too large becomes infinity, as IEEE says; NaN stays NaN. */
static inline uint16_t draft_f32_to_f16(float value)
{
    uint32_t bits = draft_f32_to_bits(value), sign = bits >> 16 & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits >= 0x7f800000u)
        return (uint16_t)(sign | 0x7c00u | (bits > 0x7f800000u ? 0x200u : 0));
    if (bits >= 0x477ff000u)
        return (uint16_t)(sign | 0x7c00u);
    if (bits < 0x38800000u) { /* below 2^-14: adding 0.5 leaves the subnormal's bits, rounded, at the bottom */
        uint32_t shifted = draft_f32_to_bits(draft_bits_to_f32(bits) + 0.5f);
        return (uint16_t)(sign | (shifted - 0x3f000000u));
    }
    bits += 0xfffu + (bits >> 13 & 1u);
    return (uint16_t)(sign | (bits - ((127u - 15u) << 23)) >> 13);
}

#endif
