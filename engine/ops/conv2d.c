/*
 * conv2d: y[n, i, j, o] = b[o] + sum over p, q, c of x[n, i stride + p - top, j stride + q - left, c] w[o, p, q, c]
 * x [n, h, w, c] with zeros around it, w [o, kh, kw, c], b [o] or nothing -> y [n, oh, ow, o],
 * oh = (h + top + bottom - kh) / stride + 1 rounded down, ow alike; onto a residual r [n, oh, ow, o]: y + r.
 *
 *   dx: the transposed convolution of dy      dw = sum over n, i, j of dy x      db = sum over n, i, j of dy      dr =
 * dy
 */
#include "ops/op.h"

#include <assert.h>

enum { X, W, B, RESIDUAL };

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const float *bias = call->in[B] != NULL ? draft_f32(call->in[B]) : NULL;
    if (!draft_cpu_conv2d(g->backend, call->args, draft_f32(call->in[X]), call->in[W], bias, draft_f32(call->out),
                          &g->error))
        return false;
    if (call->in[RESIDUAL] != NULL)
        draft_cpu_axpby(g->backend, draft_tensor_count(call->out), 1, draft_f32(call->in[RESIDUAL]), 0, NULL,
                        draft_f32(call->out), true);
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_conv_shape *s = call->args;
    const float *dy = call->out->grad;
    bool add_x = false, add_w = false, add_b = false;
    float *dx = draft_grad(g, call->in[X], &add_x);
    float *dw = draft_grad(g, call->in[W], &add_w);
    float *db = draft_grad(g, call->in[B], &add_b);
    if (!draft_graph_ok(g))
        return false;
    if (dx != NULL && !draft_cpu_conv2d_dx(g->backend, s, dy, call->in[W], dx, add_x, &g->error))
        return false;
    if (dw != NULL && !draft_cpu_conv2d_dw(g->backend, s, draft_f32(call->in[X]), dy, dw, add_w, &g->error))
        return false;
    if (db != NULL && !draft_cpu_sum_rows(g->backend, 1, draft_rows(call->out), s->o, dy, db, add_b, &g->error))
        return false;
    return draft_grad_pass(g, call->out, call->in[RESIDUAL]);
}

/* x for dw alone */
static unsigned reads(const struct draft_call *call)
{
    return (call->in[W]->needs_grad ? 1u << X : 0) | 1 << W;
}

const struct draft_op draft_op_conv2d = {
    .name = "conv2d", .id = DRAFT_OP_conv2d, .forward = forward, .backward = backward, .reads = reads};

/* A weight, or an activation of x's type. */
static bool bias_fits(const struct draft_tensor *b, const struct draft_tensor *x, int64_t o)
{
    return b->rank == 1 && b->dim[0] == o && (b->dtype == DRAFT_F32 || b->dtype == x->dtype);
}

struct draft_tensor *draft_conv2d_onto(struct draft_graph *g, struct draft_tensor *residual, struct draft_tensor *x,
                                       struct draft_tensor *w, struct draft_tensor *b,
                                       const struct draft_conv2d_args *args)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL && w != NULL && args->stride >= 1);
    assert(args->pad_top >= 0 && args->pad_left >= 0 && args->pad_bottom >= 0 && args->pad_right >= 0);
    if (!draft_is_activation(x, 4) || !draft_is_f32(w, 4) || draft_last(w) != draft_last(x) ||
        (b != NULL && !bias_fits(b, x, w->dim[0])))
        return DRAFT_REFUSE(g, "conv2d", "x [n, h, w, c], weight [o, kh, kw, c], bias [o] or nothing", x, w, b);
    struct draft_conv_shape s = {.n = x->dim[0],
                                 .h = x->dim[1],
                                 .w = x->dim[2],
                                 .c = x->dim[3],
                                 .o = w->dim[0],
                                 .kh = w->dim[1],
                                 .kw = w->dim[2],
                                 .stride = args->stride,
                                 .pad_top = args->pad_top,
                                 .pad_left = args->pad_left,
                                 .pad_bottom = args->pad_bottom,
                                 .pad_right = args->pad_right};
    if (s.h + s.pad_top + s.pad_bottom < s.kh || s.w + s.pad_left + s.pad_right < s.kw)
        return DRAFT_REFUSE(g, "conv2d", "a picture no smaller than the kernel, padding included", x, w);
    struct draft_call call = {.op = &draft_op_conv2d, .in = {x, w, b, residual}, .args = &s, .args_size = sizeof s};
    call.out = draft_new(g, x->dtype, 4, (int64_t[]){s.n, draft_conv_out_h(&s), draft_conv_out_w(&s), s.o});
    if (call.out != NULL && residual != NULL && !draft_same_shape(residual, call.out))
        return DRAFT_REFUSE(g, "conv2d", "a residual of the result's shape and type", x, w, residual);
    return draft_graph_run(g, &call);
}

struct draft_tensor *draft_conv2d(struct draft_graph *g, struct draft_tensor *x, struct draft_tensor *w,
                                  struct draft_tensor *b, const struct draft_conv2d_args *args)
{
    return draft_conv2d_onto(g, NULL, x, w, b, args);
}
