/*
 * ops/timestep_embedding.c's sinusoids, with the timestep read on the device. Exponential, sine and cosine are taken in
 * double and rounded once, as there.
 */
#include "backend/cuda/kernels/device.cuh"

namespace
{
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

void draft_cuda_timestep_embedding(draft_cuda_stream stream, enum draft_dtype type, int64_t n, int64_t dim,
                                   float freq_shift, bool flip, const float *at, void *y)
{
    assert(dim >= 2);
    with_type(type, [&](auto t) {
        using T = TYPE_OF(t);
        run_each(stream, n * dim, sinusoids<T>{at, as<T>(y), dim, freq_shift, flip});
    });
}
