/* geglu: formulas in geglu.c */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const int64_t c = draft_last(call->out);
    draft_cuda_geglu(draft_stream(g), call->out->dtype, draft_rows(call->out), c, call->in[0]->data, call->out->data,
                     draft_row(call->out));
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_cuda_gradient dx = draft_gradient(g, call->in[0]);
    if (dx.to)
        draft_cuda_geglu_backward(draft_stream(g), call->out->dtype, draft_rows(call->out), draft_last(call->out),
                                  call->in[0]->data, call->out->grad, dx);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_geglu = {forward, backward};
