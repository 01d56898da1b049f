/*
 * slice_channels: y [.., count] = channels first .. first + count - 1 of x [.., c]
 *   dx: dy at those channels; the first writer zeroes the others.
 */
#include "ops/op.h"

#include <assert.h>
#include <stdio.h>

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_slice_channels_args *args = call->args;
    draft_copy_rows(g->backend, draft_rows(call->out), draft_last(call->out), draft_f32(call->in[0]) + args->first,
                    draft_last(call->in[0]), draft_f32(call->out), draft_last(call->out), false);
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_slice_channels_args *args = call->args;
    bool accumulate;
    float *dx = draft_grad(g, call->in[0], &accumulate);
    if (dx == NULL)
        return false;
    if (!accumulate)
        memset(dx, 0, (size_t)draft_tensor_count(call->in[0]) * sizeof *dx);
    draft_copy_rows(g->backend, draft_rows(call->out), draft_last(call->out), call->out->grad, draft_last(call->out),
                    dx + args->first, draft_last(call->in[0]), accumulate);
    return true;
}

const struct draft_op draft_op_slice_channels = {.name = "slice_channels",
                                                 .id = DRAFT_OP_slice_channels,
                                                 .forward = forward,
                                                 .backward = backward,
                                                 .reads = draft_reads_nothing};

struct draft_tensor *draft_slice_channels(struct draft_graph *g, struct draft_tensor *x, int64_t first, int64_t count)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL);
    if (!draft_is_float(x) || x->rank < 1 || first < 0 || count < 0 || first > draft_last(x) ||
        count > draft_last(x) - first) {
        char expected[96];
        snprintf(expected, sizeof expected, "%lld channels from %lld on in the last dimension", (long long)count,
                 (long long)first);
        return DRAFT_REFUSE(g, "slice_channels", expected, x);
    }
    int64_t dim[DRAFT_MAX_RANK];
    memcpy(dim, x->dim, sizeof dim);
    dim[x->rank - 1] = count;
    struct draft_slice_channels_args args = {first};
    struct draft_call call = {.op = &draft_op_slice_channels, .in = {x}, .args = &args, .args_size = sizeof args};
    call.out = draft_new(g, x->dtype, x->rank, dim);
    return draft_graph_run(g, &call);
}
