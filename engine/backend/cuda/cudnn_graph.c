#include "backend/cuda/cudnn_graph.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- Descriptors ----------------------------------------------------------------------------------------------------
 */

void draft_cudnn_graph_clear(struct draft_cudnn_graph *graph)
{
    while (graph->count > 0)
        cudnnBackendDestroyDescriptor(graph->kept[--graph->count]);
    free(graph->kept);
    *graph = (struct draft_cudnn_graph){0};
}

static bool fine(const struct draft_cudnn_graph *graph)
{
    return graph->error.code == DRAFT_OK;
}

bool draft_cudnn_ok(struct draft_cudnn_graph *graph, cudnnStatus_t status, const char *doing)
{
    if (status == CUDNN_STATUS_SUCCESS)
        return true;
    char reason[256] = "";
    cudnnGetLastErrorString(reason, sizeof reason);
    reason[strcspn(reason, "\n")] = '\0';
    return draft_fail(&graph->error, DRAFT_INTERNAL, "cuDNN, %s: %s: %s", doing, cudnnGetErrorString(status), reason);
}

/* Descriptors are numbered in the order they are made, so that the text can name them. */
static int number_of(const struct draft_cudnn_graph *graph, draft_cudnn_descriptor descriptor)
{
    int i = 0;
    while (i < graph->count && graph->kept[i] != descriptor)
        i++;
    return i;
}

__attribute__((format(printf, 2, 3))) static void note(struct draft_cudnn_graph *graph, const char *format, ...)
{
    if (!fine(graph))
        return;
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(graph->text + graph->length, sizeof graph->text - graph->length, format, arguments);
    va_end(arguments);
    if (n < 0 || (size_t)n >= sizeof graph->text - graph->length)
        draft_fail(&graph->error, DRAFT_INTERNAL, "a cuDNN graph of more than %d letters", DRAFT_CUDNN_TEXT);
    else
        graph->length += (size_t)n;
}

draft_cudnn_descriptor draft_cudnn_make(struct draft_cudnn_graph *graph, cudnnBackendDescriptorType_t type)
{
    draft_cudnn_descriptor descriptor = NULL;
    if (fine(graph) && graph->count == graph->capacity) {
        int capacity = graph->capacity > 0 ? 2 * graph->capacity : 32;
        draft_cudnn_descriptor *kept = realloc(graph->kept, (size_t)capacity * sizeof *kept);
        if (kept == NULL) {
            draft_fail(&graph->error, DRAFT_OUT_OF_MEMORY, "no memory for a cuDNN graph");
            return NULL;
        }
        graph->kept = kept;
        graph->capacity = capacity;
    }
    if (!fine(graph) || !draft_cudnn_ok(graph, cudnnBackendCreateDescriptor(type, &descriptor), "making a descriptor"))
        return NULL;
    return graph->kept[graph->count++] = descriptor;
}

void draft_cudnn_set(struct draft_cudnn_graph *graph, draft_cudnn_descriptor descriptor,
                     cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                     const void *values)
{
    if (!fine(graph))
        return;
    char doing[40];
    snprintf(doing, sizeof doing, "setting attribute %d", (int)name);
    draft_cudnn_ok(graph, cudnnBackendSetAttribute(descriptor, name, type, count, values), doing);
}

void draft_cudnn_attach(struct draft_cudnn_graph *graph, draft_cudnn_descriptor descriptor,
                        cudnnBackendAttributeName_t name, draft_cudnn_descriptor child)
{
    if (child != NULL)
        draft_cudnn_set(graph, descriptor, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &child);
}

void draft_cudnn_finish(struct draft_cudnn_graph *graph, draft_cudnn_descriptor descriptor, const char *what)
{
    if (fine(graph))
        draft_cudnn_ok(graph, cudnnBackendFinalize(descriptor), what);
}

static void set_numbers(struct draft_cudnn_graph *graph, draft_cudnn_descriptor descriptor,
                        cudnnBackendAttributeName_t name, int64_t count, const int64_t *numbers)
{
    draft_cudnn_set(graph, descriptor, name, CUDNN_TYPE_INT64, count, numbers);
}

/* --- Tensors --------------------------------------------------------------------------------------------------------
 */

draft_cudnn_descriptor draft_cudnn_tensor(struct draft_cudnn_graph *graph, const struct draft_cudnn_tensor *t)
{
    enum { ALIGNMENT = 16, FIRST_VIRTUAL = 1000 };
    const bool is_virtual = t->id == 0;
    const int64_t id = is_virtual ? FIRST_VIRTUAL + graph->virtual_tensors++ : t->id;
    const int64_t alignment = t->by_value ? (int64_t)sizeof(float) : ALIGNMENT;
    draft_cudnn_descriptor tensor = draft_cudnn_make(graph, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    draft_cudnn_set(graph, tensor, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &t->type);
    set_numbers(graph, tensor, CUDNN_ATTR_TENSOR_DIMENSIONS, 4, t->dim);
    set_numbers(graph, tensor, CUDNN_ATTR_TENSOR_STRIDES, 4, t->stride);
    set_numbers(graph, tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID, 1, &id);
    set_numbers(graph, tensor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 1, &alignment);
    if (is_virtual)
        draft_cudnn_set(graph, tensor, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    if (t->by_value)
        draft_cudnn_set(graph, tensor, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &t->by_value);
    draft_cudnn_finish(graph, tensor, "a tensor");
    note(graph, "tensor %d id %lld type %d%s", number_of(graph, tensor), (long long)id, (int)t->type,
         t->by_value ? " by value" : "");
    for (int i = 0; i < 4; i++)
        note(graph, " %lld:%lld", (long long)t->dim[i], (long long)t->stride[i]);
    note(graph, "\n");
    return tensor;
}

draft_cudnn_descriptor draft_cudnn_image(struct draft_cudnn_graph *graph, int64_t id, cudnnDataType_t type, int64_t n,
                                         int64_t h, int64_t w, int64_t c)
{
    return draft_cudnn_tensor(
        graph,
        &(struct draft_cudnn_tensor){.id = id, .type = type, .dim = {n, c, h, w}, .stride = {h * w * c, 1, w * c, c}});
}

draft_cudnn_descriptor draft_cudnn_scalar(struct draft_cudnn_graph *graph, int64_t id)
{
    return draft_cudnn_tensor(
        graph, &(struct draft_cudnn_tensor){
                   .id = id, .type = CUDNN_DATA_FLOAT, .dim = {1, 1, 1, 1}, .stride = {1, 1, 1, 1}, .by_value = true});
}

/* --- Operations -----------------------------------------------------------------------------------------------------
 */

/* What an operation computes with, apart from its tensors. */
static void compute_in_f32(struct draft_cudnn_graph *graph, draft_cudnn_descriptor descriptor,
                           cudnnBackendAttributeName_t name)
{
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    draft_cudnn_set(graph, descriptor, name, CUDNN_TYPE_DATA_TYPE, 1, &f32);
}

static void add_operation(struct draft_cudnn_graph *graph, draft_cudnn_descriptor operation, const char *what)
{
    draft_cudnn_finish(graph, operation, what);
    if (!fine(graph))
        return;
    if (graph->operations == DRAFT_CUDNN_OPERATIONS)
        draft_fail(&graph->error, DRAFT_INTERNAL, "a cuDNN graph of more than %d operations", DRAFT_CUDNN_OPERATIONS);
    else
        graph->operation[graph->operations++] = operation;
}

static draft_cudnn_descriptor geometry(struct draft_cudnn_graph *graph, const struct draft_cudnn_convolution *c)
{
    const int64_t axes = 2, stride[2] = {c->stride, c->stride}, dilation[2] = {1, 1};
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    draft_cudnn_descriptor d = draft_cudnn_make(graph, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    set_numbers(graph, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 1, &axes);
    compute_in_f32(graph, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE);
    draft_cudnn_set(graph, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set_numbers(graph, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, 2, c->pad_before);
    set_numbers(graph, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, 2, c->pad_after);
    set_numbers(graph, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, 2, stride);
    set_numbers(graph, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, 2, dilation);
    draft_cudnn_finish(graph, d, "a convolution's geometry");
    return d;
}

void draft_cudnn_convolution(struct draft_cudnn_graph *graph, const struct draft_cudnn_convolution *c)
{
    static const struct {
        cudnnBackendDescriptorType_t type;
        cudnnBackendAttributeName_t geometry, x, w, y, alpha, beta;
    } names[] = {
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
    };
    const float alpha = 1;
    draft_cudnn_descriptor shape = geometry(graph, c);
    draft_cudnn_descriptor operation = draft_cudnn_make(graph, names[c->direction].type);
    draft_cudnn_attach(graph, operation, names[c->direction].geometry, shape);
    draft_cudnn_attach(graph, operation, names[c->direction].x, c->x);
    draft_cudnn_attach(graph, operation, names[c->direction].w, c->w);
    draft_cudnn_attach(graph, operation, names[c->direction].y, c->y);
    draft_cudnn_set(graph, operation, names[c->direction].alpha, CUDNN_TYPE_FLOAT, 1, &alpha);
    draft_cudnn_set(graph, operation, names[c->direction].beta, CUDNN_TYPE_FLOAT, 1, &c->beta);
    add_operation(graph, operation, "a convolution");
    note(graph, "convolution %d x %d w %d y %d stride %lld pad %lld %lld %lld %lld beta %g\n", (int)c->direction,
         number_of(graph, c->x), number_of(graph, c->w), number_of(graph, c->y), (long long)c->stride,
         (long long)c->pad_before[0], (long long)c->pad_before[1], (long long)c->pad_after[0],
         (long long)c->pad_after[1], (double)c->beta);
}

void draft_cudnn_pointwise(struct draft_cudnn_graph *graph, cudnnPointwiseMode_t mode, draft_cudnn_descriptor x,
                           draft_cudnn_descriptor b, draft_cudnn_descriptor y)
{
    draft_cudnn_descriptor how = draft_cudnn_make(graph, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    draft_cudnn_set(graph, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    compute_in_f32(graph, how, CUDNN_ATTR_POINTWISE_MATH_PREC);
    draft_cudnn_finish(graph, how, "a pointwise mode");
    draft_cudnn_descriptor operation = draft_cudnn_make(graph, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    draft_cudnn_attach(graph, operation, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    draft_cudnn_attach(graph, operation, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    draft_cudnn_attach(graph, operation, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    draft_cudnn_attach(graph, operation, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    add_operation(graph, operation, "a pointwise operation");
    note(graph, "pointwise %d x %d", (int)mode, number_of(graph, x));
    if (b != NULL)
        note(graph, " b %d", number_of(graph, b));
    note(graph, " y %d\n", number_of(graph, y));
}

void draft_cudnn_matmul(struct draft_cudnn_graph *graph, draft_cudnn_descriptor a, draft_cudnn_descriptor b,
                        draft_cudnn_descriptor c)
{
    draft_cudnn_descriptor how = draft_cudnn_make(graph, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    compute_in_f32(graph, how, CUDNN_ATTR_MATMUL_COMP_TYPE);
    draft_cudnn_finish(graph, how, "a product's type");
    draft_cudnn_descriptor operation = draft_cudnn_make(graph, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    draft_cudnn_attach(graph, operation, CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
    draft_cudnn_attach(graph, operation, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    draft_cudnn_attach(graph, operation, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    draft_cudnn_attach(graph, operation, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
    add_operation(graph, operation, "a product");
    note(graph, "matmul %d %d %d\n", number_of(graph, a), number_of(graph, b), number_of(graph, c));
}

void draft_cudnn_reduce(struct draft_cudnn_graph *graph, cudnnReduceTensorOp_t mode, draft_cudnn_descriptor x,
                        draft_cudnn_descriptor y)
{
    draft_cudnn_descriptor how = draft_cudnn_make(graph, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    draft_cudnn_set(graph, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &mode);
    compute_in_f32(graph, how, CUDNN_ATTR_REDUCTION_COMP_TYPE);
    draft_cudnn_finish(graph, how, "a reduction's mode");
    draft_cudnn_descriptor operation = draft_cudnn_make(graph, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    draft_cudnn_attach(graph, operation, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how);
    draft_cudnn_attach(graph, operation, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    draft_cudnn_attach(graph, operation, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    add_operation(graph, operation, "a reduction");
    note(graph, "reduce %d %d %d\n", (int)mode, number_of(graph, x), number_of(graph, y));
}

void draft_cudnn_reshape(struct draft_cudnn_graph *graph, draft_cudnn_descriptor x, draft_cudnn_descriptor y)
{
    draft_cudnn_descriptor operation = draft_cudnn_make(graph, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    draft_cudnn_attach(graph, operation, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
    draft_cudnn_attach(graph, operation, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
    add_operation(graph, operation, "a reshape");
    note(graph, "reshape %d %d\n", number_of(graph, x), number_of(graph, y));
}
