/* concat_channels: formulas in concat_channels.c */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_tensor *a = call->in[0], *b = call->in[1];
    draft_cuda_join(draft_stream(g), call->out->dtype, draft_rows(a), draft_last(a), draft_last(b), a->data, b->data,
                    call->out->data);
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
