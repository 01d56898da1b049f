/* mean: formulas in mean.c */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const int64_t n = draft_tensor_count(call->in[0]);
    const struct draft_mark mark = draft_graph_mark(g);
    void *scratch = draft_temporary(g, draft_cuda_mean_scratch(n));
    if (scratch)
        draft_cuda_mean(draft_stream(g), call->in[0]->dtype, n, call->in[0]->data, draft_f32(call->out), scratch);
    draft_graph_release(g, mark);
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_cuda_gradient dx = draft_gradient(g, call->in[0]);
    if (dx.to)
        draft_cuda_mean_backward(draft_stream(g), call->in[0]->dtype, draft_tensor_count(call->in[0]),
                                 draft_grad_f32(call->out), dx);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_mean = {forward, backward};
