/*
 * add_channels: y[n, p, c] = x[n, p, c] + b[n, c] at every position p (the time embedding in a ResNet block)
 *   dx = dy      db = sum over p of dy
 */
#include "ops/op.h"

#include <assert.h>

enum { X, B };

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_tensor *x = call->in[X];
    draft_cpu_add_channels(g->backend, x->dim[0], draft_positions(x), draft_last(x), draft_f32(x),
                           draft_f32(call->in[B]), draft_f32(call->out));
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_tensor *x = call->in[X];
    bool accumulate;
    float *db = draft_grad(g, call->in[B], &accumulate);
    if (db != NULL && !draft_cpu_sum_rows(g->backend, x->dim[0], draft_positions(x), draft_last(x), call->out->grad, db,
                                          accumulate, &g->error))
        return false;
    return draft_graph_ok(g) && draft_grad_pass(g, call->out, call->in[X]);
}

const struct draft_op draft_op_add_channels = {
    .name = "add_channels", .id = DRAFT_OP_add_channels, .forward = forward, .backward = backward};

struct draft_tensor *draft_add_channels(struct draft_graph *g, struct draft_tensor *x, struct draft_tensor *b)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL && b != NULL);
    if (!draft_is_sequence_or_image(x) || b->dtype != x->dtype || b->rank != 2 || b->dim[0] != x->dim[0] ||
        b->dim[1] != draft_last(x))
        return DRAFT_REFUSE(g, "add_channels", "x [n, h, w, c] or [n, s, c] and b [n, c]", x, b);
    struct draft_call call = {.op = &draft_op_add_channels, .in = {x, b}};
    call.out = draft_new(g, x->dtype, x->rank, x->dim);
    return draft_graph_run(g, &call);
}
