/* axpby: formulas in axpby.c */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_axpby_args &args = draft_args<struct draft_axpby_args>(call);
    draft_cuda_axpby(draft_stream(g), call->out->dtype, draft_tensor_count(call->out), args.alpha, call->in[0]->data,
                     args.beta, call->in[1] ? call->in[1]->data : nullptr, draft_overwrite(call->out->data));
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_axpby_args &args = draft_args<struct draft_axpby_args>(call);
    const void *dy = call->out->grad;
    const int64_t n = draft_tensor_count(call->out);
    const struct draft_cuda_gradient db = draft_gradient(g, call->in[1]);
    if (db.to)
        draft_cuda_axpby(draft_stream(g), call->out->dtype, n, args.beta, dy, 0, nullptr, db);
    const struct draft_cuda_gradient da = draft_gradient_in_place(g, call->out, call->in[0]);
    if (da.to)
        draft_cuda_axpby(draft_stream(g), call->out->dtype, n, args.alpha, dy, 0, nullptr, da);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_axpby = {forward, backward};
