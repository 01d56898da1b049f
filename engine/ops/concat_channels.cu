/* concat_channels: formulas in concat_channels.c */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    int64_t first = 0;
    for (int i = 0; i < 2; i++) {
        const struct draft_cuda_window window = draft_columns(call->out, first, draft_last(call->in[i]));
        draft_cuda_paste(draft_stream(g), call->out->dtype, &window, call->in[i]->data,
                         draft_overwrite(call->out->data), false);
        first += window.w;
    }
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    int64_t first = 0;
    for (int i = 0; i < 2; i++) {
        const struct draft_cuda_window window = draft_columns(call->out, first, draft_last(call->in[i]));
        const struct draft_cuda_gradient dx = draft_gradient(g, call->in[i]);
        if (dx.to)
            draft_cuda_cut(draft_stream(g), call->out->dtype, &window, call->out->grad, dx);
        first += window.w;
    }
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_concat_channels = {forward, backward};
