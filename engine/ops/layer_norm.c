/*
 * layer_norm (Ba et al. 2016) over the last dimension: z = (x - mean) / sqrt(variance + eps), y = gamma z + beta.
 * x, y [..., c]; gamma, beta [c].
 *
 *   dgamma = sum over rows of dy z      dbeta = sum over rows of dy
 *   dx = (gamma dy - mean(gamma dy) - z mean(gamma dy z)) / sqrt(variance + eps)
 */
#include "ops/op.h"

#include <assert.h>

enum { X, GAMMA, BETA };
enum { STATS }; /* [rows, 2]: mean, 1 / sqrt(variance + eps) */

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_layer_norm_args *args = call->args;
    const struct draft_tensor *x = call->in[X];
    struct draft_mark mark = draft_graph_mark(g);
    struct draft_tensor *stats = draft_new(g, DRAFT_F32, 2, (int64_t[]){draft_rows(x), 2});
    if (stats == NULL || !draft_cpu_layer_norm(g->backend, draft_rows(x), draft_last(x), args->eps, draft_f32(x),
                                               draft_f32(call->in[GAMMA]), draft_f32(call->in[BETA]),
                                               draft_f32(call->out), draft_f32(stats), &g->error))
        return false;
    if (call->out->needs_grad)
        call->saved[STATS] = stats;
    else
        draft_graph_release(g, mark);
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    struct draft_tensor *x = call->in[X];
    struct draft_norm_gradients to = {0};
    const float *dy = call->out->grad;
    to.dgamma = draft_grad(g, call->in[GAMMA], &to.accumulate_gamma);
    to.dbeta = draft_grad(g, call->in[BETA], &to.accumulate_beta);
    /* The kernel's second pass, for the weight's gradients, reads dy again: then dx needs a buffer of its own. */
    if (to.dgamma != NULL || to.dbeta != NULL)
        to.dx = draft_grad(g, x, &to.accumulate_x);
    else
        to.dx = draft_grad_in_place(g, call->out, x, &to.accumulate_x);
    return draft_graph_ok(g) &&
           draft_cpu_layer_norm_backward(g->backend, draft_rows(x), draft_last(x), draft_f32(x),
                                         draft_f32(call->in[GAMMA]), draft_f32(call->saved[STATS]), dy, &to, &g->error);
}

const struct draft_op draft_op_layer_norm = {.name = "layer_norm",
                                             .id = DRAFT_OP_layer_norm,
                                             .forward = forward,
                                             .backward = backward,
                                             .reads = draft_reads_inputs};

struct draft_tensor *draft_layer_norm(struct draft_graph *g, struct draft_tensor *x, struct draft_tensor *gamma,
                                      struct draft_tensor *beta, float eps)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL && gamma != NULL && beta != NULL);
    if (!draft_is_float(x) || x->rank < 1 || !draft_is_vector(gamma, draft_last(x)) ||
        !draft_is_vector(beta, draft_last(x)))
        return DRAFT_REFUSE(g, "layer_norm", "x [..., c], weight and bias [c]", x, gamma, beta);
    struct draft_layer_norm_args args = {eps};
    struct draft_call call = {
        .op = &draft_op_layer_norm, .in = {x, gamma, beta}, .args = &args, .args_size = sizeof args};
    call.out = draft_new_rows(g, x->dtype, x->rank, x->dim);
    return draft_graph_run(g, &call);
}
