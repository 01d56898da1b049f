/*
 * linear: y = x W^T + b + s (x A^T) B^T (+ residual)    x [m, k], W [o, k], b [o], A = down [r, k], B = up [o, r]
 * (Hu et al. 2021 for the second product; s = alpha / r times the adapter's strength)
 *
 *   dx = dy W + s (dy B) A      dW = dy^T x      db = sum over rows of dy
 *   dB = s dy^T (x A^T)         dA = s (dy B)^T x    dresidual = dy
 *
 * While B is zero (step 0), dA is exactly zero: it is a product with dy B = 0.
 * Without gradient, in a run of calls for which nothing changes (draft_merge_begin), the CPU adds s B A to W once.
 *
 * Whether the adapter is on, and its scale, are read once in forward: a frozen prediction made in between may switch
 * it.
 */
#include "ops/op.h"

#include <assert.h>

enum { X, W, B, DOWN, UP, RESIDUAL };
enum { SAVED_DOWN }; /* x A^T [m, r], needed for dB */

/* c[m, n] = alpha op(a) op(b) + beta c, everything contiguous */
static bool product(struct draft_graph *g, int64_t m, int64_t n, int64_t k, const float *a, bool trans_a,
                    const float *b, bool trans_b, float alpha, float *c, bool accumulate)
{
    struct draft_gemm gemm = {.batch = 1,
                              .m = m,
                              .n = n,
                              .k = k,
                              .trans_a = trans_a,
                              .trans_b = trans_b,
                              .alpha = alpha,
                              .beta = accumulate ? 1 : 0,
                              .a = a,
                              .b = b,
                              .c = c,
                              .lda = trans_a ? m : k,
                              .ldb = trans_b ? k : n,
                              .ldc = n};
    return draft_cpu_gemm(g->backend, &gemm, &g->error);
}

static bool multiply(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_linear_args *a = call->args;
    const float *x = draft_f32(call->in[X]);
    float *y = draft_f32(call->out);
    const float *bias = call->in[B] != NULL ? draft_f32(call->in[B]) : NULL;
    if (call->in[DOWN] == NULL)
        return draft_cpu_linear(g->backend, a->m, x, call->in[W], bias, NULL, y, false, &g->error);
    if (g->merged_run != 0 && !call->out->needs_grad && draft_cpu_merges(g->backend, call->in[W])) {
        struct draft_merge merge = {g->merged_run, a->r, a->scale, draft_f32(call->in[UP]), draft_f32(call->in[DOWN])};
        return draft_cpu_linear_merged(g->backend, a->m, x, call->in[W], bias, &merge, y, &g->error);
    }
    struct draft_mark mark = draft_graph_mark(g);
    struct draft_tensor *down = draft_new(g, DRAFT_F32, 2, (int64_t[]){a->m, a->r});
    if (down == NULL ||
        !product(g, a->m, a->r, a->k, x, false, draft_f32(call->in[DOWN]), true, 1, draft_f32(down), false))
        return false;
    struct draft_low_rank lora = {a->r, a->scale, draft_f32(down), draft_f32(call->in[UP]), true};
    if (!draft_cpu_linear(g->backend, a->m, x, call->in[W], bias, &lora, y, false, &g->error))
        return false;
    if (call->out->needs_grad && call->in[UP]->needs_grad)
        call->saved[SAVED_DOWN] = down;
    else
        draft_graph_release(g, mark);
    return true;
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    if (!multiply(g, call))
        return false;
    if (call->in[RESIDUAL] != NULL)
        draft_cpu_axpby(g->backend, draft_tensor_count(call->out), 1, draft_f32(call->in[RESIDUAL]), 0, NULL,
                        draft_f32(call->out), true);
    return true;
}

/* dB, dA, and s dy B [m, r] for dx. */
static bool lora_backward(struct draft_graph *g, struct draft_call *call, const float *dy, float *dy_up, float *d_down,
                          bool add_down, float *d_up, bool add_up)
{
    const struct draft_linear_args *a = call->args;
    if (d_up != NULL &&
        !product(g, a->o, a->r, a->m, dy, true, draft_f32(call->saved[SAVED_DOWN]), false, a->scale, d_up, add_up))
        return false;
    if (dy_up != NULL &&
        !product(g, a->m, a->r, a->o, dy, false, draft_f32(call->in[UP]), false, a->scale, dy_up, false))
        return false;
    return d_down == NULL ||
           product(g, a->r, a->k, a->m, dy_up, true, draft_f32(call->in[X]), false, 1, d_down, add_down);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_linear_args *a = call->args;
    const float *dy = call->out->grad;
    bool add_x = false, add_w = false, add_b = false, add_down = false, add_up = false;
    float *dx = draft_grad(g, call->in[X], &add_x);
    float *dw = draft_grad(g, call->in[W], &add_w);
    float *db = draft_grad(g, call->in[B], &add_b);
    float *d_down = draft_grad(g, call->in[DOWN], &add_down);
    float *d_up = draft_grad(g, call->in[UP], &add_up);
    if (!draft_graph_ok(g))
        return false;
    struct draft_mark mark = draft_graph_mark(g);
    float *dy_up = NULL;
    if (call->in[DOWN] != NULL && (dx != NULL || d_down != NULL) &&
        !(dy_up = draft_temporary(g, (size_t)(a->m * a->r) * sizeof *dy_up)))
        return false;
    if (call->in[DOWN] != NULL && !lora_backward(g, call, dy, dy_up, d_down, add_down, d_up, add_up))
        return false;
    struct draft_low_rank lora = {a->r, 1, dy_up, dy_up != NULL ? draft_f32(call->in[DOWN]) : NULL, false};
    if (dx != NULL &&
        !draft_cpu_linear_dx(g->backend, a->m, dy, call->in[W], dy_up != NULL ? &lora : NULL, dx, add_x, &g->error))
        return false;
    draft_graph_release(g, mark);
    if (dw != NULL &&
        !draft_cpu_linear_dw(g->backend, a->m, a->o, a->k, draft_f32(call->in[X]), dy, dw, add_w, &g->error))
        return false;
    if (db != NULL && !draft_cpu_sum_rows(g->backend, 1, a->m, a->o, dy, db, add_b, &g->error))
        return false;
    return draft_grad_pass(g, call->out, call->in[RESIDUAL]);
}

/* x for dW and dA alone; for dB there is x A^T. */
static unsigned reads(const struct draft_call *call)
{
    const struct draft_tensor *down = call->in[DOWN];
    bool x = call->in[W]->needs_grad || (down != NULL && down->needs_grad);
    return (x ? 1u << X : 0) | 1 << W | 1 << DOWN | 1 << UP;
}

const struct draft_op draft_op_linear = {
    .name = "linear", .id = DRAFT_OP_linear, .forward = forward, .backward = backward, .reads = reads};

/* A residual is as the result is; or a weight [o], a second bias, where the result is one row. */
static bool residual_fits(const struct draft_tensor *residual, const struct draft_tensor *out)
{
    return draft_same_shape(residual, out) || (draft_rows(out) == 1 && draft_is_vector(residual, draft_last(out)));
}

struct draft_tensor *draft_linear_onto(struct draft_graph *g, struct draft_tensor *residual, struct draft_tensor *x,
                                       struct draft_tensor *w, struct draft_tensor *b, const struct draft_lora *lora)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL && w != NULL);
    bool weight_fits = w->dtype == DRAFT_F32 && (w->rank == 2 || (w->rank == 4 && w->dim[1] == 1 && w->dim[2] == 1));
    if (!draft_is_float(x) || x->rank < 1 || !weight_fits || draft_last(w) != draft_last(x) ||
        (b != NULL && !draft_is_vector(b, w->dim[0])))
        return DRAFT_REFUSE(g, "linear", "x [..., k], weight [o, k] or [o, 1, 1, k], bias [o] or nothing", x, w, b);

    struct draft_linear_args args = {.m = draft_rows(x), .k = draft_last(x), .o = w->dim[0]};
    struct draft_call call = {.op = &draft_op_linear, .in = {x, w, b}, .args = &args, .args_size = sizeof args};
    if (lora != NULL && *lora->on) {
        if (!draft_is_f32(lora->down, 2) || !draft_is_f32(lora->up, 2) || lora->down->dim[1] != args.k ||
            lora->up->dim[0] != args.o || lora->up->dim[1] != lora->down->dim[0])
            return DRAFT_REFUSE(g, "linear", "weight [o, k], adapter down [r, k] and up [o, r]", w, lora->down,
                                lora->up);
        args.r = lora->down->dim[0];
        args.scale = *lora->scale;
        call.in[DOWN] = lora->down;
        call.in[UP] = lora->up;
    }
    int64_t dim[DRAFT_MAX_RANK];
    memcpy(dim, x->dim, sizeof dim);
    dim[x->rank - 1] = args.o;
    call.in[RESIDUAL] = residual;
    call.out = draft_new(g, x->dtype, x->rank, dim);
    if (call.out != NULL && residual != NULL && !residual_fits(residual, call.out))
        return DRAFT_REFUSE(g, "linear", "a residual of the result's shape and type", x, w, residual);
    return draft_graph_run(g, &call);
}

struct draft_tensor *draft_linear(struct draft_graph *g, struct draft_tensor *x, struct draft_tensor *w,
                                  struct draft_tensor *b, const struct draft_lora *lora)
{
    return draft_linear_onto(g, NULL, x, w, b, lora);
}
