/* combine: formulas in combine.c */
#include "backend/cuda/op.h"

enum { A, B, C };

static void combine(struct draft_graph *g, const struct draft_call *call, int i, const float *a, int j, const float *b,
                    struct draft_cuda_gradient y)
{
    const float *c = draft_f32(call->in[C]);
    draft_cuda_combine(draft_stream(g), draft_tensor_count(call->out), c + i, a, c + j, b, y);
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_combine_args &args = draft_args<struct draft_combine_args>(call);
    combine(g, call, args.i, draft_f32(call->in[A]), args.j, call->in[B] ? draft_f32(call->in[B]) : nullptr,
            draft_overwrite(call->out->data));
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_combine_args &args = draft_args<struct draft_combine_args>(call);
    const float *dy = static_cast<const float *>(call->out->grad);
    const struct draft_cuda_gradient db = draft_gradient(g, call->in[B]);
    if (db.to)
        combine(g, call, args.j, dy, args.j, nullptr, db);
    const struct draft_cuda_gradient da = draft_gradient_in_place(g, call->out, call->in[A]);
    if (da.to)
        combine(g, call, args.i, dy, args.i, nullptr, da);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_combine = {forward, backward};
