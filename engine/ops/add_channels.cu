/* add_channels: formulas in add_channels.c */
#include "backend/cuda/op.h"

enum { X, B };

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_tensor *x = call->in[X];
    draft_cuda_add_channels(draft_stream(g), call->out->dtype, x->dim[0], draft_positions(x), draft_last(x),
                            call->in[X]->data, call->in[B]->data, call->out->data);
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_tensor *x = call->in[X];
    const struct draft_cuda_gradient db = draft_gradient(g, call->in[B]);
    if (db.to &&
        !draft_sum_rows(g, x->dim[0], draft_positions(x), draft_last(x), x->dtype, call->out->grad, call->in[B], db))
        return false;
    return draft_launched(g) && draft_grad_pass(g, call->out, call->in[X]);
}

const struct draft_op_column draft_cuda_op_add_channels = {forward, backward};
