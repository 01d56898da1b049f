/* cosine: formulas in cosine.c */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const int64_t *a = call->in[0]->dim;
    draft_cuda_cosine(draft_stream(g), call->in[0]->dtype, a[0], a[1], call->in[0]->data, call->in[1]->data,
                      draft_f32(call->out));
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const int64_t *dim = call->in[0]->dim;
    const void *value[] = {call->in[0]->data, call->in[1]->data};
    for (int i = 0; i < 2; i++) {
        const struct draft_cuda_gradient d = draft_gradient(g, call->in[i]);
        if (d.to)
            draft_cuda_cosine_backward(draft_stream(g), call->in[0]->dtype, dim[0], dim[1], value[i], value[1 - i],
                                       draft_grad_f32(call->out), d);
    }
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_cosine = {forward, backward};
