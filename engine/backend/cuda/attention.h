/* Attention of BF16 tensors through cuDNN, for ops/attention.cu: no CUDA header is needed here. */
#ifndef DRAFT_BACKEND_CUDA_ATTENTION_H
#define DRAFT_BACKEND_CUDA_ATTENTION_H

#include "backend/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* q, o [n, s, heads d], k, v [n, t, heads d], BF16; log_sum [n, heads, s]. Backward also reads o and d_o, and writes
 * all of dq, dk, dv and row_sum, which is as large as log_sum. Formulas: ops/attention.c. */
struct draft_cuda_attention {
    struct draft_attention_shape shape;
    const void *q, *k, *v;
    void *o;
    float *log_sum;
    const void *d_o;
    void *dq, *dk, *dv;
    float *row_sum;
};

/* How cuDNN attends to a shape: as many pictures at a time as `pictures` (n or 1), in so much memory. */
struct draft_cuda_attention_way {
    bool fused;       /* false: cuDNN has no plan; there must be another way */
    int64_t pictures; /* what shape.n must be in a call */
    size_t workspace; /* bytes to give to the call; 0: the backend has enough of its own */
};
/* Plans are made here: a forward pass that asks for both ways decides for the whole job. */
bool draft_cuda_attention_way(struct draft_backend *backend, const struct draft_attention_shape *shape, bool backward,
                              struct draft_cuda_attention_way *way, struct draft_error *err);

/* Only for a fused way. */
bool draft_cuda_attend(struct draft_backend *backend, const struct draft_cuda_attention *call, void *workspace,
                       struct draft_error *err);
bool draft_cuda_attend_backward(struct draft_backend *backend, const struct draft_cuda_attention *call, void *workspace,
                                struct draft_error *err);

#ifdef __cplusplus
}
#endif

#endif
