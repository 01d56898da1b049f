/*
 * The middle of attention where no fused kernel exists: scores to probabilities and back, between two matrix products.
 * A block a row; rows are read from memory once (later passes find them in the cache) and written once: 2 matrices in
 * forward, 3 in backward. F32 inside, whatever the scores are.
 */
#include "backend/cuda/kernels/device.cuh"

namespace
{
enum { MOST_THREADS = 256 };

/* Over the block's warps, by way of shared memory; joined in the order of warps by every thread alike. */
template <class Join> __device__ float block_joined(float of_warp, Join join)
{
    const int warps = blockDim.x / WARP;
    if (warps == 1)
        return of_warp;
    float *shared = dynamic_shared<float>();
    __syncthreads(); /* the last use is over */
    if (threadIdx.x % WARP == 0)
        shared[threadIdx.x / WARP] = of_warp;
    __syncthreads();
    float all = shared[0];
    for (int i = 1; i < warps; i++)
        all = join(all, shared[i]);
    return all;
}

__device__ float block_sum(float v)
{
    return block_joined(warp_sum(v), [](float a, float b) { return a + b; });
}

__device__ float block_max(float v)
{
    return block_joined(warp_max(v), [](float a, float b) { return fmaxf(a, b); });
}

/* p may be the scores: a row's sums are complete before its first number is written. */
template <class S, class T, int W>
__global__ void __launch_bounds__(MOST_THREADS)
    softmax(const S *scores, T *p, int64_t s, int64_t t, bool causal, const float *at, float scale)
{
    const int64_t row = blockIdx.x;
    const int64_t seen = causal ? row % s + 1 : at && *at < float(t) ? int64_t(*at) : t; /* columns that take part */
    const int64_t begin = threadIdx.x * W, step = blockDim.x * W;
    scores += row * t;
    p += row * t;
    float v[W], most = -INFINITY, sum = 0;
    for (int64_t i = begin; i < seen; i += step) {
        load<W>(scores + i, v);
        for (int k = 0; k < W; k++)
            if (i + k < seen)
                most = fmaxf(most, scale * v[k]);
    }
    most = block_max(most);
    for (int64_t i = begin; i < seen; i += step) {
        load<W>(scores + i, v);
        for (int k = 0; k < W; k++)
            if (i + k < seen)
                sum += expf(scale * v[k] - most);
    }
    const float share = 1.0f / block_sum(sum);
    for (int64_t i = begin; i < t; i += step) {
        load<W>(scores + i, v);
        for (int k = 0; k < W; k++)
            v[k] = i + k < seen ? expf(scale * v[k] - most) * share : 0.0f;
        store<W>(p + i, v);
    }
}

/* Where p is zero because of the mask, so is ds. */
template <class S, class T, int W>
__global__ void __launch_bounds__(MOST_THREADS) softmax_gradient(const T *p, const S *dp, T *ds, int64_t t, float scale)
{
    const int64_t row = blockIdx.x, begin = threadIdx.x * W, step = blockDim.x * W;
    p += row * t;
    dp += row * t;
    ds += row * t;
    float v[W], d[W], sum = 0;
    for (int64_t i = begin; i < t; i += step) {
        load<W>(p + i, v);
        load<W>(dp + i, d);
        for (int k = 0; k < W; k++)
            sum += v[k] * d[k];
    }
    sum = block_sum(sum);
    for (int64_t i = begin; i < t; i += step) {
        load<W>(p + i, v);
        load<W>(dp + i, d);
        for (int k = 0; k < W; k++)
            d[k] = scale * v[k] * (d[k] - sum);
        store<W>(ds + i, d);
    }
}

/* Whole warps, no more than the row needs. */
unsigned threads_of(int64_t t, int width)
{
    const int64_t warps = divide_up(divide_up(t, width), WARP);
    return unsigned(warps < MOST_THREADS / WARP ? warps : MOST_THREADS / WARP) * WARP;
}

const size_t SHARED = MOST_THREADS / WARP * sizeof(float);
} // namespace

void draft_cuda_softmax(draft_cuda_stream stream, enum draft_dtype score_type, enum draft_dtype type, int64_t matrices,
                        int64_t s, int64_t t, bool causal, const float *at, float scale, const void *scores, void *p)
{
    if (t == 0)
        return;
    /* Four elements at a time suit both types; the narrower moves 8 bytes. */
    const bool whole = t % 4 == 0 && aligned(scores) && aligned(p);
    with_type(score_type, [&](auto a) {
        with_type(type, [&](auto b) {
            using S = TYPE_OF(a);
            using T = TYPE_OF(b);
            if (whole)
                launch(softmax<S, T, 4>, unsigned(matrices * s), threads_of(t, 4), SHARED, stream, as<S>(scores),
                       as<T>(p), s, t, causal, at, scale);
            else
                launch(softmax<S, T, 1>, unsigned(matrices * s), threads_of(t, 1), SHARED, stream, as<S>(scores),
                       as<T>(p), s, t, causal, at, scale);
        });
    });
}

void draft_cuda_softmax_backward(draft_cuda_stream stream, enum draft_dtype score_type, enum draft_dtype type,
                                 int64_t rows, int64_t t, float scale, const void *p, const void *dp, void *ds)
{
    if (t == 0)
        return;
    const bool whole = t % 4 == 0 && aligned(p) && aligned(dp) && aligned(ds);
    with_type(score_type, [&](auto a) {
        with_type(type, [&](auto b) {
            using S = TYPE_OF(a);
            using T = TYPE_OF(b);
            if (whole)
                launch(softmax_gradient<S, T, 4>, unsigned(rows), threads_of(t, 4), SHARED, stream, as<T>(p), as<S>(dp),
                       as<T>(ds), t, scale);
            else
                launch(softmax_gradient<S, T, 1>, unsigned(rows), threads_of(t, 1), SHARED, stream, as<T>(p), as<S>(dp),
                       as<T>(ds), t, scale);
        });
    });
}
