/* Stands in for CUDA's cuda_bf16.h (see cuda_runtime.h here): bfloat16 as the CUDA kernels of draftd use it. */
#pragma once
#include <cstdint>
#include <cstring>

/* Rounds to nearest even and knows one NaN, as CUDA's own conversions do. */
struct __nv_bfloat16 {
    uint16_t bits;
};

inline __nv_bfloat16 __float2bfloat16(float value)
{
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return {0x7fff};
    return {uint16_t((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

inline float __bfloat162float(__nv_bfloat16 value)
{
    const uint32_t bits = uint32_t(value.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return wide;
}
