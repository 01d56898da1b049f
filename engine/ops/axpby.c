/*
 * axpby: y = alpha a + beta b, same shapes, b may be absent (sampler steps, guidance, scalings)
 *   da = alpha dy      db = beta dy
 */
#include "ops/op.h"

#include <assert.h>

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_axpby_args *args = call->args;
    const float *b = call->in[1] != NULL ? draft_f32(call->in[1]) : NULL;
    draft_cpu_axpby(g->backend, draft_tensor_count(call->out), args->alpha, draft_f32(call->in[0]), args->beta, b,
                    draft_f32(call->out), false);
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_axpby_args *args = call->args;
    const float *dy = call->out->grad;
    int64_t n = draft_tensor_count(call->out);
    bool accumulate;
    float *db = draft_grad(g, call->in[1], &accumulate);
    if (db != NULL)
        draft_cpu_axpby(g->backend, n, args->beta, dy, 0, NULL, db, accumulate);
    float *da = draft_grad_in_place(g, call->out, call->in[0], &accumulate);
    if (da != NULL)
        draft_cpu_axpby(g->backend, n, args->alpha, dy, 0, NULL, da, accumulate);
    return draft_graph_ok(g);
}

const struct draft_op draft_op_axpby = {
    .name = "axpby", .id = DRAFT_OP_axpby, .forward = forward, .backward = backward, .reads = draft_reads_nothing};

struct draft_tensor *draft_axpby(struct draft_graph *g, float alpha, struct draft_tensor *a, float beta,
                                 struct draft_tensor *b)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(a != NULL);
    if (!draft_is_float(a) || (b != NULL && !draft_same_shape(a, b)))
        return DRAFT_REFUSE(g, "axpby", "two tensors of one shape", a, b);
    struct draft_axpby_args args = {alpha, beta};
    struct draft_call call = {.op = &draft_op_axpby, .in = {a, b}, .args = &args, .args_size = sizeof args};
    call.out = draft_new(g, a->dtype, a->rank, a->dim);
    return draft_graph_run(g, &call);
}
