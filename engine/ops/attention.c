/*
 * attention (Vaswani et al. 2017), head by head: P = softmax(q k^T / sqrt(d)), y = P v.
 * q, y [n, s, heads d]; k, v [n, t, heads d]; with `causal`, position i sees j <= i.
 *
 *   dv = P^T dy      dS = P (dy v^T - rowsum(dy y))      dq = dS k / sqrt(d)      dk = dS^T q / sqrt(d)
 * P is computed again in backward, from the log of each row's sum (Dao 2023).
 */
#include "ops/op.h"

#include <assert.h>
#include <stdio.h>
#include <math.h>

enum { Q, K, V };
enum { LOG_SUM }; /* [n, heads, s] */

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_attention_shape *s = call->args;
    float *log_sum = NULL;
    if (call->out->needs_grad) {
        call->saved[LOG_SUM] = draft_new(g, DRAFT_F32, 3, (int64_t[]){s->n, s->heads, s->s});
        if (call->saved[LOG_SUM] == NULL)
            return false;
        log_sum = draft_f32(call->saved[LOG_SUM]);
    }
    return draft_cpu_attention(g->backend, s, draft_f32(call->in[Q]), draft_f32(call->in[K]), draft_f32(call->in[V]),
                               draft_f32(call->out), log_sum, &g->error);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    struct draft_attention_gradients to = {0};
    to.dq = draft_grad(g, call->in[Q], &to.accumulate_q);
    to.dk = draft_grad(g, call->in[K], &to.accumulate_k);
    to.dv = draft_grad(g, call->in[V], &to.accumulate_v);
    return draft_graph_ok(g) &&
           draft_cpu_attention_backward(g->backend, call->args, draft_f32(call->in[Q]), draft_f32(call->in[K]),
                                        draft_f32(call->in[V]), draft_f32(call->out), draft_f32(call->saved[LOG_SUM]),
                                        call->out->grad, &to, &g->error);
}

const struct draft_op draft_op_attention = {
    .name = "attention", .id = DRAFT_OP_attention, .forward = forward, .backward = backward};

struct draft_tensor *draft_attention(struct draft_graph *g, struct draft_tensor *q, struct draft_tensor *k,
                                     struct draft_tensor *v, int heads, bool causal)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(q != NULL && k != NULL && v != NULL);
    bool fits = draft_is_activation(q, 3) && k->rank == 3 && k->dtype == q->dtype && draft_same_shape(k, v) &&
                k->dim[0] == q->dim[0] && k->dim[2] == q->dim[2] && heads >= 1 && q->dim[2] % heads == 0 &&
                k->dim[1] >= 1;
    if (!fits || (causal && q->dim[1] != k->dim[1])) {
        char expected[128];
        snprintf(expected, sizeof expected, "q [n, s, c], k and v [n, %s, c] with c in %d heads", causal ? "s" : "t",
                 heads);
        return DRAFT_REFUSE(g, "attention", expected, q, k, v);
    }
    /* The kernel wants three gradient buffers: a tensor given twice gets a second one through a view. */
    if (k == q)
        k = draft_reshape(g, k, k->rank, k->dim);
    if (v == q || v == k)
        v = draft_reshape(g, v, v->rank, v->dim);
    struct draft_attention_shape s = {.n = q->dim[0],
                                      .s = q->dim[1],
                                      .t = k->dim[1],
                                      .heads = heads,
                                      .d = q->dim[2] / heads,
                                      .causal = causal,
                                      .scale = (float)(1 / sqrt((double)(q->dim[2] / heads)))};
    struct draft_call call = {.op = &draft_op_attention, .in = {q, k, v}, .args = &s, .args_size = sizeof s};
    call.out = draft_new(g, q->dtype, 3, q->dim);
    return draft_graph_run(g, &call);
}
