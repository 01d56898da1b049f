/* concat_batch: formulas in concat_batch.c */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_tensor *a = call->in[0], *b = call->in[1];
    draft_cuda_join(draft_stream(g), call->out->dtype, 1, draft_tensor_count(a), draft_tensor_count(b), a->data,
                    b->data, call->out->data);
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
