/* mean_square_difference: formulas in mean_square_difference.c */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const int64_t n = draft_tensor_count(call->in[0]);
    const struct draft_mark mark = draft_graph_mark(g);
    void *scratch = draft_temporary(g, draft_cuda_mean_scratch(n));
    if (scratch)
        draft_cuda_mean_square_difference(draft_stream(g), call->in[0]->dtype, n, call->in[0]->data, call->in[1]->data,
                                          draft_f32(call->out), scratch);
    draft_graph_release(g, mark);
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const int64_t n = draft_tensor_count(call->in[0]);
    const void *value[] = {call->in[0]->data, call->in[1]->data};
    for (int i = 0; i < 2; i++) {
        const struct draft_cuda_gradient d = draft_gradient(g, call->in[i]);
        if (d.to)
            draft_cuda_mean_square_difference_backward(draft_stream(g), call->in[0]->dtype, n, value[i], value[1 - i],
                                                       draft_grad_f32(call->out), d);
    }
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_mean_square_difference = {forward, backward};
