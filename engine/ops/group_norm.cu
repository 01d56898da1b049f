/* group_norm: formulas in group_norm.c */
#include "backend/cuda/op.h"

enum { X, GAMMA, BETA };
enum { STATS };

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_group_norm_shape &s = draft_args<struct draft_group_norm_shape>(call);
    const struct draft_mark before = draft_graph_mark(g);
    const int64_t dim[] = {s.n, s.groups, 2};
    struct draft_tensor *stats = draft_new(g, DRAFT_F32, 3, dim);
    const struct draft_mark mark = draft_graph_mark(g);
    void *scratch = stats ? draft_temporary(g, draft_cuda_group_norm_scratch(&s)) : nullptr;
    if (scratch)
        draft_cuda_group_norm(draft_stream(g), call->out->dtype, &s, call->in[X]->data,
                              draft_floats_on_device(g, call->in[GAMMA]), draft_floats_on_device(g, call->in[BETA]),
                              call->out->data, draft_f32(stats), scratch);
    if (call->out->needs_grad)
        call->saved[STATS] = stats;
    draft_graph_release(g, call->out->needs_grad ? mark : before);
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_group_norm_shape &s = draft_args<struct draft_group_norm_shape>(call);
    const void *dy = call->out->grad;
    const struct draft_cuda_gradient dgamma = draft_gradient(g, call->in[GAMMA]);
    const struct draft_cuda_gradient dbeta = draft_gradient(g, call->in[BETA]);
    const struct draft_cuda_gradient dx = draft_gradient_in_place(g, call->out, call->in[X]);
    const struct draft_mark mark = draft_graph_mark(g);
    void *scratch = draft_graph_ok(g) ? draft_temporary(g, draft_cuda_group_norm_scratch(&s)) : nullptr;
    if (scratch)
        draft_cuda_group_norm_backward(
            draft_stream(g), call->out->dtype, &s, call->in[X]->data, draft_floats_on_device(g, call->in[GAMMA]),
            draft_floats_on_device(g, call->in[BETA]), draft_f32(call->saved[STATS]), dy, dx, dgamma, dbeta, scratch);
    draft_graph_release(g, mark);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_group_norm = {forward, backward};
