/* slice_channels: formulas in slice_channels.c */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_slice_channels_args &args = draft_args<struct draft_slice_channels_args>(call);
    const struct draft_cuda_window window = draft_columns(call->in[0], args.first, draft_last(call->out));
    draft_cuda_cut(draft_stream(g), call->out->dtype, &window, call->in[0]->data, draft_overwrite(call->out->data));
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_slice_channels_args &args = draft_args<struct draft_slice_channels_args>(call);
    const struct draft_cuda_window window = draft_columns(call->in[0], args.first, draft_last(call->out));
    const struct draft_cuda_gradient dx = draft_gradient(g, call->in[0]);
    if (dx.to)
        draft_cuda_paste(draft_stream(g), call->out->dtype, &window, call->out->grad, dx, !dx.accumulate);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_slice_channels = {forward, backward};
