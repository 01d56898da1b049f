/* A convolution of BF16 tensors as a cuDNN graph, in each of its directions. Thread: pure. */
#ifndef DRAFT_BACKEND_CUDA_CONVOLUTION_GRAPH_H
#define DRAFT_BACKEND_CUDA_CONVOLUTION_GRAPH_H

#include "backend/cuda/cudnn_plan.h"
#include "backend/shapes.h"

/* Tensors' ids. */
enum {
    DRAFT_CONVOLUTION_X = 1,
    DRAFT_CONVOLUTION_W,
    DRAFT_CONVOLUTION_Y,
    DRAFT_CONVOLUTION_RESIDUAL,
    DRAFT_CONVOLUTION_BIAS
};

/* What more goes into the graph: forward, a residual of y's shape and a bias [o]; towards the data, dx as it was. The
 * filter's gradient is BF16 and overwritten. */
enum draft_convolution_also { DRAFT_CONVOLUTION_ALONE, DRAFT_CONVOLUTION_BIASED = 1, DRAFT_CONVOLUTION_ADDED = 2 };
struct draft_cudnn_request draft_convolution_request(enum draft_cudnn_direction direction,
                                                     const struct draft_conv_shape *shape,
                                                     enum draft_convolution_also also, size_t most_workspace);

#endif
