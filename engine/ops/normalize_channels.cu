/* normalize_channels: formulas in normalize_channels.c */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_normalize_channels_args &args = draft_args<struct draft_normalize_channels_args>(call);
    draft_cuda_normalize_channels(draft_stream(g), call->out->dtype, draft_rows(call->out), args.c, args.mean, args.std,
                                  call->in[0]->data, call->out->data);
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_normalize_channels_args &args = draft_args<struct draft_normalize_channels_args>(call);
    const void *dy = call->out->grad;
    const struct draft_cuda_gradient dx = draft_gradient_in_place(g, call->out, call->in[0]);
    if (dx.to)
        draft_cuda_normalize_channels_backward(draft_stream(g), call->out->dtype, draft_rows(call->out), args.c,
                                               args.std, dy, dx);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_normalize_channels = {forward, backward};
