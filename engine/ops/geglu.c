/*
 * geglu (Shazeer 2020, as diffusers' GEGLU): x [..., 2c] = (a, b) along the last dimension -> y [..., c] = a gelu(b)
 *   da = dy gelu(b)      db = dy a gelu'(b)
 */
#include "ops/op.h"

#include <assert.h>

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    draft_cpu_geglu(g->backend, draft_rows(call->out), draft_last(call->out), draft_f32(call->in[0]),
                    draft_f32(call->out));
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    bool accumulate;
    float *dx = draft_grad(g, call->in[0], &accumulate);
    if (dx != NULL)
        draft_cpu_geglu_backward(g->backend, draft_rows(call->out), draft_last(call->out), draft_f32(call->in[0]),
                                 call->out->grad, dx, accumulate);
    return draft_graph_ok(g);
}

const struct draft_op draft_op_geglu = {
    .name = "geglu", .id = DRAFT_OP_geglu, .forward = forward, .backward = backward, .reads = draft_reads_inputs};

struct draft_tensor *draft_geglu(struct draft_graph *g, struct draft_tensor *x)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL);
    if (!draft_is_float(x) || x->rank < 1 || draft_last(x) % 2 != 0)
        return DRAFT_REFUSE(g, "geglu", "x [..., 2c]", x);
    int64_t dim[DRAFT_MAX_RANK];
    memcpy(dim, x->dim, sizeof dim);
    dim[x->rank - 1] /= 2;
    struct draft_call call = {.op = &draft_op_geglu, .in = {x}};
    call.out = draft_new_rows(g, x->dtype, x->rank, dim);
    return draft_graph_run(g, &call);
}
