/* mean: y [1] = sum of x / count, added up in double. dx = dy / count. */
#include "ops/op.h"

#include <assert.h>

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    (void)g;
    const float *x = draft_f32(call->in[0]);
    int64_t n = draft_tensor_count(call->in[0]);
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    draft_f32(call->out)[0] = (float)(sum / (double)n);
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    int64_t n = draft_tensor_count(call->in[0]);
    bool accumulate;
    float *dx = draft_grad(g, call->in[0], &accumulate);
    if (dx == NULL)
        return false;
    float d = (float)(*draft_grad_f32(call->out) / (double)n);
    for (int64_t i = 0; i < n; i++)
        dx[i] = accumulate ? dx[i] + d : d;
    return draft_graph_ok(g);
}

const struct draft_op draft_op_mean = {
    .name = "mean", .id = DRAFT_OP_mean, .forward = forward, .backward = backward, .reads = draft_reads_nothing};

struct draft_tensor *draft_mean(struct draft_graph *g, struct draft_tensor *x)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL);
    if (!draft_is_float(x) || draft_tensor_count(x) == 0)
        return DRAFT_REFUSE(g, "mean", "at least one number", x);
    struct draft_call call = {.op = &draft_op_mean, .in = {x}};
    call.out = draft_new(g, DRAFT_F32, 1, (int64_t[]){1});
    return draft_graph_run(g, &call);
}
