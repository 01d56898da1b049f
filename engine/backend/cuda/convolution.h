/* Convolutions of BF16 tensors through cuDNN, for ops' columns: no CUDA header is needed here. */
#ifndef DRAFT_BACKEND_CUDA_CONVOLUTION_H
#define DRAFT_BACKEND_CUDA_CONVOLUTION_H

#include "backend/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Computes one of its tensors from the others; all BF16, channels last: x [n, h, w, c], w [o, kh, kw, c],
 * y [n, oh, ow, o], bias [o] or NULL. Formulas: ops/conv2d.c. */
enum draft_cuda_convolved { DRAFT_CUDA_CONVOLVED_Y, DRAFT_CUDA_CONVOLVED_DX, DRAFT_CUDA_CONVOLVED_DW };
struct draft_cuda_convolution {
    enum draft_cuda_convolved result;
    struct draft_conv_shape shape;
    const void *x, *w, *y; /* or dx, dw, dy: the result's is written */
    const void *bias;      /* of y alone */
    bool accumulate;       /* of dx alone: added to what it holds */
};
/* *done false: cuDNN has no plan that fits, nothing was computed, and there must be another way. It has one for every
 * convolution of the models we know (tests/engine/backend/cudnn) whose channels are multiples of 8. */
bool draft_cuda_convolve(struct draft_backend *backend, const struct draft_cuda_convolution *convolution, bool *done,
                         struct draft_error *err);

#ifdef __cplusplus
}
#endif

#endif
