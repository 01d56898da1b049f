/*
 * Numbers out of nothing: base/rng.c's noise and ops/timestep_embedding.c's sinusoids, with what they depend on read on
 * the device. The generator's integers are the CPU's exactly; logarithm, root, sine and cosine are taken in double and
 * rounded once, as there, so that two libraries' last bits do not show but once in some hundred million numbers.
 */
#include "backend/cuda/kernels/device.cuh"

namespace
{
struct words {
    uint32_t w[4];
};

/* Philox 4x32-10 (Salmon et al. 2011) */
__device__ words philox(uint32_t key0, uint32_t key1, words c)
{
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = uint64_t(0xD2511F53u) * c.w[0], p1 = uint64_t(0xCD9E8D57u) * c.w[2];
        c = {{uint32_t(p1 >> 32) ^ c.w[1] ^ key0, uint32_t(p1), uint32_t(p0 >> 32) ^ c.w[3] ^ key1, uint32_t(p0)}};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

/* Four numbers of one sample. */
struct normal_numbers {
    const struct draft_cuda_draw *at;
    uint64_t stride;
    int64_t count;
    float *out;

    __device__ void operator()(int64_t i) const
    {
        const struct draft_cuda_draw d = *at;
        const int64_t blocks = (count + 3) / 4, sample = i / blocks, block = i % blocks;
        const words key = philox(uint32_t(d.seed), uint32_t(d.seed >> 32),
                                 {{uint32_t(d.step), uint32_t(d.step >> 32), d.purpose, 0}});
        const uint64_t index = d.index + uint64_t(sample) * stride;
        const words drawn =
            philox(key.w[0], key.w[1],
                   {{uint32_t(block), uint32_t(uint64_t(block) >> 32), uint32_t(index), uint32_t(index >> 32)}});
        float *to = out + sample * count;
        for (int j = 0; j < 4; j += 2) { /* Box and Muller 1958 */
            const double radius = sqrt(-2.0 * log((double(drawn.w[j]) + 0.5) * 0x1p-32));
            const double angle = 2.0 * 3.14159265358979323846 * (double(drawn.w[j + 1]) + 0.5) * 0x1p-32;
            if (block * 4 + j < count)
                to[block * 4 + j] = float(radius * cos(angle));
            if (block * 4 + j + 1 < count)
                to[block * 4 + j + 1] = float(radius * sin(angle));
        }
    }
};

template <class T> struct sinusoids {
    const float *at;
    T *y;
    int64_t dim;
    float freq_shift;
    bool flip;

    __device__ void operator()(int64_t i) const
    {
        const int64_t half = dim / 2, j = i % dim, k = j % half;
        float v[1] = {0};
        if (j < 2 * half) {
            const float exponent = -9.210340371976184f * float(k) / (float(half) - freq_shift); /* ln(10000) */
            const float angle = *at * float(exp(double(exponent)));
            v[0] = float((j < half) != flip ? sin(double(angle)) : cos(double(angle)));
        }
        store<1>(y + i, v);
    }
};
} // namespace

void draft_cuda_philox_randn(draft_cuda_stream stream, const struct draft_cuda_draw *at, int64_t n, uint64_t stride,
                             int64_t count, float *out)
{
    run_each(stream, n * divide_up(count, 4), normal_numbers{at, stride, count, out});
}

void draft_cuda_timestep_embedding(draft_cuda_stream stream, enum draft_dtype type, int64_t n, int64_t dim,
                                   float freq_shift, bool flip, const float *at, void *y)
{
    assert(dim >= 2);
    with_type(type, [&](auto t) {
        using T = TYPE_OF(t);
        run_each(stream, n * dim, sinusoids<T>{at, as<T>(y), dim, freq_shift, flip});
    });
}
