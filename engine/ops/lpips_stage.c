/*
 * lpips_stage (Zhang et al. 2018): y[i, p, c] = x[i, p, c] / (|x[i, p]| + 1e-10) sqrt(linear[c] / positions)
 * x [n, h, w, c], linear [c] >= 0 -> y [n, h w c]. The squared distance of two rows of y is LPIPS' term of that stage:
 * the mean over positions of sum_c linear[c] (difference of the unit vectors)^2.
 * No gradient: LPIPS is measured here, never trained on.
 */
#include "ops/op.h"

#include <assert.h>
#include <math.h>

static const double NORM_EPS = 1e-10;

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    (void)g;
    const int64_t rows = draft_rows(call->in[0]), c = draft_last(call->in[0]), positions = draft_positions(call->in[0]);
    const float *x = draft_f32(call->in[0]), *linear = draft_f32(call->in[1]);
    float *y = draft_f32(call->out);
    for (int64_t p = 0; p < rows; p++, x += c, y += c) {
        double square = 0;
        for (int64_t i = 0; i < c; i++)
            square += (double)x[i] * x[i];
        double norm = sqrt(square) + NORM_EPS;
        for (int64_t i = 0; i < c; i++)
            y[i] = (float)(x[i] / norm * sqrt((double)linear[i] / (double)positions));
    }
    return true;
}

const struct draft_op draft_op_lpips_stage = {.name = "lpips_stage",
                                              .id = DRAFT_OP_lpips_stage,
                                              .forward = forward,
                                              DRAFT_NO_GRADIENT("LPIPS measures diversity and is not trained on")};

struct draft_tensor *draft_lpips_stage(struct draft_graph *g, struct draft_tensor *x, struct draft_tensor *linear)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL && linear != NULL);
    if (!draft_is_activation(x, 4) || !draft_is_vector(linear, x->dim[3]))
        return DRAFT_REFUSE(g, "lpips_stage", "x [n, h, w, c] and linear [c]", x, linear);
    struct draft_call call = {.op = &draft_op_lpips_stage, .in = {x, linear}};
    call.out = draft_new(g, DRAFT_F32, 2, (int64_t[]){x->dim[0], x->dim[1] * x->dim[2] * x->dim[3]});
    return call.out != NULL ? draft_graph_run(g, &call) : NULL;
}
