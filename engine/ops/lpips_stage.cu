/* lpips_stage: formulas in lpips_stage.c */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_tensor *x = call->in[0];
    const int64_t picture = draft_positions(x) * draft_last(x);
    const float *linear = draft_floats_on_device(g, call->in[1]);
    for (int64_t i = 0; draft_graph_ok(g) && i < x->dim[0]; i++)
        draft_cuda_lpips_stage(draft_stream(g), x->dtype, draft_positions(x), draft_last(x),
                               draft_at(static_cast<const void *>(x->data), x->dtype, i * picture), linear,
                               draft_f32(call->out) + i * picture);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_lpips_stage = {forward, nullptr};
