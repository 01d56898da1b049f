/*
 * group_norm (Wu & He 2018), with SiLU on top when asked: for each sample and group of c / groups channels,
 *   z = (x - mean) / sqrt(variance + eps)      u = gamma z + beta      y = u, or u sigmoid(u)
 * statistics over all positions and the group's channels. x, y [n, h, w, c] or [n, s, c]; gamma, beta [c].
 *
 *   du = dy (or dy silu'(u), with u computed again from x)      dgamma = sum du z      dbeta = sum du
 *   dx = (gamma du - mean(gamma du) - z mean(gamma du z)) / sqrt(variance + eps)
 */
#include "ops/op.h"

#include <assert.h>
#include <stdio.h>

enum { X, GAMMA, BETA };
enum { STATS }; /* [n, groups, 2]: mean, 1 / sqrt(variance + eps) */

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_group_norm_shape *s = call->args;
    struct draft_mark mark = draft_graph_mark(g);
    struct draft_tensor *stats = draft_new(g, DRAFT_F32, 3, (int64_t[]){s->n, s->groups, 2});
    if (stats == NULL ||
        !draft_cpu_group_norm(g->backend, s, draft_f32(call->in[X]), draft_f32(call->in[GAMMA]),
                              draft_f32(call->in[BETA]), draft_f32(call->out), draft_f32(stats), &g->error))
        return false;
    if (call->out->needs_grad)
        call->saved[STATS] = stats;
    else
        draft_graph_release(g, mark);
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    struct draft_norm_gradients to = {0};
    const float *dy = call->out->grad;
    to.dgamma = draft_grad(g, call->in[GAMMA], &to.accumulate_gamma);
    to.dbeta = draft_grad(g, call->in[BETA], &to.accumulate_beta);
    to.dx = draft_grad_in_place(g, call->out, call->in[X], &to.accumulate_x);
    return draft_graph_ok(g) &&
           draft_cpu_group_norm_backward(g->backend, call->args, draft_f32(call->in[X]), draft_f32(call->in[GAMMA]),
                                         draft_f32(call->in[BETA]), draft_f32(call->saved[STATS]), dy, &to, &g->error);
}

const struct draft_op draft_op_group_norm = {.name = "group_norm",
                                             .id = DRAFT_OP_group_norm,
                                             .forward = forward,
                                             .backward = backward,
                                             .reads = draft_reads_inputs};

struct draft_tensor *draft_group_norm(struct draft_graph *g, struct draft_tensor *x, struct draft_tensor *gamma,
                                      struct draft_tensor *beta, int groups, float eps, bool silu)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL && gamma != NULL && beta != NULL);
    if (!draft_is_sequence_or_image(x) || groups < 1 || draft_last(x) % groups != 0 ||
        !draft_is_vector(gamma, draft_last(x)) || !draft_is_vector(beta, draft_last(x))) {
        char expected[128];
        snprintf(expected, sizeof expected, "x [n, h, w, c] or [n, s, c] with c in %d groups, weight and bias [c]",
                 groups);
        return DRAFT_REFUSE(g, "group_norm", expected, x, gamma, beta);
    }
    struct draft_group_norm_shape s = {.n = x->dim[0],
                                       .positions = draft_positions(x),
                                       .c = draft_last(x),
                                       .groups = groups,
                                       .eps = eps,
                                       .silu = silu};
    struct draft_call call = {.op = &draft_op_group_norm, .in = {x, gamma, beta}, .args = &s, .args_size = sizeof s};
    call.out = draft_new(g, x->dtype, x->rank, x->dim);
    return draft_graph_run(g, &call);
}
