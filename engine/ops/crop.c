/*
 * crop: y [n, height, width, c] = x [n, h, w, c] from (top, left)
 *   dx: dy in that window, zero outside
 */
#include "ops/op.h"

#include <assert.h>
#include <stdio.h>

static struct draft_window window_of(const struct draft_call *call)
{
    const struct draft_crop_args *args = call->args;
    return (struct draft_window){.large = call->in[0], .small = call->out, .top = args->top, .left = args->left};
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    struct draft_window window = window_of(call);
    draft_take_window(g->backend, &window, draft_f32(call->in[0]), draft_f32(call->out), false);
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    bool accumulate;
    float *dx = draft_grad(g, call->in[0], &accumulate);
    if (dx == NULL)
        return false;
    if (!accumulate)
        memset(dx, 0, (size_t)draft_tensor_count(call->in[0]) * sizeof *dx);
    struct draft_window window = window_of(call);
    draft_put_window(g->backend, &window, call->out->grad, dx, accumulate);
    return true;
}

const struct draft_op draft_op_crop = {
    .name = "crop", .id = DRAFT_OP_crop, .forward = forward, .backward = backward, .reads = draft_reads_nothing};

struct draft_tensor *draft_crop(struct draft_graph *g, struct draft_tensor *x, int64_t top, int64_t left,
                                int64_t height, int64_t width)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL);
    if (!draft_is_activation(x, 4) || top < 0 || left < 0 || height < 0 || width < 0 || top > x->dim[1] ||
        height > x->dim[1] - top || left > x->dim[2] || width > x->dim[2] - left) {
        char expected[128];
        snprintf(expected, sizeof expected, "x [n, h, w, c] with a window of %lld x %lld at (%lld, %lld)",
                 (long long)height, (long long)width, (long long)top, (long long)left);
        return DRAFT_REFUSE(g, "crop", expected, x);
    }
    struct draft_crop_args args = {top, left};
    struct draft_call call = {.op = &draft_op_crop, .in = {x}, .args = &args, .args_size = sizeof args};
    call.out = draft_new(g, x->dtype, 4, (int64_t[]){x->dim[0], height, width, x->dim[3]});
    return draft_graph_run(g, &call);
}
