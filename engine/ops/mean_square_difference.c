/*
 * mean_square_difference: y [1] = sum of (a - b)^2 / count, added up in double (the KL between two predicted noises)
 *   da = dy 2 (a - b) / count      db = -da
 */
#include "ops/op.h"

#include <assert.h>

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    (void)g;
    const float *a = draft_f32(call->in[0]), *b = draft_f32(call->in[1]);
    int64_t n = draft_tensor_count(call->in[0]);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - b[i];
        sum += d * d;
    }
    draft_f32(call->out)[0] = (float)(sum / (double)n);
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const float *a = draft_f32(call->in[0]), *b = draft_f32(call->in[1]);
    int64_t n = draft_tensor_count(call->in[0]);
    float scale = (float)(2 * (double)*draft_grad_f32(call->out) / (double)n);
    for (int i = 0; i < 2; i++, scale = -scale) {
        bool accumulate;
        float *d = draft_grad(g, call->in[i], &accumulate);
        for (int64_t j = 0; d != NULL && j < n; j++) {
            float v = scale * (a[j] - b[j]);
            d[j] = accumulate ? d[j] + v : v;
        }
    }
    return draft_graph_ok(g);
}

const struct draft_op draft_op_mean_square_difference = {.name = "mean_square_difference",
                                                         .id = DRAFT_OP_mean_square_difference,
                                                         .forward = forward,
                                                         .backward = backward,
                                                         .reads = draft_reads_inputs};

struct draft_tensor *draft_mean_square_difference(struct draft_graph *g, struct draft_tensor *a, struct draft_tensor *b)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(a != NULL && b != NULL);
    if (!draft_is_float(a) || !draft_same_shape(a, b) || draft_tensor_count(a) == 0)
        return DRAFT_REFUSE(g, "mean_square_difference", "two tensors of one shape", a, b);
    struct draft_call call = {.op = &draft_op_mean_square_difference, .in = {a, b}};
    call.out = draft_new(g, DRAFT_F32, 1, (int64_t[]){1});
    return draft_graph_run(g, &call);
}
