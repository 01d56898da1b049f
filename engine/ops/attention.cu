/*
 * attention: formulas in attention.c. In BF16 through cuDNN's fused kernels where it has plans for the shape; else, and
 * in F32 or with lengths, unfused: scores (F32) and probabilities (in q's type) of a picture in memory.
 */
#include "backend/cuda/op.h"

#include "backend/cuda/attention.h"

enum { Q, K, V, LENGTHS };
enum { LOG_SUM }; /* of fused attention alone: [n, heads, s] */

/* --- Unfused --------------------------------------------------------------------------------------------------------
 */

static int64_t of_queries(const struct draft_attention_shape *s)
{
    return s->s * s->heads * s->d;
}

/* Numbers of out's a picture, whose rows may have room behind them. */
static int64_t of_out(const struct draft_attention_shape *s)
{
    return s->s * (s->out_row ? s->out_row : s->heads * s->d);
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
                    bool to_heads, int64_t to_row = 0)
{
    struct matrices c = to_heads ? head_matrix(s, nullptr) : score_matrix(s, nullptr);
    if (to_row > 0)
        c.row = to_row;
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
                                         .onto = nullptr,
                                         .c = to.to,
                                         .alpha = 1,
                                         .beta = to.accumulate ? 1.0f : 0.0f,
                                         .type = type,
                                         .c_type = to_heads ? type : DRAFT_F32};
    return draft_cuda_multiply(g->backend, &p, &g->error);
}

/* Where the picture's number of keys is; null: all take part. */
static const float *length_at(const struct draft_call *call, int64_t picture)
{
    return call->in[LENGTHS] ? draft_f32(call->in[LENGTHS]) + picture : nullptr;
}

static bool probabilities(struct draft_graph *g, const struct draft_attention_shape *s, enum draft_dtype type,
                          const void *q, const void *k, const float *length, void *scores, void *p)
{
    if (!product(g, s, type, {s->s, s->t, s->d}, head_matrix(s, q), transposed(head_matrix(s, k)),
                 draft_overwrite(scores), false))
        return false;
    draft_cuda_softmax(draft_stream(g), DRAFT_F32, type, s->heads, s->s, s->t, s->causal, length, s->scale, scores, p);
    return true;
}

static const void *values_at(const struct draft_tensor *x, int64_t elements)
{
    return draft_at(static_cast<const void *>(x->data), x->dtype, elements);
}

static bool unfused_forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_attention_shape &s = draft_args<struct draft_attention_shape>(call);
    const enum draft_dtype type = call->out->dtype;
    const struct draft_mark mark = draft_graph_mark(g);
    void *scores = room(g, &s, DRAFT_F32), *p = second_room(g, &s, type, scores);
    bool done = draft_graph_ok(g);
    for (int64_t i = 0; done && i < s.n; i++) {
        const int64_t at_q = i * of_queries(&s), at_k = i * of_keys(&s);
        done = probabilities(g, &s, type, values_at(call->in[Q], at_q), values_at(call->in[K], at_k),
                             length_at(call, i), scores, p) &&
               product(g, &s, type, {s.s, s.d, s.t}, score_matrix(&s, p), head_matrix(&s, values_at(call->in[V], at_k)),
                       draft_overwrite(draft_at(call->out->data, type, i * of_out(&s))), true, s.out_row);
    }
    draft_graph_release(g, mark);
    return done && draft_launched(g);
}

static bool unfused_backward(struct draft_graph *g, struct draft_call *call)
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
        done = probabilities(g, &s, type, q, k, length_at(call, i), scores, p);
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

/* --- Fused ----------------------------------------------------------------------------------------------------------
 */

/* Memory that a way wants beside the backend's own workspace; NULL: none. */
static void *way_memory(struct draft_graph *g, const struct draft_cuda_attention_way *way)
{
    return way->workspace > 0 && draft_graph_ok(g) ? draft_temporary(g, way->workspace) : nullptr;
}

static float *row_memory(struct draft_graph *g, const struct draft_attention_shape *s)
{
    return draft_graph_ok(g) ? static_cast<float *>(draft_temporary(g, size_t(s->n * s->heads * s->s) * sizeof(float)))
                             : nullptr;
}

/* What both ways read, for the pictures from `first` on. */
static struct draft_cuda_attention fused_call(const struct draft_call *call, const struct draft_cuda_attention_way *way,
                                              int64_t first)
{
    struct draft_cuda_attention c = {};
    c.shape = draft_args<struct draft_attention_shape>(call);
    c.shape.n = way->pictures;
    const int64_t at_q = first * of_queries(&c.shape), at_k = first * of_keys(&c.shape);
    c.q = values_at(call->in[Q], at_q);
    c.k = values_at(call->in[K], at_k);
    c.v = values_at(call->in[V], at_k);
    c.o = draft_at(call->out->data, DRAFT_BF16, first * of_out(&c.shape));
    return c;
}

static bool fused_forward(struct draft_graph *g, struct draft_call *call, const struct draft_cuda_attention_way *way,
                          bool kept)
{
    const struct draft_attention_shape &s = draft_args<struct draft_attention_shape>(call);
    const int64_t dim[] = {s.n, s.heads, s.s};
    if (kept && !(call->saved[LOG_SUM] = draft_new(g, DRAFT_F32, 3, dim)))
        return false;
    const struct draft_mark mark = draft_graph_mark(g);
    float *log_sum = kept ? draft_f32(call->saved[LOG_SUM]) : row_memory(g, &s);
    void *workspace = way_memory(g, way);
    bool done = draft_graph_ok(g);
    for (int64_t i = 0; done && i < s.n; i += way->pictures) {
        struct draft_cuda_attention c = fused_call(call, way, i);
        c.log_sum = log_sum + i * s.heads * s.s;
        done = draft_cuda_attend(g->backend, &c, workspace, &g->error);
    }
    draft_graph_release(g, mark);
    return done;
}

/* cuDNN writes all three gradients, and only writes: what nobody wants, or what is added to, goes by way of memory of
 * its own. */
static void *place(struct draft_graph *g, struct draft_cuda_gradient d, int64_t numbers)
{
    if (d.to && !d.accumulate)
        return d.to;
    return draft_graph_ok(g) ? draft_temporary(g, size_t(numbers) * draft_size(DRAFT_BF16)) : nullptr;
}

static bool fused_backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_attention_shape &s = draft_args<struct draft_attention_shape>(call);
    const int64_t numbers[] = {s.n * of_queries(&s), s.n * of_keys(&s), s.n * of_keys(&s)};
    struct draft_cuda_attention_way way;
    if (!draft_cuda_attention_way(g->backend, &s, true, &way, &g->error))
        return false;
    struct draft_cuda_gradient d[3];
    void *to[3];
    for (int i = Q; i <= V; i++)
        d[i] = draft_gradient(g, call->in[i]);
    const struct draft_mark mark = draft_graph_mark(g);
    for (int i = Q; i <= V; i++)
        to[i] = place(g, d[i], numbers[i]);
    float *row_sum = row_memory(g, &s);
    void *workspace = way_memory(g, &way);
    bool done = draft_graph_ok(g);
    for (int64_t i = 0; done && i < s.n; i += way.pictures) {
        struct draft_cuda_attention c = fused_call(call, &way, i);
        c.log_sum = draft_f32(call->saved[LOG_SUM]) + i * s.heads * s.s;
        c.row_sum = row_sum + i * s.heads * s.s;
        c.d_o = draft_at(static_cast<const void *>(call->out->grad), DRAFT_BF16, i * of_queries(&s));
        c.dq = draft_at(to[Q], DRAFT_BF16, i * of_queries(&s));
        c.dk = draft_at(to[K], DRAFT_BF16, i * of_keys(&s));
        c.dv = draft_at(to[V], DRAFT_BF16, i * of_keys(&s));
        done = draft_cuda_attend_backward(g->backend, &c, workspace, &g->error);
    }
    for (int i = Q; done && i <= V; i++)
        if (d[i].to && d[i].accumulate)
            draft_cuda_convert(draft_stream(g), DRAFT_BF16, DRAFT_BF16, numbers[i], to[i], d[i]);
    draft_graph_release(g, mark);
    return done && draft_launched(g);
}

/* --- Which of them --------------------------------------------------------------------------------------------------
 */

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_attention_shape &s = draft_args<struct draft_attention_shape>(call);
    struct draft_cuda_attention_way way = {}, back = {};
    const bool padded = call->in[LENGTHS]; /* few keys, of a prompt */
    if (call->out->dtype == DRAFT_BF16 && !padded && !draft_cuda_attention_way(g->backend, &s, false, &way, &g->error))
        return false;
    if (way.fused && call->out->needs_grad && !draft_cuda_attention_way(g->backend, &s, true, &back, &g->error))
        return false;
    return way.fused ? fused_forward(g, call, &way, back.fused) : unfused_forward(g, call);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    return call->saved[LOG_SUM] ? fused_backward(g, call) : unfused_backward(g, call);
}

const struct draft_op_column draft_cuda_op_attention = {forward, backward};
