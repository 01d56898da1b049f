/* layer_norm: formulas in layer_norm.c */
#include "backend/cuda/op.h"

enum { X, GAMMA, BETA };
enum { STATS };

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_layer_norm_args &args = draft_args<struct draft_layer_norm_args>(call);
    const int64_t rows = draft_rows(call->in[X]), c = draft_last(call->in[X]), dim[] = {rows, 2};
    const struct draft_mark mark = draft_graph_mark(g);
    struct draft_tensor *stats = draft_new(g, DRAFT_F32, 2, dim);
    if (stats)
        draft_cuda_layer_norm(draft_stream(g), call->out->dtype, rows, c, args.eps, call->in[X]->data,
                              draft_floats_on_device(g, call->in[GAMMA]), draft_floats_on_device(g, call->in[BETA]),
                              call->out->data, draft_row(call->out), draft_f32(stats));
    if (call->out->needs_grad)
        call->saved[STATS] = stats;
    else
        draft_graph_release(g, mark);
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const int64_t rows = draft_rows(call->in[X]), c = draft_last(call->in[X]);
    const void *dy = call->out->grad;
    const struct draft_cuda_gradient dgamma = draft_gradient(g, call->in[GAMMA]);
    const struct draft_cuda_gradient dbeta = draft_gradient(g, call->in[BETA]);
    const bool weights = dgamma.to || dbeta.to; /* then dy is read twice, and dx needs a buffer of its own */
    const struct draft_cuda_gradient dx =
        weights ? draft_gradient(g, call->in[X]) : draft_gradient_in_place(g, call->out, call->in[X]);
    const struct draft_mark mark = draft_graph_mark(g);
    void *scratch =
        draft_graph_ok(g) ? draft_temporary(g, weights ? draft_cuda_layer_norm_scratch(rows, c) : 0) : nullptr;
    if (scratch)
        draft_cuda_layer_norm_backward(draft_stream(g), call->out->dtype, rows, c, call->in[X]->data,
                                       draft_floats_on_device(g, call->in[GAMMA]), draft_f32(call->saved[STATS]), dy,
                                       dx, dgamma, dbeta, scratch);
    draft_graph_release(g, mark);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_layer_norm = {forward, backward};
