/*
 * Attention without the [s, t] matrix in memory (Dao et al. 2022): blocks of queries against blocks of keys, a running
 * maximum and sum per query, and the logarithm of the sum kept for the backward pass, which makes the probabilities
 * again (attention_backward.c).
 *
 * Everything is transposed, a query being a lane of the vectors: S^T = K Q^T in panels [keys][nr], the softmax runs
 * down the lanes, O^T += V^T P^T in panels [d][nr]. So a panel of probabilities is the right matrix of the second
 * product as it is, no sum crosses lanes, and neither the keys (77 of a prompt) nor d (40) are padded to vectors.
 */
#include "backend/cpu/attention.h"

#include <assert.h>
#include <math.h>

enum {
    KEYS = 128, /* a block: its probabilities, [KEYS][nr], fit the first cache */
    PANELS = 4, /* of queries that share a block of keys while it is in the second cache */
};

void draft_attention_measure(struct attention *a)
{
    const struct draft_attention_shape *s = a->shape;
    assert(s->d > 0 && s->heads > 0 && (!s->causal || s->s == s->t));
    a->step = s->heads * s->d;
    a->row = s->d % 128 == 0 ? s->d + 16 : s->d;
}

void draft_attention_cut(struct attention *a, int64_t unit)
{
    int64_t heads = a->shape->n * a->shape->heads, want = 4 * a->backend->threads;
    int64_t blocks = (a->shape->s + unit - 1) / unit, of_task = blocks;
    if (heads < want && a->backend->threads > 1)
        of_task = (blocks * heads + want - 1) / want;
    a->queries = (of_task > 0 ? of_task : 1) * unit;
    a->query_blocks = (a->shape->s + a->queries - 1) / a->queries;
}

void draft_attention_product(const struct attention *a, int64_t m, int64_t n, int64_t k,
                             struct draft_attention_operand left, const float *b, int64_t b_panel, int64_t b_row,
                             float *c, int64_t ldc, float alpha, bool accumulate)
{
    struct draft_block block = {.m = m,
                                .n = n,
                                .k = k,
                                .a = left.at,
                                .a_row = left.row,
                                .a_col = left.col,
                                .b = b,
                                .b_panel = b_panel,
                                .b_row = b_row,
                                .c = c,
                                .ldc = ldc,
                                .alpha = alpha,
                                .accumulate = accumulate};
    (a->pairs ? a->backend->kernels->block_pairs : a->backend->kernels->block)(&block);
}

void draft_attention_copy(const struct attention *a, int64_t count, const float *x, float *copy)
{
    a->backend->kernels->move_rows(count, a->shape->d, x, a->step, NULL, copy, a->row, false);
}

void draft_attention_pack(const struct attention *a, int64_t count, const float *x, float *rows, float *packed)
{
    const struct draft_kernels *kernels = a->backend->kernels;
    int64_t nr = kernels->nr, d = a->shape->d, elements = a->pairs ? draft_pairs_of(d) : d;
    for (int64_t j = 0; j < count; j += nr) {
        int64_t columns = draft_least(nr, count - j);
        if (a->pairs)
            kernels->pair_columns(columns, d, x + j * a->step, a->step, rows, elements);
        kernels->pack_panel(elements, columns, a->pairs ? rows : x + j * a->step, a->pairs ? elements : a->step, true,
                            packed + j * elements);
    }
}

/* A panel of queries on its way over the keys. */
struct panel {
    int64_t query, count; /* first query; how many, <= nr */
    int64_t columns;      /* lanes computed: one or two vectors */
    int64_t seen;         /* keys */
    float *q, *out;       /* [d][nr] each */
    float *maximum, *sum; /* [nr] each */
};

static int64_t panel_floats(const struct attention *a)
{
    return (2 * a->shape->d + 2) * a->backend->kernels->nr;
}

/* The keys [t][row] and values [t][row] of a head next to each other; in pairs [t][row] and [t / 2][row]. */
static int64_t copy_floats(const struct attention *a)
{
    return draft_round_up(a->shape->t * a->row, 16);
}

static int64_t forward_scratch(const struct attention *a)
{
    return 2 * copy_floats(a) + PANELS * panel_floats(a) + (KEYS + 1) * a->backend->kernels->nr;
}

static void copy_keys_and_values(const struct attention *a, int64_t count, int64_t at, float *k, float *v)
{
    const struct draft_kernels *kernels = a->backend->kernels;
    if (!a->pairs) {
        draft_attention_copy(a, count, a->k + at, k);
        draft_attention_copy(a, count, a->v + at, v);
        return;
    }
    kernels->pair_columns(count, a->shape->d, a->k + at, a->step, k, a->row);
    kernels->pair_rows(count, a->shape->d, a->v + at, a->step, v, a->shape->d, a->row);
}

static struct panel begin_panel(const struct attention *a, int64_t query, int64_t to, const float *q, float *scratch)
{
    const struct draft_kernels *kernels = a->backend->kernels;
    int64_t nr = kernels->nr, d = a->shape->d;
    struct panel p = {.query = query, .count = draft_least(nr, to - query)};
    p.columns = p.count > kernels->vector ? nr : kernels->vector;
    p.seen = draft_attention_keys_seen(a, query + p.count);
    p.q = scratch;
    p.out = p.q + d * nr;
    p.maximum = p.out + d * nr;
    p.sum = p.maximum + nr;
    draft_attention_pack(a, p.count, q + query * a->step, p.out, p.q);
    for (int64_t i = 0; i < nr; i++) {
        p.maximum[i] = -INFINITY;
        p.sum[i] = 0.0f;
    }
    return p;
}

/* Keys after the query: 2^-infinity is zero. */
static void hide_later_keys(const struct panel *p, int64_t key, int64_t count, int64_t nr, float *s)
{
    for (int64_t j = 0; j < count; j++)
        for (int64_t lane = 0; lane < draft_least(nr, key + j - p->query); lane++)
            s[j * nr + lane] = -INFINITY;
}

static void attend(const struct attention *a, const struct panel *p, int64_t key, const float *k, const float *v,
                   float *s)
{
    const struct draft_kernels *kernels = a->backend->kernels;
    int64_t nr = kernels->nr, d = a->shape->d, count = draft_least(KEYS, p->seen - key);
    float *factor = s + KEYS * nr;
    struct draft_attention_operand rows = {k + key * a->row, a->row, 1};
    struct draft_attention_operand columns = {v + (a->pairs ? key / 2 : key) * a->row, 1, a->row};
    draft_attention_product(a, count, p->columns, a->pairs ? draft_pairs_of(d) : d, rows, p->q, 0, nr, s, nr,
                            a->shape->scale * DRAFT_LOG2_E, false);
    if (a->shape->causal)
        hide_later_keys(p, key, count, nr, s);
    kernels->softmax_panel(count, p->columns, s, p->maximum, p->sum, factor);
    if (key > 0)
        kernels->scale_panel(d, p->columns, factor, p->out);
    if (a->pairs)
        kernels->pair_rows(count, p->columns, s, nr, s, p->columns, nr); /* in place: what is written has been read */
    draft_attention_product(a, d, p->columns, a->pairs ? draft_pairs_of(count) : count, columns, s, 0, nr, p->out, nr,
                            1.0f, key > 0);
}

static void end_panel(const struct attention *a, const struct panel *p, float *lse, float *result)
{
    for (int64_t i = 0; i < p->count; i++) {
        if (lse)
            lse[p->query + i] = p->maximum[i] + log2f(p->sum[i]);
        p->sum[i] = 1.0f / p->sum[i];
    }
    int64_t nr = a->backend->kernels->nr;
    a->backend->kernels->turn_panel(a->shape->d, p->count, p->out, nr, p->sum, result + p->query * a->step, a->step,
                                    false);
}

static void forward_task(void *context, int64_t task, int thread)
{
    const struct attention *a = context;
    const struct draft_attention_shape *s = a->shape;
    int64_t head = task / a->query_blocks, from = task % a->query_blocks * a->queries;
    int64_t to = draft_least(s->s, from + a->queries), nr = a->backend->kernels->nr;
    int64_t image = head / s->heads, column = head % s->heads * s->d, keys = draft_attention_keys_seen(a, to);
    int64_t q_base = image * s->s * a->step + column, k_base = image * s->t * a->step + column;
    float *k = draft_scratch_of(a->backend, thread), *v = k + copy_floats(a);
    float *panels = v + copy_floats(a), *scores = panels + PANELS * panel_floats(a);
    copy_keys_and_values(a, keys, k_base, k, v);
    while (from < to) {
        struct panel panel[PANELS];
        int count = 0;
        for (; count < PANELS && from < to; count++, from += nr)
            panel[count] = begin_panel(a, from, to, a->q + q_base, panels + count * panel_floats(a));
        for (int64_t key = 0; key < panel[count - 1].seen; key += KEYS)
            for (int i = 0; i < count; i++)
                if (key < panel[i].seen)
                    attend(a, &panel[i], key, k, v, scores);
        for (int i = 0; i < count; i++)
            end_panel(a, &panel[i], a->lse ? a->lse + head * s->s : NULL, a->result + q_base);
    }
}

bool draft_cpu_attention(struct draft_backend *backend, const struct draft_attention_shape *shape, const float *q,
                         const float *k, const float *v, float *out, float *logsumexp, struct draft_error *err)
{
    struct attention a = {.backend = backend,
                          .shape = shape,
                          .q = q,
                          .k = k,
                          .v = v,
                          .result = out,
                          .lse = logsumexp,
                          .pairs = draft_has_pairs(backend)};
    draft_attention_measure(&a);
    if (!draft_scratch_reserve(backend, 0, (size_t)forward_scratch(&a) * sizeof(float), err))
        return false;
    draft_attention_cut(&a, backend->kernels->nr);
    draft_parallel(backend, shape->n * shape->heads * a.query_blocks, forward_task, &a);
    return true;
}
