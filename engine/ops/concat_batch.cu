/* concat_batch: formulas in concat_batch.c */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    void *y = call->out->data;
    for (int i = 0; i < 2; i++) {
        const int64_t n = draft_tensor_count(call->in[i]);
        draft_cuda_axpby(draft_stream(g), call->out->dtype, n, 1, call->in[i]->data, 0, nullptr, draft_overwrite(y));
        y = draft_at(y, call->out->dtype, n);
    }
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const void *dy = call->out->grad;
    for (int i = 0; i < 2; i++) {
        const int64_t n = draft_tensor_count(call->in[i]);
        const struct draft_cuda_gradient dx = draft_gradient(g, call->in[i]);
        if (dx.to)
            draft_cuda_axpby(draft_stream(g), call->out->dtype, n, 1, dy, 0, nullptr, dx);
        dy = draft_at(dy, call->out->dtype, n);
    }
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_concat_batch = {forward, backward};
