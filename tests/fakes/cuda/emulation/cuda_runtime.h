/*
 * Stands in for CUDA's cuda_runtime.h where a .cu file is compiled by a plain C++17 compiler, so that its kernels run
 * on the host: correctness tests on machines without a GPU, under AddressSanitizer and UndefinedBehaviorSanitizer. The
 * .cu file itself does not know: this folder comes first on the include path, and kernels are launched by
 * cudaLaunchKernel(), never with <<<>>>.
 *
 * Every thread of a block is a fiber; __syncthreads() and the warp's shuffles switch fibers (emulation.cpp). Reported
 * with source lines: threads at different barriers, some at a barrier while the rest returned or is in a shuffle, lanes
 * that disagree about a shuffle. Shared memory starts as NaN in every block.
 *
 * Shared memory is `static __shared__` or one `extern __shared__ unsigned char draft_dynamic_shared[]`. Not emulated:
 * tensor cores, textures, cooperative groups, atomics, blocks that run at the same time.
 */
#pragma once
#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <utility>

#include "emulation.h"

#define __global__
#define __device__
#define __grid_constant__
#define __host__
#define __forceinline__  inline
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
/* A section of its own, so that it can be filled with NaN block by block. (gcc ignores it inside templates. Dynamic
 * shared memory is only declared so: it is emulation.cpp's.) */
#define __shared__ __attribute__((section("emulated_shared")))

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c)
    {
    }
};
struct alignas(8) float2 { /* CUDA's alignment: the sanitizer sees a load that would fault on the device */
    float x, y;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y)
{
    return {x, y};
}

template <class T> void __stwb(T *to, T value)
{
    *to = value;
}

typedef struct CUstream_st *cudaStream_t;
enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorLaunchFailure = 719
};

namespace emulation
{
struct site { /* where in the source */
    const char *file;
    int line;
};
struct fiber;

/* Of the thread that runs just now. */
extern uint3 thread_index, block_index;
extern dim3 block_size, grid_size;

void barrier(site where);
/* Gives every lane of `mask` the value of the lane it asks for; for lanes outside of the mask: all ones, a NaN. */
uint64_t exchange(unsigned mask, uint64_t value, unsigned from_lane, site where);
unsigned lane();

cudaError_t launch(const char *name, dim3 grid, dim3 block, size_t shared, cudaStream_t stream, void *arguments,
                   void (*call)(void *arguments), void (*release)(void *arguments));

template <class T> T shuffle(unsigned mask, T value, unsigned from_lane, site where)
{
    static_assert(sizeof(T) <= 8, "a shuffle moves 8 bytes at most");
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = exchange(mask, bits, from_lane, where);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

template <class... P> struct bound { /* a kernel and its arguments */
    void (*kernel)(P...);
    std::tuple<P...> arguments;

    static void call(void *self)
    {
        std::apply(static_cast<bound *>(self)->kernel, static_cast<bound *>(self)->arguments);
    }
    static void release(void *self)
    {
        delete static_cast<bound *>(self);
    }
    template <size_t... I>
    bound(void (*k)(P...), void **from, std::index_sequence<I...>) : kernel(k), arguments(*static_cast<P *>(from[I])...)
    {
    }
};
} // namespace emulation

#define threadIdx (emulation::thread_index)
#define blockIdx  (emulation::block_index)
#define blockDim  (emulation::block_size)
#define gridDim   (emulation::grid_size)

#define EMULATED_SITE emulation::site where = {__builtin_FILE(), __builtin_LINE()}

inline void __syncthreads(EMULATED_SITE)
{
    emulation::barrier(where);
}

template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, EMULATED_SITE)
{
    return emulation::shuffle(mask, value, emulation::lane() ^ unsigned(bits), where);
}

template <class T> T __shfl_sync(unsigned mask, T value, int from_lane, EMULATED_SITE)
{
    return emulation::shuffle(mask, value, unsigned(from_lane) & 31u, where);
}

template <class... P>
cudaError_t cudaLaunchKernel(void (*kernel)(P...), dim3 grid, dim3 block, void **arguments, size_t shared,
                             cudaStream_t stream)
{
    using bound = emulation::bound<P...>;
    return emulation::launch(__PRETTY_FUNCTION__, grid, block, shared, stream,
                             new bound(kernel, arguments, std::index_sequence_for<P...>()), bound::call,
                             bound::release);
}
