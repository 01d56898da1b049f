/*
 * cuDNN's graph API (cudnnBackend*, cuDNN 9) in the part the backend uses: a graph is a list of operations over
 * tensors, which cudnn_plan.h makes a plan of. Tensors with an id are memory that the caller binds when the plan runs;
 * tensors without one (id 0, usually F32) live inside the fused kernel.
 *
 * cuDNN's dimensions are always n, c, h, w (or n, heads, rows, columns); strides say how they lie in memory.
 *
 * Errors: the first failing call is kept in graph->error, as a sentence; later calls do nothing and give NULL.
 * Ownership: the graph keeps every descriptor until draft_cudnn_graph_clear. Thread: one graph, one thread.
 */
#ifndef DRAFT_BACKEND_CUDA_CUDNN_GRAPH_H
#define DRAFT_BACKEND_CUDA_CUDNN_GRAPH_H

#include <cudnn.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

typedef cudnnBackendDescriptor_t draft_cudnn_descriptor;

enum { DRAFT_CUDNN_OPERATIONS = 32, DRAFT_CUDNN_TEXT = 8192 };

/* Zeroed at first. */
struct draft_cudnn_graph {
    draft_cudnn_descriptor *kept;
    int count, capacity;
    draft_cudnn_descriptor operation[DRAFT_CUDNN_OPERATIONS];
    int operations;
    int64_t virtual_tensors;
    char text[DRAFT_CUDNN_TEXT]; /* all that was asked for: equal texts are equal graphs */
    size_t length;
    struct draft_error error;
};

void draft_cudnn_graph_clear(struct draft_cudnn_graph *graph);

/* True when status is success; else graph->error says what was being done and cuDNN's own reason. */
bool draft_cudnn_ok(struct draft_cudnn_graph *graph, cudnnStatus_t status, const char *doing);

/* A descriptor of the graph's, its attributes, its end: for what the calls below have no name for. */
draft_cudnn_descriptor draft_cudnn_make(struct draft_cudnn_graph *graph, cudnnBackendDescriptorType_t type);
void draft_cudnn_set(struct draft_cudnn_graph *graph, draft_cudnn_descriptor descriptor,
                     cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                     const void *values);
void draft_cudnn_attach(struct draft_cudnn_graph *graph, draft_cudnn_descriptor descriptor,
                        cudnnBackendAttributeName_t name, draft_cudnn_descriptor child); /* child NULL: nothing */
void draft_cudnn_finish(struct draft_cudnn_graph *graph, draft_cudnn_descriptor descriptor, const char *what);

struct draft_cudnn_tensor {
    int64_t id; /* 1 .. 999; 0: inside the kernel */
    cudnnDataType_t type;
    int64_t dim[4], stride[4];
    bool by_value; /* one number, read on the host when the plan is executed, and frozen in a captured graph */
};
draft_cudnn_descriptor draft_cudnn_tensor(struct draft_cudnn_graph *graph, const struct draft_cudnn_tensor *tensor);
/* [n, h, w, c] as the engine has it; also a filter [o, kh, kw, c], and with n = h = w = 1 a bias [c]. */
draft_cudnn_descriptor draft_cudnn_image(struct draft_cudnn_graph *graph, int64_t id, cudnnDataType_t type, int64_t n,
                                         int64_t h, int64_t w, int64_t c);
draft_cudnn_descriptor draft_cudnn_scalar(struct draft_cudnn_graph *graph, int64_t id); /* F32, by value */

/* x, w, y forward; dx, w, dy towards the data; x, dw, dy towards the filter. What is written becomes the convolution
 * (+ beta times what it was). */
enum draft_cudnn_direction { DRAFT_CUDNN_FORWARD, DRAFT_CUDNN_BACKWARD_DATA, DRAFT_CUDNN_BACKWARD_FILTER };
struct draft_cudnn_convolution {
    enum draft_cudnn_direction direction;
    draft_cudnn_descriptor x, w, y;
    int64_t stride;
    int64_t pad_before[2], pad_after[2]; /* rows, columns */
    float beta;
};
void draft_cudnn_convolution(struct draft_cudnn_graph *graph, const struct draft_cudnn_convolution *convolution);

/* y = mode(x, b); b NULL: of one variable. Dimensions of 1 are repeated. */
void draft_cudnn_pointwise(struct draft_cudnn_graph *graph, cudnnPointwiseMode_t mode, draft_cudnn_descriptor x,
                           draft_cudnn_descriptor b, draft_cudnn_descriptor y);
/* c = a b over the last two dimensions */
void draft_cudnn_matmul(struct draft_cudnn_graph *graph, draft_cudnn_descriptor a, draft_cudnn_descriptor b,
                        draft_cudnn_descriptor c);
/* y = x reduced over the dimensions in which y has 1 */
void draft_cudnn_reduce(struct draft_cudnn_graph *graph, cudnnReduceTensorOp_t how, draft_cudnn_descriptor x,
                        draft_cudnn_descriptor y);
/* y is x with other dimensions and strides */
void draft_cudnn_reshape(struct draft_cudnn_graph *graph, draft_cudnn_descriptor x, draft_cudnn_descriptor y);

#endif
