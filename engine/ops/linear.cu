/* linear: formulas in linear.c */
#include "backend/cuda/op.h"

enum { X, W, B, DOWN, UP, RESIDUAL };
enum { SAVED_DOWN };

/* The adapter's up matrix, which may stand behind the rows of the weight; the weight is on the device already. */
static struct draft_matrix up_matrix(struct draft_graph *g, struct draft_call *call, enum draft_dtype type,
                                     bool transposed)
{
    struct draft_tensor *w = call->in[W];
    const int64_t tail = draft_cuda_tail(w, type);
    if (tail == 0 || w->up != call->in[UP])
        return {draft_on_device(g, call->in[UP], type), transposed};
    return {draft_at(draft_on_device(g, w, type), type, draft_cuda_up_place(w)), transposed, w->dim[1] + tail};
}

static struct draft_matrix weight_matrix(struct draft_graph *g, struct draft_tensor *w, enum draft_dtype type,
                                         bool transposed)
{
    return {draft_on_device(g, w, type), transposed, draft_last(w) + draft_cuda_tail(w, type)};
}

/* In x's type, but for the gradients of weights, which are F32: dW, and the adapter's. */
static bool lora_backward(struct draft_graph *g, struct draft_call *call, struct draft_cuda_gradient dx)
{
    const struct draft_linear_args &a = draft_args<struct draft_linear_args>(call);
    const enum draft_dtype type = call->out->dtype;
    const void *dy = call->out->grad, *x = call->in[X]->data;
    const struct draft_cuda_gradient d_down = draft_gradient(g, call->in[DOWN]);
    const struct draft_cuda_gradient d_up = draft_gradient(g, call->in[UP]);
    if (d_up.to && !draft_product(g, {type, DRAFT_F32}, a.o, a.r, a.m, {dy, true},
                                  {call->saved[SAVED_DOWN]->data, false}, a.scale, nullptr, d_up))
        return false;
    if (!draft_graph_ok(g) || (!dx.to && !d_down.to))
        return draft_graph_ok(g);
    const struct draft_mark mark = draft_graph_mark(g);
    void *dy_up = draft_temporary(g, size_t(a.m * a.r) * draft_size(type));
    bool done = dy_up && draft_product(g, {type, type}, a.m, a.r, a.o, {dy, false}, up_matrix(g, call, type, false),
                                       a.scale, nullptr, draft_overwrite(dy_up));
    if (done && d_down.to)
        done = draft_product(g, {type, DRAFT_F32}, a.r, a.k, a.m, {dy_up, true}, {x, false}, 1, nullptr, d_down);
    if (done && dx.to)
        done = draft_product(g, {type, type}, a.m, a.k, a.r, {dy_up, false},
                             {draft_on_device(g, call->in[DOWN], type), false}, 1, nullptr, {dx.to, true});
    draft_graph_release(g, mark);
    return done;
}

/* One row without adapter, the time embedding's: no tile of a matrix product is filled by it. */
static bool forward_row(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_linear_args &a = draft_args<struct draft_linear_args>(call);
    const enum draft_dtype type = call->out->dtype;
    const struct draft_cuda_row row = {draft_on_device(g, call->in[W], type), draft_on_device(g, call->in[B], type),
                                       draft_on_device(g, call->in[RESIDUAL], type), call->out->data, a.o};
    if (draft_graph_ok(g))
        draft_cuda_row_products(draft_stream(g), type, a.k, call->in[X]->data, &row, 1);
    return draft_launched(g);
}

/* x has room behind its rows for s x A^T, and W has B behind its own: [x, s x A^T] [W, B]^T is one product. */
static bool is_folded(const struct draft_call *call)
{
    const struct draft_linear_args &a = draft_args<struct draft_linear_args>(call);
    const struct draft_tensor *x = call->in[X], *w = call->in[W];
    return call->in[DOWN] && x->row >= a.k + a.r && w->up == call->in[UP] && draft_cuda_tail(w, x->dtype) == a.r;
}

static bool forward_folded(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_linear_args &a = draft_args<struct draft_linear_args>(call);
    const enum draft_dtype type = call->out->dtype;
    const struct draft_tensor *x = call->in[X];
    const struct draft_mark mark = draft_graph_mark(g);
    const void *down = draft_on_device(g, call->in[DOWN], type);
    const struct draft_matrix w = weight_matrix(g, call->in[W], type, true);
    const void *bias = draft_on_device(g, call->in[B], type), *onto = draft_on_device(g, call->in[RESIDUAL], type);
    const bool done = draft_fill_room(g, x, a.r, down, a.scale) &&
                      draft_product(g, {type, type}, a.m, a.o, a.k + a.r, {x->data, false, x->row}, w, 1, bias,
                                    draft_overwrite(call->out->data), onto);
    draft_graph_release(g, mark);
    return done && draft_launched(g);
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_linear_args &a = draft_args<struct draft_linear_args>(call);
    const enum draft_dtype type = call->out->dtype;
    const struct draft_matrix x = {call->in[X]->data, false, draft_row(call->in[X])};
    void *y = call->out->data;
    if (is_folded(call))
        return forward_folded(g, call);
    if (a.m == 1 && !call->in[DOWN] && draft_cuda_tail(call->in[W], type) == 0)
        return forward_row(g, call);
    const struct draft_mark before = draft_graph_mark(g);
    const int64_t dim[] = {a.m, a.r};
    struct draft_tensor *down = call->in[DOWN] ? draft_new(g, type, 2, dim) : nullptr;
    const struct draft_mark mark = draft_graph_mark(g);
    const struct draft_matrix w = weight_matrix(g, call->in[W], type, true);
    const void *onto = draft_on_device(g, call->in[RESIDUAL], type);
    bool done = draft_graph_ok(g);
    /* The adapter's part first: its thin product only writes y, which the large one reads while it multiplies. */
    if (done && down) {
        done = draft_product(g, {type, type}, a.m, a.r, a.k, x, {draft_on_device(g, call->in[DOWN], type), true}, 1,
                             nullptr, draft_overwrite(down->data)) &&
               draft_product(g, {type, type}, a.m, a.o, a.r, {down->data, false}, up_matrix(g, call, type, true),
                             a.scale, nullptr, draft_overwrite(y), onto);
        onto = y;
    }
    done = done && draft_product(g, {type, type}, a.m, a.o, a.k, x, w, 1, draft_on_device(g, call->in[B], type),
                                 draft_overwrite(y), onto);
    const bool wanted = down && call->out->needs_grad && call->in[UP]->needs_grad;
    if (wanted)
        call->saved[SAVED_DOWN] = down;
    draft_graph_release(g, wanted ? mark : before);
    return done && draft_launched(g);
}

/* A weight's gradient is F32, whatever dy is. */
static bool residual_backward(struct draft_graph *g, struct draft_call *call)
{
    struct draft_tensor *residual = call->in[RESIDUAL];
    if (!residual || residual->dtype == call->out->dtype)
        return draft_grad_pass(g, call->out, residual);
    const struct draft_cuda_gradient d = draft_gradient(g, residual);
    return draft_graph_ok(g) &&
           (!d.to || draft_sum_rows(g, 1, 1, draft_last(call->out), call->out->dtype, call->out->grad, residual, d));
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_linear_args &a = draft_args<struct draft_linear_args>(call);
    const enum draft_dtype type = call->out->dtype;
    const void *dy = call->out->grad, *x = call->in[X]->data;
    const struct draft_cuda_gradient dx = draft_gradient(g, call->in[X]);
    const struct draft_cuda_gradient dw = draft_gradient(g, call->in[W]);
    const struct draft_cuda_gradient db = draft_gradient(g, call->in[B]);
    const struct draft_mark mark = draft_graph_mark(g);
    bool done = !dx.to || draft_product(g, {type, type}, a.m, a.k, a.o, {dy, false},
                                        weight_matrix(g, call->in[W], type, false), 1, nullptr, dx);
    draft_graph_release(g, mark);
    if (done && dw.to)
        done = draft_product(g, {type, DRAFT_F32}, a.o, a.k, a.m, {dy, true}, {x, false}, 1, nullptr, dw);
    if (done && db.to)
        done = draft_sum_rows(g, 1, a.m, a.o, type, dy, call->in[B], db);
    return done && draft_launched(g) && (!call->in[DOWN] || lora_backward(g, call, dx)) && residual_backward(g, call);
}

const struct draft_op_column draft_cuda_op_linear = {forward, backward};
