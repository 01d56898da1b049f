/* What the emulated device offers, and kernels that are wrong on purpose. */
#include "engine/backend/cuda/emulation_kernels.h"

#include "backend/cuda/kernels/device.cuh"

namespace
{
/* [12 blocks, 24 threads] of where each is, as one number. */
__global__ void indices(float *out)
{
    const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    out[block * 24 + thread] = float(block * 100 + thread);
}

/* Two warps, the second ragged: out[t] = the sum of its warp's thread numbers, the lane's partner, lane 3's number. */
__global__ void shuffles(float *out)
{
    const int t = threadIdx.x;
    float sum = float(t);
    for (int d = 16; d > 0; d /= 2) {
        const float other = __shfl_xor_sync(~0u, sum, d);
        sum += other == other ? other : 0; /* from a lane that is not there */
    }
    out[t * 3] = sum;
    out[t * 3 + 1] = __shfl_xor_sync(~0u, float(t), 1);
    out[t * 3 + 2] = __shfl_sync(~0u, float(t), 3);
}

/* Each half of a warp by itself, in a branch of its own. */
__global__ void half_warps(float *out)
{
    const int t = threadIdx.x;
    if (t < 16)
        out[t] = __shfl_xor_sync(0x0000ffffu, float(t), 8);
    else
        out[t] = __shfl_xor_sync(0xffff0000u, float(t), 4);
}

/* Turns 80 numbers around, three times, through static and dynamic memory. */
__global__ void reverses(float *out)
{
    static __shared__ float fixed[80];
    float *sized = dynamic_shared<float>();
    for (int round = 0; round < 3; round++) {
        fixed[threadIdx.x] = round == 0 ? float(threadIdx.x) : sized[threadIdx.x];
        __syncthreads();
        sized[79 - threadIdx.x] = fixed[threadIdx.x];
        __syncthreads();
    }
    out[threadIdx.x] = sized[threadIdx.x];
}

/* 1 if shared memory was NaN at the start of this block, which it is not at its end. */
__global__ void starts_as_nan(float *out)
{
    static __shared__ float fixed[4];
    float *sized = dynamic_shared<float>();
    out[blockIdx.x] = fixed[3] != fixed[3] && sized[7] != sized[7] ? 1.0f : 0.0f;
    fixed[3] = sized[7] = 1;
}

/* --- Wrong on purpose --------------------------------------------------------------------------------------------- */

__global__ void barrier_in_a_branch(float *out)
{
    if (threadIdx.x < 32)
        __syncthreads();
    out[threadIdx.x] = 1;
}

__global__ void two_barriers(float *out)
{
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = 1;
}

__global__ void half_a_shuffle(float *out)
{
    if (threadIdx.x < 16)
        out[threadIdx.x] = __shfl_xor_sync(~0u, 1.0f, 1);
}

__global__ void shuffle_against_barrier(float *out)
{
    if (threadIdx.x < 40)
        out[threadIdx.x] = __shfl_xor_sync(~0u, 1.0f, 1);
    else
        __syncthreads();
}

__global__ void wrong_mask(float *out)
{
    out[threadIdx.x] = __shfl_sync(0xffu, 1.0f, 0);
}

/* The other half may not have written yet. */
__global__ void missing_barrier(float *out)
{
    float *a = dynamic_shared<float>();
    a[threadIdx.x] = float(threadIdx.x);
    out[threadIdx.x] = a[63 - threadIdx.x];
}

/* The second number may overtake the first, which the other warp has not read. */
__global__ void overtaken(float *out)
{
    float *a = dynamic_shared<float>();
    if (threadIdx.x == 0)
        a[0] = 1;
    __syncthreads();
    out[threadIdx.x] = a[0];
    if (__shfl_sync(~0u, a[0], 0) == 1 && threadIdx.x == 0)
        a[0] = 2;
}

struct kernel {
    const char *name;
    void (*run)(float *out);
    dim3 grid, block;
    size_t shared;
};

const kernel kernels[] = {
    {"indices", indices, dim3(2, 3, 2), dim3(4, 3, 2), 0},
    {"shuffles", shuffles, 1, 40, 0},
    {"half_warps", half_warps, 1, 32, 0},
    {"reverses", reverses, 1, 80, 80 * sizeof(float)},
    {"starts_as_nan", starts_as_nan, 5, 1, 32},
    {"too_many_threads", indices, 1, 1025, 0},
    {"too_much_shared_memory", indices, 1, 24, (48 << 10) + 1},
    {"barrier_in_a_branch", barrier_in_a_branch, 2, 64, 0},
    {"two_barriers", two_barriers, 1, 64, 0},
    {"half_a_shuffle", half_a_shuffle, 1, 64, 0},
    {"shuffle_against_barrier", shuffle_against_barrier, 1, 64, 0},
    {"wrong_mask", wrong_mask, 1, 64, 0},
    {"overtaken", overtaken, 1, 64, sizeof(float)},
    {"missing_barrier", missing_barrier, 1, 64, 64 * sizeof(float)},
};
} // namespace

void launch_kernel(const char *name, float *out)
{
    for (const kernel &k : kernels)
        if (strcmp(k.name, name) == 0)
            return launch(k.run, k.grid, k.block, k.shared, nullptr, out);
    assert(!"a kernel of this file");
}
