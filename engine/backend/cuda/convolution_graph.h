/* A convolution of BF16 tensors as a cuDNN graph, in each of its directions. Thread: pure. */
#ifndef DRAFT_BACKEND_CUDA_CONVOLUTION_GRAPH_H
#define DRAFT_BACKEND_CUDA_CONVOLUTION_GRAPH_H

#include "backend/cuda/cudnn_plan.h"
#include "backend/shapes.h"

/* Tensors' ids. */
enum { DRAFT_CONVOLUTION_X = 1, DRAFT_CONVOLUTION_W, DRAFT_CONVOLUTION_Y, DRAFT_CONVOLUTION_BIAS };

/* `also`: forward, a bias [o] is added; towards the data, dx is added to; towards the filter (its gradient is BF16),
 * ignored. */
struct draft_cudnn_request draft_convolution_request(enum draft_cudnn_direction direction,
                                                     const struct draft_conv_shape *shape, bool also,
                                                     size_t most_workspace);

#endif
