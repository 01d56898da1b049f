/*
 * What an op file includes: the graph's inside, the kernels, the descriptors' names, the calls' arguments, and the few
 * sentences and shapes that every wrapper needs.
 */
#ifndef DRAFT_OPS_OP_H
#define DRAFT_OPS_OP_H

#include <string.h>

#include "autograd/tape.h"
#include "backend/cpu/cpu.h"
#include "ops/args.h"
#include "ops/ops.h"

#define DRAFT_OP(name) extern const struct draft_op draft_op_##name;
#include "ops/ops.def"
#undef DRAFT_OP

extern const struct draft_op *const draft_op_list[]; /* in the order of ops.def; NULL at the end */

/* Descriptors' reads: backward reads dy alone; or the inputs, but not the result. */
unsigned draft_reads_nothing(const struct draft_call *call);
unsigned draft_reads_inputs(const struct draft_call *call);

enum { DRAFT_GRAIN = 16384 }; /* elements a task of an elementwise loop takes */

/* Fails the graph: "<op>: expected <expected>, got [2, 3] and [4, 5] (unet.weight)". Returns NULL. */
struct draft_tensor *draft_refuse(struct draft_graph *g, const char *op, const char *expected, int count,
                                  const struct draft_tensor *const *got);
#define DRAFT_REFUSE(g, op, expected, ...)                                                                             \
    draft_refuse(g, op, expected,                                                                                      \
                 (int)(sizeof((const struct draft_tensor *[]){__VA_ARGS__}) / sizeof(struct draft_tensor *)),          \
                 (const struct draft_tensor *[]){__VA_ARGS__})

/* Memory for the length of one forward or backward, from the step arena: take a mark before and release it after.
 * Ask for gradients and notes first, since they must stay. NULL: the graph has failed. */
void *draft_temporary(struct draft_graph *g, size_t bytes);

/* Copies (or adds) `rows` rows of `width` floats; strides in floats. */
void draft_copy_rows(struct draft_backend *backend, int64_t rows, int64_t width, const float *from, int64_t from_stride,
                     float *to, int64_t to_stride, bool accumulate);

/* The window at (top, left) of each picture of `large` [n, h, w, c] that `small` [n, height, width, c] is. */
struct draft_window {
    const struct draft_tensor *large, *small;
    int64_t top, left;
};
/* Copies (or adds) values out of the window, or into it. */
void draft_take_window(struct draft_backend *backend, const struct draft_window *window, const float *large,
                       float *small, bool accumulate);
void draft_put_window(struct draft_backend *backend, const struct draft_window *window, const float *small,
                      float *large, bool accumulate);

/* Layer i of linears as a call of linear's, for who computes them one by one; `part` is its result. */
static inline struct draft_call draft_linear_of(const struct draft_call *call, int i, struct draft_tensor *part)
{
    struct draft_linears_args *a = (struct draft_linears_args *)call->args;
    struct draft_call one = *call;
    *part = *call->out;
    part->dim[0] /= a->count;
    part->data = (char *)part->data + (size_t)(i * draft_tensor_count(part)) * (part->dtype == DRAFT_BF16 ? 2 : 4);
    one.in[1] = a->w[i]; /* linear's x, weight, bias, down, up */
    one.in[3] = a->down[i];
    one.in[4] = a->up[i];
    one.out = part;
    one.args = &a->each;
    return one;
}

static inline bool draft_is_f32(const struct draft_tensor *x, int rank)
{
    return x->dtype == DRAFT_F32 && x->rank == rank;
}

/* What activations may be; weights, losses and the parameters of norms are F32. */
static inline bool draft_is_float(const struct draft_tensor *x)
{
    return x->dtype == DRAFT_F32 || x->dtype == DRAFT_BF16;
}

static inline bool draft_is_activation(const struct draft_tensor *x, int rank)
{
    return draft_is_float(x) && x->rank == rank;
}

static inline bool draft_is_vector(const struct draft_tensor *x, int64_t n)
{
    return draft_is_f32(x, 1) && x->dim[0] == n;
}

static inline bool draft_same_shape(const struct draft_tensor *a, const struct draft_tensor *b)
{
    return a->dtype == b->dtype && a->rank == b->rank && memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim) == 0;
}

static inline int64_t draft_last(const struct draft_tensor *x)
{
    return x->dim[x->rank - 1];
}

/* All dimensions but the last: tokens, pixels. */
static inline int64_t draft_rows(const struct draft_tensor *x)
{
    int64_t rows = 1;
    for (int i = 0; i + 1 < x->rank; i++)
        rows *= x->dim[i];
    return rows;
}

/* [n, h, w, c] or [n, s, c]: h * w or s. */
static inline int64_t draft_positions(const struct draft_tensor *x)
{
    return x->rank == 4 ? x->dim[1] * x->dim[2] : x->dim[1];
}

static inline bool draft_is_sequence_or_image(const struct draft_tensor *x)
{
    return draft_is_float(x) && (x->rank == 3 || x->rank == 4);
}

#endif
