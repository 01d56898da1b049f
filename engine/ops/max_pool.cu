/* max_pool: formulas in max_pool.c */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_max_pool_args &args = draft_args<struct draft_max_pool_args>(call);
    const struct draft_cuda_image image = draft_image(call);
    draft_cuda_max_pool(draft_stream(g), call->out->dtype, &image, args.window, args.stride, call->in[0]->data,
                        call->out->data);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_max_pool = {forward, nullptr};
