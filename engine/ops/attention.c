/*
 * attention (Vaswani et al. 2017), head by head: P = softmax(q k^T / sqrt(d)), y = P v.
 * q, y [n, s, heads d]; k, v [n, t, heads d]; with `causal`, position i sees j <= i; with lengths [n], the queries of
 * sample i see its first lengths[i] keys, and what lies behind them (padding) gets a gradient of zero.
 *
 *   dv = P^T dy      dS = P (dy v^T - rowsum(dy y))      dq = dS k / sqrt(d)      dk = dS^T q / sqrt(d)
 * P is computed again in backward, from the log of each row's sum (Dao 2023).
 */
#include "ops/op.h"

#include <assert.h>
#include <stdio.h>
#include <math.h>
#include <string.h>

enum { Q, K, V, LENGTHS };
enum { LOG_SUM }; /* [n, heads, s] */

/* All samples at once; or, with lengths, one after the other, as if it had no more keys than take part. */
struct piece {
    struct draft_attention_shape shape;
    int64_t q, k, log_sum; /* where it begins */
};

static int64_t pieces(const struct draft_call *call)
{
    const struct draft_attention_shape *s = call->args;
    return call->in[LENGTHS] != NULL ? s->n : 1;
}

static struct piece piece_at(const struct draft_call *call, int64_t i)
{
    const struct draft_attention_shape *s = call->args;
    const int64_t width = s->heads * s->d;
    struct piece piece = {*s, i * s->s * width, i * s->t * width, i * s->heads * s->s};
    if (call->in[LENGTHS] != NULL) {
        const float length = draft_f32(call->in[LENGTHS])[i];
        piece.shape.n = 1;
        if (length >= 1 && length < (float)s->t)
            piece.shape.t = (int64_t)length;
    }
    return piece;
}

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
    bool done = true;
    for (int64_t i = 0; done && i < pieces(call); i++) {
        const struct piece p = piece_at(call, i);
        done = draft_cpu_attention(g->backend, &p.shape, draft_f32(call->in[Q]) + p.q, draft_f32(call->in[K]) + p.k,
                                   draft_f32(call->in[V]) + p.k, draft_f32(call->out) + p.q,
                                   log_sum != NULL ? log_sum + p.log_sum : NULL, &g->error);
    }
    return done;
}

static float *shifted(float *gradient, int64_t by)
{
    return gradient != NULL ? gradient + by : NULL;
}

/* The gradient of keys or values that take no part. */
static void clear(float *gradient, bool accumulate, const struct draft_attention_shape *whole, int64_t taking_part)
{
    const int64_t width = whole->heads * whole->d;
    if (gradient != NULL && !accumulate)
        memset(gradient + taking_part * width, 0, (size_t)((whole->t - taking_part) * width) * sizeof(float));
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    struct draft_attention_gradients to = {0};
    to.dq = draft_grad(g, call->in[Q], &to.accumulate_q);
    to.dk = draft_grad(g, call->in[K], &to.accumulate_k);
    to.dv = draft_grad(g, call->in[V], &to.accumulate_v);
    bool done = draft_graph_ok(g);
    for (int64_t i = 0; done && i < pieces(call); i++) {
        const struct piece p = piece_at(call, i);
        struct draft_attention_gradients own = to;
        own.dq = shifted(to.dq, p.q);
        own.dk = shifted(to.dk, p.k);
        own.dv = shifted(to.dv, p.k);
        done = draft_cpu_attention_backward(g->backend, &p.shape, draft_f32(call->in[Q]) + p.q,
                                            draft_f32(call->in[K]) + p.k, draft_f32(call->in[V]) + p.k,
                                            draft_f32(call->out) + p.q, draft_f32(call->saved[LOG_SUM]) + p.log_sum,
                                            (const float *)call->out->grad + p.q, &own, &g->error);
        clear(own.dk, to.accumulate_k, call->args, p.shape.t);
        clear(own.dv, to.accumulate_v, call->args, p.shape.t);
    }
    return done;
}

const struct draft_op draft_op_attention = {
    .name = "attention", .id = DRAFT_OP_attention, .forward = forward, .backward = backward};

static struct draft_tensor *attend(struct draft_graph *g, struct draft_tensor *q, struct draft_tensor *k,
                                   struct draft_tensor *v, struct draft_tensor *lengths, int heads, bool causal)
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
    if (lengths != NULL && (lengths->needs_grad || !draft_is_vector(lengths, q->dim[0])))
        return DRAFT_REFUSE(g, "attention", "lengths [n] without a gradient, q [n, s, c]", lengths, q);
    /* The kernel wants three gradient buffers: a tensor given twice gets a second one through a view. */
    if (k == q)
        k = draft_reshape(g, k, k->rank, k->dim);
    if (v == q || v == k)
        v = draft_reshape(g, v, v->rank, v->dim);
    struct draft_tensor *out = draft_new_rows(g, q->dtype, 3, q->dim);
    if (out == NULL)
        return NULL;
    struct draft_attention_shape s = {.n = q->dim[0],
                                      .s = q->dim[1],
                                      .t = k->dim[1],
                                      .heads = heads,
                                      .d = q->dim[2] / heads,
                                      .causal = causal,
                                      .scale = (float)(1 / sqrt((double)(q->dim[2] / heads))),
                                      .out_row = out->row};
    struct draft_call call = {.op = &draft_op_attention, .in = {q, k, v, lengths}, .args = &s, .args_size = sizeof s};
    call.out = out;
    return draft_graph_run(g, &call);
}

struct draft_tensor *draft_attention(struct draft_graph *g, struct draft_tensor *q, struct draft_tensor *k,
                                     struct draft_tensor *v, int heads, bool causal)
{
    return attend(g, q, k, v, NULL, heads, causal);
}

struct draft_tensor *draft_attention_padded(struct draft_graph *g, struct draft_tensor *q, struct draft_tensor *k,
                                            struct draft_tensor *v, struct draft_tensor *lengths, int heads)
{
    return attend(g, q, k, v, lengths, heads, false);
}
