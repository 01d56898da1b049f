/*
 * concat_channels: y [.., ca + cb] = (a [.., ca], b [.., cb]) along the last dimension (the UNet's skip connections)
 *   da, db: the two parts of dy
 */
#include "ops/op.h"

#include <assert.h>

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_tensor *a = call->in[0], *b = call->in[1];
    int64_t ca = draft_last(a), cb = draft_last(b), c = ca + cb;
    float *y = draft_f32(call->out);
    draft_copy_rows(g->backend, draft_rows(a), ca, draft_f32(a), ca, y, c, false);
    draft_copy_rows(g->backend, draft_rows(b), cb, draft_f32(b), cb, y + ca, c, false);
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const float *dy = call->out->grad;
    int64_t first = 0;
    for (int i = 0; i < 2; i++) {
        int64_t width = draft_last(call->in[i]);
        bool accumulate;
        float *dx = draft_grad(g, call->in[i], &accumulate);
        if (dx != NULL)
            draft_copy_rows(g->backend, draft_rows(call->out), width, dy + first, draft_last(call->out), dx, width,
                            accumulate);
        first += width;
    }
    return draft_graph_ok(g);
}

const struct draft_op draft_op_concat_channels = {.name = "concat_channels",
                                                  .id = DRAFT_OP_concat_channels,
                                                  .forward = forward,
                                                  .backward = backward,
                                                  .reads = draft_reads_nothing};

struct draft_tensor *draft_concat_channels(struct draft_graph *g, struct draft_tensor *a, struct draft_tensor *b)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(a != NULL && b != NULL);
    if (!draft_is_float(a) || b->dtype != a->dtype || a->rank < 1 || a->rank != b->rank ||
        memcmp(a->dim, b->dim, (size_t)(a->rank - 1) * sizeof *a->dim) != 0)
        return DRAFT_REFUSE(g, "concat_channels", "two tensors that differ in the last dimension only", a, b);
    int64_t dim[DRAFT_MAX_RANK];
    memcpy(dim, a->dim, sizeof dim);
    dim[a->rank - 1] += draft_last(b);
    struct draft_call call = {.op = &draft_op_concat_channels, .in = {a, b}};
    call.out = draft_new(g, a->dtype, a->rank, dim);
    return draft_graph_run(g, &call);
}
