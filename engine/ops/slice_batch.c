/*
 * slice_batch: y [count, ..] = rows first .. first + count - 1 of x [n, ..], a view: no numbers move.
 *   dx: dy at those rows; the first writer zeroes the others, so that several slices of one x add up.
 */
#include "ops/op.h"

#include <assert.h>
#include <stdio.h>

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    (void)g, (void)call;
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_slice_batch_args *args = call->args;
    bool accumulate;
    float *dx = draft_grad(g, call->in[0], &accumulate);
    if (dx == NULL)
        return false;
    int64_t n = draft_tensor_count(call->out), all = draft_tensor_count(call->in[0]);
    if (!accumulate) {
        memset(dx, 0, (size_t)args->offset * sizeof *dx);
        memset(dx + args->offset + n, 0, (size_t)(all - args->offset - n) * sizeof *dx);
    }
    draft_cpu_axpby(g->backend, n, 1, call->out->grad, 0, NULL, dx + args->offset, accumulate);
    return true;
}

const struct draft_op draft_op_slice_batch = {.name = "slice_batch",
                                              .id = DRAFT_OP_slice_batch,
                                              .forward = forward,
                                              .backward = backward,
                                              .reads = draft_reads_nothing};

struct draft_tensor *draft_slice_batch(struct draft_graph *g, struct draft_tensor *x, int64_t first, int64_t count)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL);
    if (x->rank < 1 || first < 0 || count < 0 || first > x->dim[0] || count > x->dim[0] - first) {
        char expected[96];
        snprintf(expected, sizeof expected, "%lld rows from %lld on in the first dimension", (long long)count,
                 (long long)first);
        return DRAFT_REFUSE(g, "slice_batch", expected, x);
    }
    int64_t dim[DRAFT_MAX_RANK];
    memcpy(dim, x->dim, sizeof dim);
    dim[0] = count;
    int64_t row = x->dim[0] > 0 ? draft_tensor_count(x) / x->dim[0] : 0;
    struct draft_slice_batch_args args = {.offset = first * row};
    struct draft_call call = {.op = &draft_op_slice_batch, .in = {x}, .args = &args, .args_size = sizeof args};
    call.out = draft_new_view(g, x, x->rank, dim, (size_t)args.offset);
    return draft_graph_run(g, &call);
}
