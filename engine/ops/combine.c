/*
 * combine: y = c[i] a + c[j] b, axpby with its two numbers read where values live (a sampler's step, whose numbers
 * change from step to step while its ops do not: autograd/replay.h)
 *   da = c[i] dy      db = c[j] dy      c is a constant
 */
#include "ops/op.h"

#include <assert.h>

enum { A, B, C };

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_combine_args *args = call->args;
    const float *c = draft_f32(call->in[C]), *b = call->in[B] != NULL ? draft_f32(call->in[B]) : NULL;
    draft_cpu_axpby(g->backend, draft_tensor_count(call->out), c[args->i], draft_f32(call->in[A]), c[args->j], b,
                    draft_f32(call->out), false);
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_combine_args *args = call->args;
    const float *c = draft_f32(call->in[C]), *dy = call->out->grad;
    int64_t n = draft_tensor_count(call->out);
    bool accumulate;
    float *db = draft_grad(g, call->in[B], &accumulate);
    if (db != NULL)
        draft_cpu_axpby(g->backend, n, c[args->j], dy, 0, NULL, db, accumulate);
    float *da = draft_grad_in_place(g, call->out, call->in[A], &accumulate);
    if (da != NULL)
        draft_cpu_axpby(g->backend, n, c[args->i], dy, 0, NULL, da, accumulate);
    return draft_graph_ok(g);
}

static unsigned reads(const struct draft_call *call)
{
    (void)call;
    return 1 << C;
}

const struct draft_op draft_op_combine = {
    .name = "combine", .id = DRAFT_OP_combine, .forward = forward, .backward = backward, .reads = reads};

struct draft_tensor *draft_combine(struct draft_graph *g, struct draft_tensor *c, int i, struct draft_tensor *a, int j,
                                   struct draft_tensor *b)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(c != NULL && a != NULL && i >= 0 && j >= 0);
    if (a->dtype != DRAFT_F32 || !draft_is_f32(c, 1) || i >= c->dim[0] || j >= c->dim[0] ||
        (b != NULL && !draft_same_shape(a, b)))
        return DRAFT_REFUSE(g, "combine", "two tensors of one shape, and numbers for them", a, b, c);
    struct draft_combine_args args = {i, j};
    struct draft_call call = {.op = &draft_op_combine, .in = {a, b, c}, .args = &args, .args_size = sizeof args};
    call.out = draft_new(g, DRAFT_F32, a->rank, a->dim);
    return draft_graph_run(g, &call);
}
