/* concat_batch: formulas in concat_batch.c */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    float *y = draft_f32(call->out);
    for (int i = 0; i < 2; i++) {
        const int64_t n = draft_tensor_count(call->in[i]);
        draft_cuda_axpby(draft_stream(g), DRAFT_F32, n, 1, draft_on_device(g, call->in[i]), 0, nullptr,
                         draft_overwrite(y));
        y += n;
    }
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const float *dy = call->out->grad;
    for (int i = 0; i < 2; i++) {
        const int64_t n = draft_tensor_count(call->in[i]);
        const struct draft_cuda_gradient dx = draft_gradient(g, call->in[i]);
        if (dx.to)
            draft_cuda_axpby(draft_stream(g), DRAFT_F32, n, 1, dy, 0, nullptr, dx);
        dy += n;
    }
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_concat_batch = {forward, backward};
