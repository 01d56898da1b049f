/* upsample_nearest: formulas in upsample_nearest.c */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_cuda_image image = draft_image(call);
    draft_cuda_upsample_nearest(draft_stream(g), call->out->dtype, &image, call->in[0]->data, call->out->data);
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_cuda_image image = draft_image(call);
    const struct draft_cuda_gradient dx = draft_gradient(g, call->in[0]);
    if (dx.to)
        draft_cuda_upsample_nearest_backward(draft_stream(g), call->out->dtype, &image, call->out->grad, dx);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_upsample_nearest = {forward, backward};
