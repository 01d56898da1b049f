/* add_positions: formulas in add_positions.c */
#include "backend/cuda/op.h"

enum { X, TABLE };

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_tensor *x = call->in[X];
    const struct draft_mark mark = draft_graph_mark(g);
    const void *table = draft_on_device(g, call->in[TABLE], x->dtype);
    if (table)
        draft_cuda_add_to_rows(draft_stream(g), call->out->dtype, x->dim[0], x->dim[1] * x->dim[2], x->data, table,
                               call->out->data);
    draft_graph_release(g, mark);
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_tensor *x = call->in[X];
    const int64_t size = x->dim[1] * x->dim[2];
    const struct draft_cuda_gradient dtable = draft_gradient(g, call->in[TABLE]);
    if (dtable.to) {
        if (!dtable.accumulate)
            draft_cuda_fill(draft_stream(g), DRAFT_F32, draft_tensor_count(call->in[TABLE]) - size, 0,
                            static_cast<float *>(dtable.to) + size);
        if (!draft_sum_rows(g, 1, x->dim[0], size, x->dtype, call->out->grad, call->in[TABLE], dtable))
            return false;
    }
    return draft_launched(g) && draft_grad_pass(g, call->out, call->in[X]);
}

const struct draft_op_column draft_cuda_op_add_positions = {forward, backward};
