/*
 * AdamW on all trained parameters at once (formulas: train/adamw.c), and the norm of their gradients. An update reads
 * gradient, parameter, m and v and writes the latter three, 28 bytes a parameter; the
 * norm reads 4. Beside it the parameters' moving average, 12 bytes (train/ema.c). Learning rate, bias corrections and
 * the clipping factor are read on the device, so that a captured graph trains on without the host.
 */
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/long_sum.cuh"

namespace
{
struct square_of {
    const float *x;

    __device__ double operator()(int64_t i) const
    {
        return double(x[i]) * double(x[i]);
    }
};

struct norm_and_factor {
    const struct draft_cuda_adamw_step *at;
    struct draft_cuda_norm *out;
    struct draft_guard guard;

    __device__ void operator()(double sum) const
    {
        const double norm = sqrt(sum), factor = at->max_norm / (norm + 1e-6);
        bool finite = isfinite(norm);
        for (int64_t i = 0; i < guard.count; i++) /* a few losses */
            finite = finite && isfinite(guard.finite[i]);
        out->norm = norm;
        out->factor = !finite ? nanf("") : factor < 1 ? float(factor) : 1.0f;
        if (guard.norm)
            *guard.norm = norm;
    }
};

template <int W> struct updated {
    const struct draft_cuda_adamw_step *at;
    const struct draft_cuda_norm *norm;
    const float *gradient;
    float *parameter, *m, *v;

    __device__ void operator()(int64_t i) const
    {
        const struct draft_cuda_adamw_step a = *at;
        const float factor = norm->factor;
        if (isnan(factor))
            return;
        float g[W], x[W], first[W], second[W];
        load<W>(gradient + i * W, g);
        load<W>(parameter + i * W, x);
        load<W>(m + i * W, first);
        load<W>(v + i * W, second);
        for (int k = 0; k < W; k++) {
            const float d = g[k] * factor;
            first[k] += a.new1 * (d - first[k]);
            second[k] = a.beta2 * second[k] + a.new2 * d * d;
            x[k] = x[k] * a.keep - a.step * first[k] / (sqrtf(second[k]) / a.root2 + a.epsilon);
        }
        store<W>(parameter + i * W, x);
        store<W>(m + i * W, first);
        store<W>(v + i * W, second);
    }
};

template <int W> struct approached {
    float rate;
    const float *target;
    float *x;

    __device__ void operator()(int64_t i) const
    {
        float to[W], v[W];
        load<W>(target + i * W, to);
        load<W>(x + i * W, v);
        for (int k = 0; k < W; k++)
            v[k] += rate * (to[k] - v[k]);
        store<W>(x + i * W, v);
    }
};

template <int W> struct exchanged {
    float *a, *b;

    __device__ void operator()(int64_t i) const
    {
        float of_a[W], of_b[W];
        load<W>(a + i * W, of_a);
        load<W>(b + i * W, of_b);
        store<W>(a + i * W, of_b);
        store<W>(b + i * W, of_a);
    }
};

template <int W>
void update(cudaStream_t stream, int64_t n, const struct draft_cuda_adamw_step *at, const struct draft_cuda_norm *norm,
            const float *gradient, float *parameter, float *m, float *v)
{
    run_each(stream, n / W, updated<W>{at, norm, gradient, parameter, m, v});
}
} // namespace

size_t draft_cuda_gradient_norm_scratch(int64_t n)
{
    return long_sum_scratch(n);
}

void draft_cuda_gradient_norm(draft_cuda_stream stream, int64_t n, const struct draft_cuda_adamw_step *at,
                              const float *gradient, const struct draft_guard *guard, struct draft_cuda_norm *norm,
                              void *scratch)
{
    run_long_sum(stream, n, square_of{gradient}, norm_and_factor{at, norm, *guard}, scratch);
}

void draft_cuda_adamw(draft_cuda_stream stream, int64_t n, const struct draft_cuda_adamw_step *at,
                      const struct draft_cuda_norm *norm, const float *gradient, float *parameter, float *m, float *v)
{
    const bool whole = n % 4 == 0 && aligned(gradient) && aligned(parameter) && aligned(m) && aligned(v);
    (whole ? update<4> : update<1>)(stream, n, at, norm, gradient, parameter, m, v);
}

void draft_cuda_approach(draft_cuda_stream stream, int64_t n, float rate, const float *target, float *x)
{
    if (n % 4 == 0 && aligned(target) && aligned(x))
        run_each(stream, n / 4, approached<4>{rate, target, x});
    else
        run_each(stream, n, approached<1>{rate, target, x});
}

void draft_cuda_exchange(draft_cuda_stream stream, int64_t n, float *a, float *b)
{
    if (n % 4 == 0 && aligned(a) && aligned(b))
        run_each(stream, n / 4, exchanged<4>{a, b});
    else
        run_each(stream, n, exchanged<1>{a, b});
}
