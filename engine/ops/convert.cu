/* convert: formulas in convert.c */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_tensor *x = call->in[0];
    draft_cuda_convert(draft_stream(g), x->dtype, call->out->dtype, draft_tensor_count(x), x->data,
                       draft_overwrite(call->out->data));
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_cuda_gradient dx = draft_gradient(g, call->in[0]);
    if (dx.to)
        draft_cuda_convert(draft_stream(g), call->out->dtype, call->in[0]->dtype, draft_tensor_count(call->out),
                           call->out->grad, dx);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_convert = {forward, backward};
