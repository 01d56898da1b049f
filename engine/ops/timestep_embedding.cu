/* timestep_embedding: formulas in timestep_embedding.c */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_timestep_embedding_args &args = draft_args<struct draft_timestep_embedding_args>(call);
    draft_cuda_timestep_embedding(draft_stream(g), call->out->dtype, call->out->dim[0], call->out->dim[1],
                                  args.freq_shift, args.flip, draft_f32(call->in[0]), call->out->data);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_timestep_embedding = {forward, nullptr};
