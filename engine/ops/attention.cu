/* attention: formulas in attention.c. Unfused: scores and probabilities of a picture in memory */
#include "backend/cuda/op.h"

enum { Q, K, V };

static int64_t of_queries(const struct draft_attention_shape *s)
{
    return s->s * s->heads * s->d;
}

static int64_t of_keys(const struct draft_attention_shape *s)
{
    return s->t * s->heads * s->d;
}

/* Room for every head's [s, t] of one picture. */
static float *scores(struct draft_graph *g, const struct draft_attention_shape *s)
{
    return draft_graph_ok(g) ? static_cast<float *>(draft_temporary(g, size_t(s->heads * s->s * s->t) * sizeof(float)))
                             : nullptr;
}

/* One matrix a head: how far it is from row to row and from head to head. */
struct matrices {
    const float *values;
    int64_t row, head;
    bool transposed;
};

static struct matrices score_matrix(const struct draft_attention_shape *s, const float *p)
{
    return {p, s->t, s->s * s->t, false};
}

static struct matrices head_matrix(const struct draft_attention_shape *s, const float *x)
{
    return {x, s->heads * s->d, s->d, false};
}

static struct matrices transposed(struct matrices m)
{
    m.transposed = true;
    return m;
}

static struct draft_cuda_gradient shifted(struct draft_cuda_gradient d, int64_t by)
{
    return {static_cast<float *>(d.to) + by, d.accumulate};
}

struct sizes {
    int64_t m, n, k;
};

/* to = op(a) op(b) for every head; to is a matrix of heads inside rows, or of scores. */
static bool product(struct draft_graph *g, const struct draft_attention_shape *s, struct sizes size, struct matrices a,
                    struct matrices b, struct draft_cuda_gradient to, bool to_heads)
{
    const struct matrices c = to_heads ? head_matrix(s, nullptr) : score_matrix(s, nullptr);
    const struct draft_cuda_product p = {.batch = s->heads,
                                         .m = size.m,
                                         .n = size.n,
                                         .k = size.k,
                                         .trans_a = a.transposed,
                                         .trans_b = b.transposed,
                                         .lda = a.row,
                                         .ldb = b.row,
                                         .ldc = c.row,
                                         .stride_a = a.head,
                                         .stride_b = b.head,
                                         .stride_c = c.head,
                                         .a = a.values,
                                         .b = b.values,
                                         .bias = nullptr,
                                         .c = static_cast<float *>(to.to),
                                         .alpha = 1,
                                         .beta = to.accumulate ? 1.0f : 0.0f};
    return draft_cuda_multiply(g->backend, &p, &g->error);
}

static bool probabilities(struct draft_graph *g, const struct draft_attention_shape *s, const float *q, const float *k,
                          float *p)
{
    if (!product(g, s, {s->s, s->t, s->d}, head_matrix(s, q), transposed(head_matrix(s, k)), draft_overwrite(p), false))
        return false;
    draft_cuda_softmax(draft_stream(g), DRAFT_F32, DRAFT_F32, s->heads, s->s, s->t, s->causal, s->scale, p, p);
    return true;
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_attention_shape &s = draft_args<struct draft_attention_shape>(call);
    const float *q = draft_on_device(g, call->in[Q]), *k = draft_on_device(g, call->in[K]);
    const float *v = draft_on_device(g, call->in[V]);
    const struct draft_mark mark = draft_graph_mark(g);
    float *p = scores(g, &s);
    bool done = p != nullptr;
    for (int64_t i = 0; done && i < s.n; i++)
        done = probabilities(g, &s, q + i * of_queries(&s), k + i * of_keys(&s), p) &&
               product(g, &s, {s.s, s.d, s.t}, score_matrix(&s, p), head_matrix(&s, v + i * of_keys(&s)),
                       draft_overwrite(draft_f32(call->out) + i * of_queries(&s)), true);
    draft_graph_release(g, mark);
    return done && draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_attention_shape &s = draft_args<struct draft_attention_shape>(call);
    const float *q = draft_on_device(g, call->in[Q]), *k = draft_on_device(g, call->in[K]);
    const float *v = draft_on_device(g, call->in[V]), *dy = call->out->grad;
    const struct draft_cuda_gradient dq = draft_gradient(g, call->in[Q]);
    const struct draft_cuda_gradient dk = draft_gradient(g, call->in[K]);
    const struct draft_cuda_gradient dv = draft_gradient(g, call->in[V]);
    const struct draft_mark mark = draft_graph_mark(g);
    float *p = scores(g, &s), *ds = p ? scores(g, &s) : nullptr;
    bool done = ds != nullptr;
    for (int64_t i = 0; done && i < s.n; i++) {
        const int64_t at_q = i * of_queries(&s), at_k = i * of_keys(&s);
        done = probabilities(g, &s, q + at_q, k + at_k, p);
        if (done && dv.to)
            done = product(g, &s, {s.t, s.d, s.s}, transposed(score_matrix(&s, p)), head_matrix(&s, dy + at_q),
                           shifted(dv, at_k), true);
        done = done && product(g, &s, {s.s, s.t, s.d}, head_matrix(&s, dy + at_q),
                               transposed(head_matrix(&s, v + at_k)), draft_overwrite(ds), false);
        if (done)
            draft_cuda_softmax_backward(draft_stream(g), DRAFT_F32, s.heads * s.s, s.t, s.scale, p, ds, ds);
        if (done && dq.to)
            done = product(g, &s, {s.s, s.d, s.t}, score_matrix(&s, ds), head_matrix(&s, k + at_k), shifted(dq, at_q),
                           true);
        if (done && dk.to)
            done = product(g, &s, {s.t, s.d, s.s}, transposed(score_matrix(&s, ds)), head_matrix(&s, q + at_q),
                           shifted(dk, at_k), true);
    }
    draft_graph_release(g, mark);
    return done && draft_launched(g);
}

const struct draft_op_column draft_cuda_op_attention = {forward, backward};
