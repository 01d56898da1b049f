/* embedding: formulas in embedding.c */
#include "backend/cuda/op.h"

enum { TABLE, IDS };

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_mark mark = draft_graph_mark(g);
    const int32_t *ids = draft_sent(g, call->in[IDS]);
    const void *table = draft_on_device(g, call->in[TABLE], call->out->dtype);
    if (ids && table)
        draft_cuda_embedding(draft_stream(g), call->out->dtype, draft_tensor_count(call->in[IDS]),
                             draft_last(call->in[TABLE]), ids, table, call->out->data);
    draft_graph_release(g, mark);
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_tensor *table = call->in[TABLE];
    const struct draft_cuda_gradient dtable = draft_gradient(g, call->in[TABLE]);
    const struct draft_mark mark = draft_graph_mark(g);
    const int32_t *ids = draft_sent(g, call->in[IDS]);
    const float *dy = dtable.to && ids ? draft_gradient_as_floats(g, call->out) : nullptr;
    if (dy)
        draft_cuda_embedding_backward(draft_stream(g), DRAFT_F32, draft_tensor_count(call->in[IDS]), table->dim[0],
                                      table->dim[1], ids, dy, dtable);
    draft_graph_release(g, mark);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_embedding = {forward, backward};
