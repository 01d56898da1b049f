/* Convolutions of BF16 tensors through cuDNN, for ops' columns: no CUDA header is needed here. */
#ifndef DRAFT_BACKEND_CUDA_CONVOLUTION_H
#define DRAFT_BACKEND_CUDA_CONVOLUTION_H

#include "backend/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* 1 x 1, or patches without overlap and padding: a product (of gathered pixels), for which cuDNN is not asked. */
static inline bool draft_cuda_is_product(const struct draft_conv_shape *s)
{
    const bool is_padded = s->pad_top != 0 || s->pad_left != 0 || s->pad_bottom != 0 || s->pad_right != 0;
    return s->kh == s->stride && s->kw == s->stride && !is_padded;
}

/* Its engines read 8 channels at once and copy whole tensors of any other number: we pad those that are few. */
static inline int64_t draft_cuda_padded_channels(int64_t c)
{
    return (c + 7) / 8 * 8;
}

/* Computes one of its tensors from the others; all BF16, channels last: x [n, h, w, c], w [o, kh, kw, c],
 * y [n, oh, ow, o]. Formulas: ops/conv2d.c. */
enum draft_cuda_convolved { DRAFT_CUDA_CONVOLVED_Y, DRAFT_CUDA_CONVOLVED_DX, DRAFT_CUDA_CONVOLVED_DW };
struct draft_cuda_convolution {
    enum draft_cuda_convolved result;
    struct draft_conv_shape shape;
    const void *x, *w, *y; /* or dx, dw, dy: the result's is written */
    const void *residual,
        *bias;       /* of y alone: is added, [n, oh, ow, o] and [o]; NULL: none. No residual without bias */
    bool accumulate; /* of dx alone: added to what it holds */
};
/* *done false: cuDNN has no plan that fits, nothing was computed, and there must be another way. It has one for every
 * convolution of the models we know (tests/engine/backend/cudnn) whose channels are multiples of 8. */
bool draft_cuda_convolve(struct draft_backend *backend, const struct draft_cuda_convolution *convolution, bool *done,
                         struct draft_error *err);

#ifdef __cplusplus
}
#endif

#endif
