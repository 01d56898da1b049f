/* crop: formulas in crop.c */
#include "backend/cuda/op.h"

static struct draft_cuda_window window_of(const struct draft_call *call)
{
    const struct draft_crop_args &args = draft_args<struct draft_crop_args>(call);
    return draft_window_in(call->in[0], call->out, args.top, args.left);
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_cuda_window window = window_of(call);
    draft_cuda_cut(draft_stream(g), call->out->dtype, &window, call->in[0]->data, draft_overwrite(call->out->data));
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_cuda_window window = window_of(call);
    const struct draft_cuda_gradient dx = draft_gradient(g, call->in[0]);
    if (dx.to)
        draft_cuda_paste(draft_stream(g), call->out->dtype, &window, call->out->grad, dx, !dx.accumulate);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_crop = {forward, backward};
