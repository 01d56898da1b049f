/* What the backward passes of both norms share: the sums that dgamma, dbeta and dx are made of. z: x normalised; du:
 * the gradient at the norm's output. */
#ifndef DRAFT_BACKEND_CUDA_KERNELS_NORM_CUH
#define DRAFT_BACKEND_CUDA_KERNELS_NORM_CUH

#include "backend/cuda/kernels/columns.cuh"

struct gradient_sums {
    float du, du_z; /* sums of du and of du z */

    __device__ void operator+=(const gradient_sums &other)
    {
        du += other.du;
        du_z += other.du_z;
    }
};

/* dgamma and dbeta from the parts of every chunk of every sample. */
struct parameter_gradients {
    const gradient_sums *parts; /* [count, c] */
    int64_t count, c;
    struct draft_cuda_gradient dgamma, dbeta;

    static __device__ void give(const struct draft_cuda_gradient &to, int64_t column, float value)
    {
        float *p = static_cast<float *>(to.to);
        if (p)
            p[column] = to.accumulate ? p[column] + value : value;
    }
    __device__ void operator()(int64_t column) const
    {
        gradient_sums s = {};
        for (int64_t i = 0; i < count; i++)
            s += parts[i * c + column];
        give(dgamma, column, s.du_z);
        give(dbeta, column, s.du);
    }
};

#endif
