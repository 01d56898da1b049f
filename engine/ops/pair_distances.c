/*
 * pair_distances: y[i, j] = sum over k of (x[i, k] - x[j, k])^2, added up in double; x [n, length] -> y [n, n],
 * symmetric, its diagonal zero. No gradient: LPIPS measures diversity with it, and is not trained on.
 */
#include "ops/op.h"

#include <assert.h>

static double square_distance(const float *a, const float *b, int64_t n)
{
    double sum[4] = {0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int j = 0; j < 4; j++) {
            double d = (double)a[i + j] - b[i + j];
            sum[j] += d * d;
        }
    for (; i < n; i++)
        sum[0] += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return sum[0] + sum[1] + sum[2] + sum[3];
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    (void)g;
    const int64_t n = call->in[0]->dim[0], length = call->in[0]->dim[1];
    const float *x = draft_f32(call->in[0]);
    float *y = draft_f32(call->out);
    for (int64_t i = 0; i < n; i++) {
        y[i * n + i] = 0;
        for (int64_t j = 0; j < i; j++)
            y[i * n + j] = y[j * n + i] = (float)square_distance(x + i * length, x + j * length, length);
    }
    return true;
}

const struct draft_op draft_op_pair_distances = {.name = "pair_distances",
                                                 .id = DRAFT_OP_pair_distances,
                                                 .forward = forward,
                                                 DRAFT_NO_GRADIENT("LPIPS measures diversity and is not trained on")};

struct draft_tensor *draft_pair_distances(struct draft_graph *g, struct draft_tensor *x)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL);
    if (!draft_is_f32(x, 2))
        return DRAFT_REFUSE(g, "pair_distances", "[n, length]", x);
    struct draft_call call = {.op = &draft_op_pair_distances, .in = {x}};
    call.out = draft_new(g, DRAFT_F32, 2, (int64_t[]){x->dim[0], x->dim[0]});
    return call.out != NULL ? draft_graph_run(g, &call) : NULL;
}
