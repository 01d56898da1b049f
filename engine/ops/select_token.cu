/* select_token: formulas in select_token.c */
#include "backend/cuda/op.h"

enum { INDEX };

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const int64_t *x = call->in[0]->dim;
    const struct draft_mark mark = draft_graph_mark(g);
    const int32_t *index = call->saved[INDEX] ? draft_sent(g, call->saved[INDEX]) : nullptr;
    if (draft_graph_ok(g))
        draft_cuda_select_token(draft_stream(g), call->out->dtype, x[0], x[1], x[2], index, call->in[0]->data,
                                call->out->data);
    draft_graph_release(g, mark);
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const int64_t *x = call->in[0]->dim;
    const struct draft_cuda_gradient dx = draft_gradient(g, call->in[0]);
    const struct draft_mark mark = draft_graph_mark(g);
    const int32_t *index = call->saved[INDEX] ? draft_sent(g, call->saved[INDEX]) : nullptr;
    if (dx.to && draft_graph_ok(g))
        draft_cuda_select_token_backward(draft_stream(g), call->out->dtype, x[0], x[1], x[2], index, call->out->grad,
                                         dx);
    draft_graph_release(g, mark);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_select_token = {forward, backward};
