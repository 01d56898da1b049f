/* add: y = a + b, same shapes (residuals). da = db = dy. */
#include "ops/op.h"

#include <assert.h>

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    draft_cpu_axpby(g->backend, draft_tensor_count(call->out), 1, draft_f32(call->in[0]), 1, draft_f32(call->in[1]),
                    draft_f32(call->out), false);
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    bool accumulate;
    float *da = draft_grad(g, call->in[0], &accumulate);
    if (da != NULL)
        draft_cpu_axpby(g->backend, draft_tensor_count(call->out), 1, call->out->grad, 0, NULL, da, accumulate);
    return draft_graph_ok(g) && draft_grad_pass(g, call->out, call->in[1]);
}

const struct draft_op draft_op_add = {
    .name = "add", .id = DRAFT_OP_add, .forward = forward, .backward = backward, .reads = draft_reads_nothing};

struct draft_tensor *draft_add(struct draft_graph *g, struct draft_tensor *a, struct draft_tensor *b)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(a != NULL && b != NULL);
    if (!draft_is_float(a) || !draft_same_shape(a, b))
        return DRAFT_REFUSE(g, "add", "two tensors of one shape", a, b);
    struct draft_call call = {.op = &draft_op_add, .in = {a, b}};
    call.out = draft_new(g, a->dtype, a->rank, a->dim);
    return draft_graph_run(g, &call);
}
