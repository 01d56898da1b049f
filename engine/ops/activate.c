/*
 * activate: y = f(x), element by element; dx = dy f'(x)
 *   silu x sigmoid(x) · gelu x Phi(x), exact · quick_gelu x sigmoid(1.702 x) · relu max(x, 0)
 */
#include "ops/op.h"

#include <assert.h>

static enum draft_map map_of(enum draft_activation kind)
{
    switch (kind) {
    case DRAFT_SILU:
        return DRAFT_MAP_SILU;
    case DRAFT_GELU:
        return DRAFT_MAP_GELU;
    case DRAFT_QUICK_GELU:
        return DRAFT_MAP_QUICK_GELU;
    case DRAFT_RELU:
        return DRAFT_MAP_RELU;
    }
    assert(!"an activation of enum draft_activation");
    return DRAFT_MAP_RELU;
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const enum draft_map *map = call->args;
    draft_cpu_map(g->backend, *map, draft_tensor_count(call->out), draft_f32(call->in[0]), draft_f32(call->out));
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const enum draft_map *map = call->args;
    const float *dy = call->out->grad;
    bool accumulate;
    float *dx = draft_grad_in_place(g, call->out, call->in[0], &accumulate);
    if (dx != NULL)
        draft_cpu_map_backward(g->backend, *map, draft_tensor_count(call->out), draft_f32(call->in[0]), dy, dx,
                               accumulate);
    return draft_graph_ok(g);
}

const struct draft_op draft_op_activate = {
    .name = "activate", .id = DRAFT_OP_activate, .forward = forward, .backward = backward, .reads = draft_reads_inputs};

struct draft_tensor *draft_activate(struct draft_graph *g, struct draft_tensor *x, enum draft_activation kind)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL);
    if (!draft_is_float(x))
        return DRAFT_REFUSE(g, "activate", "x in F32 or BF16", x);
    enum draft_map map = map_of(kind);
    struct draft_call call = {.op = &draft_op_activate, .in = {x}, .args = &map, .args_size = sizeof map};
    call.out = draft_new(g, x->dtype, x->rank, x->dim);
    return draft_graph_run(g, &call);
}
