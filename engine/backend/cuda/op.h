/*
 * What an op's CUDA column, ops/<op>.cu, includes. It defines draft_cuda_<op>_forward and draft_cuda_<op>_backward with
 * the same duties as the functions in ops/<op>.c: ask draft_grad for each input's buffer, heed accumulate, keep notes.
 * It launches through cuda/cuda.h and product.c, and neither waits nor reads what the device has written.
 */
#ifndef DRAFT_BACKEND_CUDA_OP_H
#define DRAFT_BACKEND_CUDA_OP_H

#include <assert.h>

extern "C" {
#include "backend/cuda/device.h"
#include "ops/op.h"
}

/* struct draft_call's args as the op's own struct (ops/args.h). */
template <class T> const T &draft_args(const struct draft_call *call)
{
    return *static_cast<const T *>(call->args);
}

static inline draft_cuda_stream draft_stream(const struct draft_graph *g)
{
    return draft_cuda_stream_of(g->backend);
}

static inline size_t draft_size(enum draft_dtype type)
{
    return type == DRAFT_BF16 ? 2 : 4;
}

/* Numbers from one row to the next. */
static inline int64_t draft_row(const struct draft_tensor *x)
{
    return x->row ? x->row : draft_last(x);
}

/* `elements` further on. */
static inline const void *draft_at(const void *values, enum draft_dtype type, int64_t elements)
{
    return static_cast<const char *>(values) + elements * int64_t(draft_size(type));
}

static inline void *draft_at(void *values, enum draft_dtype type, int64_t elements)
{
    return static_cast<char *>(values) + elements * int64_t(draft_size(type));
}

/* Where the device finds x's values as `type`: an activation's own, a weight's copy. An F32 tensor of the device
 * without a name that is asked for as BF16 is converted into the step arena: take a mark before, release it after. NULL
 * for an absent input, and when the graph has failed. */
static inline const void *draft_on_device(struct draft_graph *g, struct draft_tensor *x, enum draft_dtype type)
{
    if (x == NULL || !draft_graph_ok(g))
        return NULL;
    const bool is_device = draft_cuda_is_device(g->backend, x->data);
    if (is_device && x->dtype == type)
        return x->data;
    if (!is_device || x->name)
        return draft_cuda_weight(g->backend, x, type, &g->error);
    assert(x->dtype == DRAFT_F32 && type == DRAFT_BF16);
    const int64_t n = draft_tensor_count(x);
    void *converted = draft_temporary(g, size_t(n) * draft_size(type));
    if (converted)
        draft_cuda_convert(draft_stream(g), DRAFT_F32, type, n, x->data, {converted, false});
    return converted;
}

/* Scales, shifts, losses. */
static inline const float *draft_floats_on_device(struct draft_graph *g, struct draft_tensor *x)
{
    return static_cast<const float *>(draft_on_device(g, x, DRAFT_F32));
}

/* The device's copy of an array on the host that is the same in every step. */
static inline const void *draft_constant(struct draft_graph *g, const void *bytes, size_t size)
{
    return draft_cuda_constant(g->backend, bytes, size, &g->error);
}

/* The values of an I32 tensor, which the host has, sent to the device for the length of a forward or backward: take a
 * mark before, release it after. Not inside a replayed block. */
static inline const int32_t *draft_sent(struct draft_graph *g, const struct draft_tensor *x)
{
    const size_t size = size_t(draft_tensor_count(x)) * sizeof(int32_t);
    void *to = draft_graph_ok(g) ? draft_temporary(g, size) : nullptr;
    const bool sent = to && draft_backend_kind(g->backend)->upload(g->backend, to, x->data, size, &g->error);
    return sent ? static_cast<const int32_t *>(to) : nullptr;
}

/* The gradient of x to write, as draft_grad gives it; `to` NULL: none. */
static inline struct draft_cuda_gradient draft_gradient(struct draft_graph *g, struct draft_tensor *x)
{
    bool accumulate = false;
    void *to = draft_grad(g, x, &accumulate);
    return (struct draft_cuda_gradient){to, accumulate};
}

static inline struct draft_cuda_gradient draft_gradient_in_place(struct draft_graph *g, struct draft_tensor *out,
                                                                 struct draft_tensor *x)
{
    bool accumulate = false;
    void *to = draft_grad_in_place(g, out, x, &accumulate);
    return (struct draft_cuda_gradient){to, accumulate};
}

/* x's own gradient, in the step arena where it is not F32. */
static inline const float *draft_gradient_as_floats(struct draft_graph *g, const struct draft_tensor *x)
{
    if (x->dtype == DRAFT_F32)
        return draft_grad_f32(x);
    const int64_t n = draft_tensor_count(x);
    float *converted =
        draft_graph_ok(g) ? static_cast<float *>(draft_temporary(g, size_t(n) * sizeof(float))) : nullptr;
    if (converted)
        draft_cuda_convert(draft_stream(g), x->dtype, DRAFT_F32, n, x->grad, {converted, false});
    return converted;
}

static inline struct draft_cuda_gradient draft_overwrite(void *to)
{
    return (struct draft_cuda_gradient){to, false};
}

/* The gradient of `added`, which was added to every row: sum[b, c] = sum over rows of x[b, rows, c]; x of `type`. */
static inline bool draft_sum_strided_rows(struct draft_graph *g, const struct draft_cuda_rows *rows,
                                          enum draft_dtype type, const void *x, const struct draft_tensor *added,
                                          struct draft_cuda_gradient sum)
{
    const struct draft_mark mark = draft_graph_mark(g);
    void *scratch = draft_graph_ok(g) ? draft_temporary(g, draft_cuda_sum_rows_scratch(rows)) : nullptr;
    if (scratch)
        draft_cuda_sum_rows(draft_stream(g), type, added->dtype, rows, x, sum, scratch);
    draft_graph_release(g, mark);
    return draft_graph_ok(g);
}

static inline bool draft_sum_rows(struct draft_graph *g, int64_t b, int64_t rows, int64_t c, enum draft_dtype type,
                                  const void *x, const struct draft_tensor *added, struct draft_cuda_gradient sum)
{
    const struct draft_cuda_rows shape = {.b = b, .rows = rows, .c = c, .x_stride = c, .b_stride = rows * c};
    return draft_sum_strided_rows(g, &shape, type, x, added, sum);
}

/* A matrix, taken as it is or transposed; numbers from one of its rows to the next, 0: its rows touch. */
struct draft_matrix {
    const void *values;
    bool transposed;
    int64_t row = 0;
};

/* The types of a product: of what is multiplied and of the bias, and of the result. */
struct draft_types {
    enum draft_dtype in, out;
};

/* c[m, n] = alpha op(a)[m, k] op(b)[k, n] (+ bias[n]) (+ c, or instead + onto[m, n]) */
static inline bool draft_product(struct draft_graph *g, struct draft_types types, int64_t m, int64_t n, int64_t k,
                                 struct draft_matrix a, struct draft_matrix b, float alpha, const void *bias,
                                 struct draft_cuda_gradient c, const void *onto = nullptr)
{
    const struct draft_cuda_product p = {.batch = 1,
                                         .m = m,
                                         .n = n,
                                         .k = k,
                                         .trans_a = a.transposed,
                                         .trans_b = b.transposed,
                                         .lda = a.row          ? a.row
                                                : a.transposed ? m
                                                               : k,
                                         .ldb = b.row          ? b.row
                                                : b.transposed ? k
                                                               : n,
                                         .ldc = n,
                                         .stride_a = 0,
                                         .stride_b = 0,
                                         .stride_c = 0,
                                         .a = a.values,
                                         .b = b.values,
                                         .bias = bias,
                                         .onto = onto,
                                         .c = c.to,
                                         .alpha = alpha,
                                         .beta = c.accumulate || onto ? 1.0f : 0.0f,
                                         .type = types.in,
                                         .c_type = types.out};
    return draft_graph_ok(g) && draft_cuda_multiply(g->backend, &p, &g->error);
}

/* scale x down^T, down [ranks, c], into the room behind the rows of x [.., c] (draft_new_rows). */
static inline bool draft_fill_room(struct draft_graph *g, const struct draft_tensor *x, int64_t ranks, const void *down,
                                   float scale)
{
    const int64_t c = draft_last(x);
    const struct draft_cuda_product p = {.batch = 1,
                                         .m = draft_rows(x),
                                         .n = ranks,
                                         .k = c,
                                         .trans_a = 0,
                                         .trans_b = 1,
                                         .lda = x->row,
                                         .ldb = c,
                                         .ldc = x->row,
                                         .stride_a = 0,
                                         .stride_b = 0,
                                         .stride_c = 0,
                                         .a = x->data,
                                         .b = down,
                                         .bias = nullptr,
                                         .onto = nullptr,
                                         .c = draft_at(x->data, x->dtype, c),
                                         .alpha = scale,
                                         .beta = 0,
                                         .type = x->dtype,
                                         .c_type = x->dtype};
    return draft_graph_ok(g) && draft_cuda_multiply(g->backend, &p, &g->error);
}

/* Channels first .. first+width-1 of x [.., c], for cutting out and pasting in. */
static inline struct draft_cuda_window draft_columns(const struct draft_tensor *x, int64_t first, int64_t width)
{
    const int64_t rows = draft_rows(x);
    return {.n = 1, .h = rows, .w = width, .big_h = rows, .big_w = draft_last(x), .top = 0, .left = first};
}

/* From in[0] [n, h, w, c] to out. */
static inline struct draft_cuda_image draft_image(const struct draft_call *call)
{
    const int64_t *x = call->in[0]->dim, *y = call->out->dim;
    return {.n = x[0], .h = x[1], .w = x[2], .c = x[3], .out_h = y[1], .out_w = y[2]};
}

/* The end of every column: the graph is whole, and the runtime took all launches. */
static inline bool draft_launched(struct draft_graph *g)
{
    return draft_graph_ok(g) && draft_cuda_launched("launching", &g->error);
}

/* crop and pad: `small` lies in `big` at (top, left); images [n, h, w, c]. */
static inline struct draft_cuda_window draft_window_in(const struct draft_tensor *big, const struct draft_tensor *small,
                                                       int64_t top, int64_t left)
{
    int64_t c = big->dim[3];
    return {.n = big->dim[0],
            .h = small->dim[1],
            .w = small->dim[2] * c,
            .big_h = big->dim[1],
            .big_w = big->dim[2] * c,
            .top = top,
            .left = left * c};
}

#endif
