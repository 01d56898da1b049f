/*
 * cosine of rows: y[i] = a[i] . b[i] / (|a[i]| |b[i]|), a, b [n, c] -> y [n]; sums in double
 *   da = dy (b / |b| - y a / |a|) / |a|      db = dy (a / |a| - y b / |b|) / |b|
 * A row of zeros has no direction: NaN, as in transformers' CLIP, and caught with the other non-finite numbers.
 */
#include "ops/op.h"

#include <assert.h>
#include <math.h>

struct row {
    double norm_a, norm_b, cosine;
};

static struct row measure(const float *a, const float *b, int64_t c)
{
    double aa = 0, bb = 0, ab = 0;
    for (int64_t j = 0; j < c; j++) {
        aa += (double)a[j] * a[j];
        bb += (double)b[j] * b[j];
        ab += (double)a[j] * b[j];
    }
    return (struct row){sqrt(aa), sqrt(bb), ab / (sqrt(aa) * sqrt(bb))};
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    (void)g;
    const struct draft_tensor *a = call->in[0], *b = call->in[1];
    int64_t c = a->dim[1];
    for (int64_t i = 0; i < a->dim[0]; i++)
        draft_f32(call->out)[i] = (float)measure(draft_f32(a) + i * c, draft_f32(b) + i * c, c).cosine;
    return true;
}

/* The gradient of the side x; y is the other one. */
static void side(const struct draft_call *call, const struct draft_tensor *x, const struct draft_tensor *y, float *dx,
                 bool accumulate)
{
    int64_t c = x->dim[1];
    for (int64_t i = 0; i < x->dim[0]; i++) {
        const float *xi = draft_f32(x) + i * c, *yi = draft_f32(y) + i * c;
        struct row r = measure(xi, yi, c);
        double dy = draft_grad_f32(call->out)[i] / r.norm_a;
        for (int64_t j = 0; j < c; j++) {
            double d = dy * (yi[j] / r.norm_b - r.cosine * xi[j] / r.norm_a);
            dx[i * c + j] = (float)(accumulate ? dx[i * c + j] + d : d);
        }
    }
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    bool accumulate;
    float *da = draft_grad(g, call->in[0], &accumulate);
    if (da != NULL)
        side(call, call->in[0], call->in[1], da, accumulate);
    float *db = draft_grad(g, call->in[1], &accumulate);
    if (db != NULL)
        side(call, call->in[1], call->in[0], db, accumulate);
    return draft_graph_ok(g);
}

const struct draft_op draft_op_cosine = {
    .name = "cosine", .id = DRAFT_OP_cosine, .forward = forward, .backward = backward, .reads = draft_reads_inputs};

struct draft_tensor *draft_cosine(struct draft_graph *g, struct draft_tensor *a, struct draft_tensor *b)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(a != NULL && b != NULL);
    if (!draft_is_activation(a, 2) || !draft_same_shape(a, b))
        return DRAFT_REFUSE(g, "cosine", "two tensors [n, c]", a, b);
    struct draft_call call = {.op = &draft_op_cosine, .in = {a, b}};
    call.out = draft_new(g, DRAFT_F32, 1, a->dim);
    return draft_graph_run(g, &call);
}
