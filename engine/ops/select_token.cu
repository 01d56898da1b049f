/* select_token: formulas in select_token.c */
#include "backend/cuda/op.h"

enum { INDEX };

static const int32_t *index_of(struct draft_graph *g, const struct draft_call *call)
{
    const struct draft_tensor *index = call->saved[INDEX];
    return static_cast<const int32_t *>(
        draft_constant(g, index->data, size_t(draft_tensor_count(index)) * sizeof(int32_t)));
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const int64_t *x = call->in[0]->dim;
    const int32_t *index = index_of(g, call);
    if (index)
        draft_cuda_select_token(draft_stream(g), call->out->dtype, x[0], x[1], x[2], index, call->in[0]->data,
                                call->out->data);
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const int64_t *x = call->in[0]->dim;
    const struct draft_cuda_gradient dx = draft_gradient(g, call->in[0]);
    const int32_t *index = index_of(g, call);
    if (dx.to && index)
        draft_cuda_select_token_backward(draft_stream(g), call->out->dtype, x[0], x[1], x[2], index, call->out->grad, dx);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_select_token = {forward, backward};
