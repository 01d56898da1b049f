/*
 * convert: y = x in another floating type, F32 or BF16, rounded to nearest even. dx = dy, in x's type.
 * The one op that the CPU knows BF16 in: activations there are F32.
 */
#include "ops/op.h"
#include "tensor/half.h"

#include <assert.h>

struct work {
    const void *from;
    void *to;
    bool from_half, to_half, accumulate;
};

static void convert_range(void *context, int64_t begin, int64_t end)
{
    const struct work *w = context;
    for (int64_t i = begin; i < end; i++) {
        float value = w->from_half ? draft_bf16_to_f32(((const uint16_t *)w->from)[i]) : ((const float *)w->from)[i];
        if (w->to_half) {
            uint16_t *to = (uint16_t *)w->to + i;
            *to = draft_f32_to_bf16(w->accumulate ? draft_bf16_to_f32(*to) + value : value);
        } else {
            float *to = (float *)w->to + i;
            *to = w->accumulate ? *to + value : value;
        }
    }
}

static void run(struct draft_graph *g, const struct draft_tensor *from, const void *values,
                const struct draft_tensor *to, void *result, bool accumulate)
{
    struct work work = {values, result, from->dtype == DRAFT_BF16, to->dtype == DRAFT_BF16, accumulate};
    draft_parallel_range(g->backend, draft_tensor_count(to), DRAFT_GRAIN, convert_range, &work);
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    run(g, call->in[0], call->in[0]->data, call->out, call->out->data, false);
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    bool accumulate;
    void *dx = draft_grad(g, call->in[0], &accumulate);
    if (dx != NULL)
        run(g, call->out, call->out->grad, call->in[0], dx, accumulate);
    return draft_graph_ok(g);
}

const struct draft_op draft_op_convert = {
    .name = "convert", .id = DRAFT_OP_convert, .forward = forward, .backward = backward, .reads = draft_reads_nothing};

struct draft_tensor *draft_convert(struct draft_graph *g, struct draft_tensor *x, enum draft_dtype dtype)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL && (dtype == DRAFT_F32 || dtype == DRAFT_BF16));
    if (!draft_is_float(x))
        return DRAFT_REFUSE(g, "convert", "x in F32 or BF16", x);
    if (x->dtype == dtype)
        return x;
    struct draft_call call = {.op = &draft_op_convert, .in = {x}};
    call.out = draft_new(g, dtype, x->rank, x->dim);
    return draft_graph_run(g, &call);
}
