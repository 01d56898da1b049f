/*
 * concat_batch: y [na + nb, ..] = a [na, ..] followed by b [nb, ..] (the guided pair: unconditional, conditional)
 *   da, db: the two parts of dy
 */
#include "ops/op.h"

#include <assert.h>

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    float *y = draft_f32(call->out);
    for (int i = 0; i < 2; i++) {
        int64_t n = draft_tensor_count(call->in[i]);
        draft_cpu_axpby(g->backend, n, 1, draft_f32(call->in[i]), 0, NULL, y, false);
        y += n;
    }
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const float *dy = call->out->grad;
    for (int i = 0; i < 2; i++) {
        int64_t n = draft_tensor_count(call->in[i]);
        bool accumulate;
        float *dx = draft_grad(g, call->in[i], &accumulate);
        if (dx != NULL)
            draft_cpu_axpby(g->backend, n, 1, dy, 0, NULL, dx, accumulate);
        dy += n;
    }
    return draft_graph_ok(g);
}

const struct draft_op draft_op_concat_batch = {.name = "concat_batch",
                                               .id = DRAFT_OP_concat_batch,
                                               .forward = forward,
                                               .backward = backward,
                                               .reads = draft_reads_nothing};

struct draft_tensor *draft_concat_batch(struct draft_graph *g, struct draft_tensor *a, struct draft_tensor *b)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(a != NULL && b != NULL);
    if (!draft_is_float(a) || b->dtype != a->dtype || a->rank < 1 || a->rank != b->rank ||
        memcmp(a->dim + 1, b->dim + 1, (size_t)(a->rank - 1) * sizeof *a->dim) != 0)
        return DRAFT_REFUSE(g, "concat_batch", "two tensors that differ in the first dimension only", a, b);
    int64_t dim[DRAFT_MAX_RANK];
    memcpy(dim, a->dim, sizeof dim);
    dim[0] += b->dim[0];
    struct draft_call call = {.op = &draft_op_concat_batch, .in = {a, b}};
    call.out = draft_new(g, a->dtype, a->rank, dim);
    return draft_graph_run(g, &call);
}
