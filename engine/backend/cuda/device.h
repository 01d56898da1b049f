/*
 * The CUDA backend as the ops' columns see it, without any CUDA header: products, and where the device finds what the
 * host owns. Kernels are in cuda.h.
 */
#ifndef DRAFT_BACKEND_CUDA_DEVICE_H
#define DRAFT_BACKEND_CUDA_DEVICE_H

#include "backend/cuda/cuda.h"
#include "backend/plugin.h"

#ifdef __cplusplus
extern "C" {
#endif

draft_cuda_stream draft_cuda_stream_of(const struct draft_backend *backend);
const struct draft_services *draft_cuda_services_of(const struct draft_backend *backend);

/* An address of one of the backend's arenas. */
bool draft_cuda_is_device(const struct draft_backend *backend, const void *address);
/* Whether rows of k numbers are multiplied together with an adapter's of rank r: whole vectors of both. */
static inline bool draft_cuda_folds(enum draft_dtype type, int64_t k, int64_t r)
{
    enum { VECTOR = 8 };
    return type == DRAFT_BF16 && r <= k && k % VECTOR == 0 && r % VECTOR == 0;
}

/* How many numbers stand behind each row of a matrix on the device: in BF16 those of its adapter's up matrix; of
 * siblings, which read the same rows, zeros where the others have theirs. */
static inline int64_t draft_cuda_tail(const struct draft_tensor *w, enum draft_dtype type)
{
    if (w->up == NULL || w->needs_grad || w->rank != 2)
        return 0;
    const int64_t r = w->up->dim[1] * (w->siblings != NULL ? w->siblings->count : 1);
    return draft_cuda_folds(type, w->dim[1], r) ? r : 0;
}

/* Where its own begin in a row that has a tail. */
static inline int64_t draft_cuda_up_place(const struct draft_tensor *w)
{
    int before = 0;
    while (w->siblings != NULL && w->siblings->tensor[before] != w)
        before++;
    return w->dim[1] + before * w->up->dim[1];
}

/* A weight's values on the device as F32 or BF16, with their tail, its siblings' before and behind them, copied there
 * at first use: one copy for each type asked for. A trained weight, whose F32 values are on the device, has its BF16
 * copy made there, and made anew in its place when it is forgotten: its address never changes. NULL: err is set. */
const void *draft_cuda_weight(struct draft_backend *backend, struct draft_tensor *w, enum draft_dtype type,
                              struct draft_error *err);
/* The device's copy of these bytes. NULL: err is set. */
const void *draft_cuda_constant(struct draft_backend *backend, const void *bytes, size_t size, struct draft_error *err);
/* False, and err says why, when a kernel could not be put into the stream since the last question. */
bool draft_cuda_launched(const char *doing, struct draft_error *err);

/* For each of `batch` row-major matrices: c[m, n] = alpha op(a)[m, k] op(b)[k, n] + beta c (+ bias[n]); meanings as in
 * cpu.h's struct draft_gemm. bias NULL: none. onto: a matrix like c that beta goes with; NULL: c itself. Summed in F32;
 * a, b and bias are of `type`, c of `c_type`: F32 for F32, either for BF16. */
struct draft_cuda_product {
    int64_t batch, m, n, k;
    int64_t trans_a, trans_b; /* 0 or 1 */
    int64_t lda, ldb, ldc, stride_a, stride_b, stride_c;
    const void *a, *b, *bias, *onto;
    void *c;
    float alpha, beta;
    enum draft_dtype type, c_type;
};
bool draft_cuda_multiply(struct draft_backend *backend, const struct draft_cuda_product *product,
                         struct draft_error *err);

/* The columns themselves: draft_cuda_op_<op>, each defined in ops/<op>.cu. */
#define DRAFT_OP(name) extern const struct draft_op_column draft_cuda_op_##name;
#include "ops/ops.def"
#undef DRAFT_OP
extern const struct draft_op_column *const draft_cuda_columns[]; /* columns.c */

#ifdef __cplusplus
}
#endif

#endif
