/* add: formulas in add.c */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    draft_cuda_axpby(draft_stream(g), call->out->dtype, draft_tensor_count(call->out), 1, call->in[0]->data, 1,
                     call->in[1]->data, draft_overwrite(call->out->data));
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_cuda_gradient da = draft_gradient(g, call->in[0]);
    if (da.to)
        draft_cuda_axpby(draft_stream(g), call->out->dtype, draft_tensor_count(call->out), 1, call->out->grad, 0,
                         nullptr, da);
    return draft_launched(g) && draft_grad_pass(g, call->out, call->in[1]);
}

const struct draft_op_column draft_cuda_op_add = {forward, backward};
