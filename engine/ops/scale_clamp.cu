/* scale_clamp: formulas in scale_clamp.c */
#include "backend/cuda/op.h"

static struct draft_cuda_clamp clamp_of(const struct draft_call *call)
{
    const struct draft_scale_clamp_args &args = draft_args<struct draft_scale_clamp_args>(call);
    return {args.scale, args.shift, args.lo, args.hi};
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_cuda_clamp clamp = clamp_of(call);
    draft_cuda_scale_clamp(draft_stream(g), call->out->dtype, draft_tensor_count(call->out), clamp, call->in[0]->data,
                           call->out->data);
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_cuda_clamp clamp = clamp_of(call);
    const void *dy = call->out->grad;
    const struct draft_cuda_gradient dx = draft_gradient_in_place(g, call->out, call->in[0]);
    if (dx.to)
        draft_cuda_scale_clamp_backward(draft_stream(g), call->out->dtype, draft_tensor_count(call->out), clamp,
                                        call->in[0]->data, dy, dx);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_scale_clamp = {forward, backward};
