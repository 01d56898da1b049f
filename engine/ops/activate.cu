/* activate: formulas in activate.c */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const enum draft_map map = draft_args<enum draft_map>(call);
    draft_cuda_map(draft_stream(g), call->out->dtype, map, draft_tensor_count(call->out), call->in[0]->data,
                   call->out->data);
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const enum draft_map map = draft_args<enum draft_map>(call);
    const void *dy = call->out->grad;
    const struct draft_cuda_gradient dx = draft_gradient_in_place(g, call->out, call->in[0]);
    if (dx.to)
        draft_cuda_map_backward(draft_stream(g), call->out->dtype, map, draft_tensor_count(call->out),
                                call->in[0]->data, dy, dx);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_activate = {forward, backward};
