/* slice_batch: formulas in slice_batch.c. A view: forward has nothing to do */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    (void)call;
    return draft_graph_ok(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_slice_batch_args &args = draft_args<struct draft_slice_batch_args>(call);
    const struct draft_cuda_window window = {.n = 1,
                                             .h = 1,
                                             .w = draft_tensor_count(call->out),
                                             .big_h = 1,
                                             .big_w = draft_tensor_count(call->in[0]),
                                             .top = 0,
                                             .left = args.offset};
    const struct draft_cuda_gradient dx = draft_gradient(g, call->in[0]);
    if (dx.to)
        draft_cuda_paste(draft_stream(g), call->out->dtype, &window, call->out->grad, dx, !dx.accumulate);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_slice_batch = {forward, backward};
