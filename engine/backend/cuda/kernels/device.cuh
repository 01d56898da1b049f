/*
 * What every kernel file stands on: launching, 16-byte loads and stores, dispatch over element types, and the functions
 * that cpu/kernels/vec.h has for the CPU. Written once: nvcc compiles it for the device; for tests without one, a C++
 * compiler with tests/fakes/cuda/emulation in front of its include path.
 */
#ifndef DRAFT_BACKEND_CUDA_KERNELS_DEVICE_CUH
#define DRAFT_BACKEND_CUDA_KERNELS_DEVICE_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cassert>
#include <cstring>
#include <initializer_list>
#include <type_traits>

#include "backend/cuda/cuda.h"

/* --- Launching ---------------------------------------------------------------------------------------------------- */

/* Nothing to do is not an error here, though an empty grid is one to the runtime; nor is a stream that does nothing,
 * where launches are counted all the same. */
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream, A... arguments)
{
    if (grid.x == 0 || grid.y == 0 || grid.z == 0)
        return;
    draft_cuda_launches++;
    if (stream == DRAFT_CUDA_DRY_STREAM)
        return;
    auto call = [&](P... parameters) {
        void *pointers[] = {&parameters...};
        cudaLaunchKernel(kernel, grid, block, pointers, shared, stream);
    };
    call(static_cast<P>(arguments)...);
}

inline int64_t divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* f(i) for every i < count, a thread each: all that is elementwise. (__grid_constant__: arrays in f are read where the
 * parameters are, instead of being copied to every thread's stack first.) */
enum { EACH_BLOCK = 256 };
template <class F> __global__ void __launch_bounds__(EACH_BLOCK) each(int64_t count, const __grid_constant__ F f)
{
    const int64_t i = int64_t(blockIdx.x) * EACH_BLOCK + threadIdx.x;
    if (i < count)
        f(i);
}

template <class F> void run_each(cudaStream_t stream, int64_t count, F f)
{
    launch(each<F>, unsigned(divide_up(count, EACH_BLOCK)), EACH_BLOCK, 0, stream, count, f);
}

/* The launch's shared memory, as an array. */
extern __shared__ __align__(16) unsigned char draft_dynamic_shared[];
template <class T> static __device__ __forceinline__ T *dynamic_shared()
{
    return reinterpret_cast<T *>(draft_dynamic_shared);
}

/* --- Elements: stored as float or bf16, worked on as float -------------------------------------------------------- */

static __device__ __forceinline__ float widen(float v)
{
    return v;
}

static __device__ __forceinline__ float widen(__nv_bfloat16 v)
{
    return __bfloat162float(v);
}

static __device__ __forceinline__ void narrow(float v, float *to)
{
    *to = v;
}

static __device__ __forceinline__ void narrow(float v, __nv_bfloat16 *to)
{
    *to = __float2bfloat16(v);
}

/* W neighbours, moved by one instruction: 16 bytes where shapes and addresses allow it, else one by one (W = 1). */
template <class T, int W> struct alignas(sizeof(T) * W) packed {
    T element[W];
};

template <int W, class T> static __device__ __forceinline__ void load(const T *from, float (&v)[W])
{
    const packed<T, W> p = *reinterpret_cast<const packed<T, W> *>(from);
    for (int k = 0; k < W; k++)
        v[k] = widen(p.element[k]);
}

/* W floats, 16 bytes at a time: what goes with W activations of either type (gamma, beta). */
template <int W> static __device__ __forceinline__ void load_floats(const float *from, float (&v)[W])
{
    constexpr int N = W % 4 == 0 ? 4 : 1;
    for (int k = 0; k < W; k += N) {
        const packed<float, N> p = *reinterpret_cast<const packed<float, N> *>(from + k);
        for (int i = 0; i < N; i++)
            v[k + i] = p.element[i];
    }
}

/* What one instruction stores. */
template <size_t BYTES> struct word;
template <> struct word<16> {
    using type = uint4;
};
template <> struct word<8> {
    using type = uint2;
};
template <> struct word<4> {
    using type = unsigned;
};
template <> struct word<2> {
    using type = unsigned short;
};

/* By the intrinsic of an ordinary store: an assignment of 16 bytes nvcc may take apart into four. */
template <int W, class T> static __device__ __forceinline__ void store(T *to, const float (&v)[W])
{
    packed<T, W> p;
    for (int k = 0; k < W; k++)
        narrow(v[k], &p.element[k]);
    typename word<sizeof p>::type bits;
    memcpy(&bits, &p, sizeof p);
    __stwb(reinterpret_cast<decltype(bits) *>(to), bits);
}

/* Writes a gradient, or adds to it. */
template <int W, class T> static __device__ __forceinline__ void put(T *to, bool accumulate, float (&v)[W])
{
    if (accumulate) {
        float old[W];
        load<W>(to, old);
        for (int k = 0; k < W; k++)
            v[k] += old[k];
    }
    store<W>(to, v);
}

/* --- Dispatch ----------------------------------------------------------------------------------------------------- */

/* f(T()) with the type that the enum names. */
template <class F> void with_type(enum draft_dtype type, F f)
{
    assert(type == DRAFT_F32 || type == DRAFT_BF16);
    if (type == DRAFT_BF16)
        f(__nv_bfloat16());
    else
        f(float());
}

inline bool aligned(const void *address)
{
    return reinterpret_cast<uintptr_t>(address) % 16 == 0;
}

/* f(T(), W): W elements are 16 bytes if every length is a multiple of that and every address aligned to it, else 1. The
 * order of a sum may depend on W: addresses follow from shapes, since arenas hand out whole cache lines. */
template <class F>
void with_vectors(enum draft_dtype type, std::initializer_list<int64_t> lengths,
                  std::initializer_list<const void *> addresses, F f)
{
    with_type(type, [&](auto t) {
        constexpr int wide = 16 / int(sizeof t);
        bool whole = true;
        for (int64_t length : lengths)
            whole = whole && length % wide == 0;
        for (const void *address : addresses)
            whole = whole && aligned(address);
        if (whole)
            f(t, std::integral_constant<int, wide>());
        else
            f(t, std::integral_constant<int, 1>());
    });
}

/* Inside such a function: the type, the width, and activations of that type. */
#define TYPE_OF(t)  decltype(t)
#define WIDTH_OF(w) decltype(w)::value
template <class T> const T *as(const void *p)
{
    return static_cast<const T *>(p);
}
template <class T> T *as(void *p)
{
    return static_cast<T *>(p);
}

/* --- Sums of a warp: every lane gets them, in one order ----------------------------------------------------------- */

enum { WARP = 32 };

template <class T> static __device__ __forceinline__ T warp_sum(T v)
{
    for (int d = WARP / 2; d > 0; d /= 2)
        v += __shfl_xor_sync(~0u, v, d);
    return v;
}

static __device__ __forceinline__ float warp_max(float v)
{
    for (int d = WARP / 2; d > 0; d /= 2)
        v = fmaxf(v, __shfl_xor_sync(~0u, v, d));
    return v;
}

/* --- Functions ---------------------------------------------------------------------------------------------------- */

/* Within some 1e-6 of itself, in 4 instructions instead of 20: 2^(-x log2 e) and the reciprocal as the device has them,
 * without what divisions do for denormal numbers. */
static __device__ __forceinline__ float sigmoid(float x)
{
    const float exponent = x * -1.44269504f;
#ifdef __CUDA_ARCH__
    float power, result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(exponent));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(1.0f + power));
    return result;
#else
    return 1.0f / (1.0f + exp2f(exponent));
#endif
}

static __device__ __forceinline__ float silu_slope(float x)
{
    const float s = sigmoid(x);
    return s * (1.0f + x * (1.0f - s));
}

/* The normal distribution function, by erfc so that the negative side does not cancel, and its density. */
static __device__ __forceinline__ float normal_cdf(float x)
{
    return 0.5f * erfcf(x * -0.70710678118654752f);
}

/* The same as exactly as T holds it: by erf for bf16, where what cancels is far below a product's last digit. */
template <class T> static __device__ __forceinline__ float normal_cdf_for(float x)
{
    return sizeof(T) == 2 ? 0.5f + 0.5f * erff(x * 0.70710678118654752f) : normal_cdf(x);
}

static __device__ __forceinline__ float normal_density(float x)
{
    return 0.3989422804014327f * expf(-0.5f * x * x);
}

#endif
