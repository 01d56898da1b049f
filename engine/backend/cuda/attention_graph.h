/*
 * Attention of BF16 tensors as a cuDNN graph in its composed form: products, reductions and pointwise operations that
 * cuDNN fuses into one kernel each way. Formulas: ops/attention.c. q, o [n, s, heads d] and k, v [n, t, heads d] stay
 * as they are: strides name the heads inside the rows.
 *
 * Backward is the reproducible form: dq is a product with the kept gradient of the scores, heads s t numbers of BF16 a
 * picture in the workspace, instead of a sum in no order. Thread: pure.
 */
#ifndef DRAFT_BACKEND_CUDA_ATTENTION_GRAPH_H
#define DRAFT_BACKEND_CUDA_ATTENTION_GRAPH_H

#include "backend/cuda/cudnn_plan.h"
#include "backend/shapes.h"

/* Tensors' ids. LOG_SUM [n, heads, s] F32: the log of each row's sum of exponentials, which backward reads; cuDNN has
 * no engine for a forward pass that does not write it. ROW_SUM, of its shape: memory that backward needs beside its
 * workspace. SCALE, ONE: numbers by value. */
enum {
    DRAFT_ATTENTION_Q = 1,
    DRAFT_ATTENTION_K,
    DRAFT_ATTENTION_V,
    DRAFT_ATTENTION_O,
    DRAFT_ATTENTION_LOG_SUM,
    DRAFT_ATTENTION_SCALE,
    DRAFT_ATTENTION_ONE,
    DRAFT_ATTENTION_DO,
    DRAFT_ATTENTION_DQ,
    DRAFT_ATTENTION_DK,
    DRAFT_ATTENTION_DV,
    DRAFT_ATTENTION_ROW_SUM
};

/* False: cuDNN's form of it is not known or not to be trusted (a causal mask, heads wider than 256 numbers or of odd
 * width); there is no request. */
bool draft_attention_request(const struct draft_attention_shape *shape, bool backward, size_t most_workspace,
                             struct draft_cudnn_request *request);

#endif
