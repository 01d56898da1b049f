/*
 * One number from very many: in double, in two stages. A block adds LONG_PART elements, each thread every 256th of
 * them; then one block adds the blocks' sums. The order follows from n alone.
 */
#ifndef DRAFT_BACKEND_CUDA_KERNELS_LONG_SUM_CUH
#define DRAFT_BACKEND_CUDA_KERNELS_LONG_SUM_CUH

#include "backend/cuda/kernels/device.cuh"

enum { LONG_BLOCK = 256, LONG_PART = 16 * LONG_BLOCK };
const size_t LONG_SHARED = LONG_BLOCK * sizeof(double); /* of every launch that uses long_block_sum */

/* For thread 0. */
static __device__ double long_block_sum(double v)
{
    double *of_thread = dynamic_shared<double>();
    const int t = threadIdx.x;
    of_thread[t] = v;
    for (int half = LONG_BLOCK / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half)
            of_thread[t] += of_thread[t + half];
    }
    return of_thread[0];
}

template <class F>
__global__ void __launch_bounds__(LONG_BLOCK) long_parts(const __grid_constant__ F f, double *parts, int64_t n)
{
    const int64_t begin = int64_t(blockIdx.x) * LONG_PART, end = begin + LONG_PART < n ? begin + LONG_PART : n;
    double sum = 0;
    for (int64_t i = begin + threadIdx.x; i < end; i += LONG_BLOCK)
        sum += f(i);
    sum = long_block_sum(sum);
    if (threadIdx.x == 0)
        parts[blockIdx.x] = sum;
}

template <class F>
__global__ void __launch_bounds__(LONG_BLOCK)
    long_total(const double *parts, int64_t count, const __grid_constant__ F finish)
{
    double sum = 0;
    for (int64_t i = threadIdx.x; i < count; i += LONG_BLOCK)
        sum += parts[i];
    sum = long_block_sum(sum);
    if (threadIdx.x == 0)
        finish(sum);
}

inline size_t long_sum_scratch(int64_t n)
{
    return size_t(divide_up(n, LONG_PART)) * sizeof(double);
}

/* finish(sum of f(i), i < n) on the device. */
template <class F, class G> void run_long_sum(cudaStream_t stream, int64_t n, F f, G finish, void *scratch)
{
    double *parts = static_cast<double *>(scratch);
    const int64_t count = divide_up(n, LONG_PART);
    launch(long_parts<F>, unsigned(count), LONG_BLOCK, LONG_SHARED, stream, f, parts, n);
    launch(long_total<G>, 1, LONG_BLOCK, LONG_SHARED, stream, parts, count, finish);
}

#endif
