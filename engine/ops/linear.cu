/* linear: formulas in linear.c */
#include "backend/cuda/op.h"

enum { X, W, B, DOWN, UP };
enum { SAVED_DOWN };

static bool lora_backward(struct draft_graph *g, struct draft_call *call, const float *dy, const float *x, void *dx)
{
    const struct draft_linear_args &a = draft_args<struct draft_linear_args>(call);
    const struct draft_cuda_gradient d_down = draft_gradient(g, call->in[DOWN]);
    const struct draft_cuda_gradient d_up = draft_gradient(g, call->in[UP]);
    if (d_up.to && !draft_product(g, a.o, a.r, a.m, {dy, true}, {draft_f32(call->saved[SAVED_DOWN]), false}, a.scale,
                                  nullptr, d_up))
        return false;
    if (!draft_graph_ok(g) || (!dx && !d_down.to))
        return draft_graph_ok(g);
    const struct draft_mark mark = draft_graph_mark(g);
    float *dy_up = static_cast<float *>(draft_temporary(g, size_t(a.m * a.r) * sizeof(float)));
    bool done = dy_up && draft_product(g, a.m, a.r, a.o, {dy, false}, {draft_on_device(g, call->in[UP]), false},
                                       a.scale, nullptr, draft_overwrite(dy_up));
    if (done && d_down.to)
        done = draft_product(g, a.r, a.k, a.m, {dy_up, true}, {x, false}, 1, nullptr, d_down);
    if (done && dx)
        done = draft_product(g, a.m, a.k, a.r, {dy_up, false}, {draft_on_device(g, call->in[DOWN]), false}, 1, nullptr,
                             {dx, true});
    draft_graph_release(g, mark);
    return done;
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_linear_args &a = draft_args<struct draft_linear_args>(call);
    const float *x = draft_on_device(g, call->in[X]), *bias = draft_on_device(g, call->in[B]);
    float *y = draft_f32(call->out);
    if (!draft_product(g, a.m, a.o, a.k, {x, false}, {draft_on_device(g, call->in[W]), true}, 1, bias,
                       draft_overwrite(y)))
        return false;
    if (!call->in[DOWN])
        return true;
    const struct draft_mark mark = draft_graph_mark(g);
    const int64_t dim[] = {a.m, a.r};
    struct draft_tensor *down = draft_new(g, DRAFT_F32, 2, dim);
    if (!down ||
        !draft_product(g, a.m, a.r, a.k, {x, false}, {draft_on_device(g, call->in[DOWN]), true}, 1, nullptr,
                       draft_overwrite(down->data)) ||
        !draft_product(g, a.m, a.o, a.r, {draft_f32(down), false}, {draft_on_device(g, call->in[UP]), true}, a.scale,
                       nullptr, {y, true}))
        return false;
    if (call->out->needs_grad && call->in[UP]->needs_grad)
        call->saved[SAVED_DOWN] = down;
    else
        draft_graph_release(g, mark);
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_linear_args &a = draft_args<struct draft_linear_args>(call);
    const float *dy = call->out->grad, *x = draft_on_device(g, call->in[X]);
    const struct draft_cuda_gradient dx = draft_gradient(g, call->in[X]);
    const struct draft_cuda_gradient dw = draft_gradient(g, call->in[W]);
    const struct draft_cuda_gradient db = draft_gradient(g, call->in[B]);
    if (dx.to &&
        !draft_product(g, a.m, a.k, a.o, {dy, false}, {draft_on_device(g, call->in[W]), false}, 1, nullptr, dx))
        return false;
    if (dw.to && !draft_product(g, a.o, a.k, a.m, {dy, true}, {x, false}, 1, nullptr, dw))
        return false;
    if (db.to && !draft_sum_rows(g, 1, a.m, a.o, dy, db))
        return false;
    return draft_launched(g) && (!call->in[DOWN] || lora_backward(g, call, dy, x, dx.to));
}

const struct draft_op_column draft_cuda_op_linear = {forward, backward};
