/* attention: formulas in attention.c. Unfused: scores (F32) and probabilities (in q's type) of a picture in memory */
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
static void *room(struct draft_graph *g, const struct draft_attention_shape *s, enum draft_dtype type)
{
    return draft_graph_ok(g) ? draft_temporary(g, size_t(s->heads * s->s * s->t) * draft_size(type)) : nullptr;
}

/* Scores are F32 whatever probabilities are; of one type, they share their memory. */
static void *second_room(struct draft_graph *g, const struct draft_attention_shape *s, enum draft_dtype type,
                         void *scores)
{
    return type == DRAFT_F32 ? scores : room(g, s, type);
}

/* One matrix a head: how far it is from row to row and from head to head. */
struct matrices {
    const void *values;
    int64_t row, head;
    bool transposed;
};

static struct matrices score_matrix(const struct draft_attention_shape *s, const void *p)
{
    return {p, s->t, s->s * s->t, false};
}

static struct matrices head_matrix(const struct draft_attention_shape *s, const void *x)
{
    return {x, s->heads * s->d, s->d, false};
}

static struct matrices transposed(struct matrices m)
{
    m.transposed = true;
    return m;
}

static struct draft_cuda_gradient shifted(struct draft_cuda_gradient d, enum draft_dtype type, int64_t by)
{
    return {draft_at(d.to, type, by), d.accumulate};
}

struct sizes {
    int64_t m, n, k;
};

/* to = op(a) op(b) for every head; to is a matrix of heads inside rows, or of scores. */
static bool product(struct draft_graph *g, const struct draft_attention_shape *s, enum draft_dtype type,
                    struct sizes size, struct matrices a, struct matrices b, struct draft_cuda_gradient to,
                    bool to_heads)
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
                                         .c = to.to,
                                         .alpha = 1,
                                         .beta = to.accumulate ? 1.0f : 0.0f,
                                         .type = type,
                                         .c_type = to_heads ? type : DRAFT_F32};
    return draft_cuda_multiply(g->backend, &p, &g->error);
}

static bool probabilities(struct draft_graph *g, const struct draft_attention_shape *s, enum draft_dtype type,
                          const void *q, const void *k, void *scores, void *p)
{
    if (!product(g, s, type, {s->s, s->t, s->d}, head_matrix(s, q), transposed(head_matrix(s, k)),
                 draft_overwrite(scores), false))
        return false;
    draft_cuda_softmax(draft_stream(g), DRAFT_F32, type, s->heads, s->s, s->t, s->causal, s->scale, scores, p);
    return true;
}

static const void *values_at(const struct draft_tensor *x, int64_t elements)
{
    return draft_at(static_cast<const void *>(x->data), x->dtype, elements);
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_attention_shape &s = draft_args<struct draft_attention_shape>(call);
    const enum draft_dtype type = call->out->dtype;
    const struct draft_mark mark = draft_graph_mark(g);
    void *scores = room(g, &s, DRAFT_F32), *p = second_room(g, &s, type, scores);
    bool done = draft_graph_ok(g);
    for (int64_t i = 0; done && i < s.n; i++) {
        const int64_t at_q = i * of_queries(&s), at_k = i * of_keys(&s);
        done = probabilities(g, &s, type, values_at(call->in[Q], at_q), values_at(call->in[K], at_k), scores, p) &&
               product(g, &s, type, {s.s, s.d, s.t}, score_matrix(&s, p), head_matrix(&s, values_at(call->in[V], at_k)),
                       draft_overwrite(draft_at(call->out->data, type, at_q)), true);
    }
    draft_graph_release(g, mark);
    return done && draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_attention_shape &s = draft_args<struct draft_attention_shape>(call);
    const enum draft_dtype type = call->out->dtype;
    const struct draft_cuda_gradient dq = draft_gradient(g, call->in[Q]);
    const struct draft_cuda_gradient dk = draft_gradient(g, call->in[K]);
    const struct draft_cuda_gradient dv = draft_gradient(g, call->in[V]);
    const struct draft_mark mark = draft_graph_mark(g);
    void *scores = room(g, &s, DRAFT_F32), *p = room(g, &s, type); /* scores: afterwards dp */
    void *ds = second_room(g, &s, type, scores);
    bool done = draft_graph_ok(g);
    for (int64_t i = 0; done && i < s.n; i++) {
        const int64_t at_q = i * of_queries(&s), at_k = i * of_keys(&s);
        const void *q = values_at(call->in[Q], at_q), *k = values_at(call->in[K], at_k);
        const void *v = values_at(call->in[V], at_k);
        const void *dy = draft_at(static_cast<const void *>(call->out->grad), type, at_q);
        done = probabilities(g, &s, type, q, k, scores, p);
        if (done && dv.to)
            done = product(g, &s, type, {s.t, s.d, s.s}, transposed(score_matrix(&s, p)), head_matrix(&s, dy),
                           shifted(dv, type, at_k), true);
        done = done && product(g, &s, type, {s.s, s.t, s.d}, head_matrix(&s, dy), transposed(head_matrix(&s, v)),
                               draft_overwrite(scores), false);
        if (done)
            draft_cuda_softmax_backward(draft_stream(g), DRAFT_F32, type, s.heads * s.s, s.t, s.scale, p, scores, ds);
        if (done && dq.to)
            done = product(g, &s, type, {s.s, s.d, s.t}, score_matrix(&s, ds), head_matrix(&s, k),
                           shifted(dq, type, at_q), true);
        if (done && dk.to)
            done = product(g, &s, type, {s.t, s.d, s.s}, transposed(score_matrix(&s, ds)), head_matrix(&s, q),
                           shifted(dk, type, at_k), true);
    }
    draft_graph_release(g, mark);
    return done && draft_launched(g);
}

const struct draft_op_column draft_cuda_op_attention = {forward, backward};
