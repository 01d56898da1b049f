/*
 * Attention without the [s, t] matrix in memory (Dao et al. 2022): blocks of queries against blocks of keys, a running
 * maximum and sum per query, logsumexp kept for the backward pass, which makes the probabilities again.
 *
 * Per query row i: p_ij = exp(scale q_i k_j - lse_i), out_i = sum_j p_ij v_j,
 * ds_ij = p_ij (dout_i v_j - dout_i out_i), dq = scale ds k, dk = scale ds^T q, dv = p^T dout.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "backend/cpu/state.h"

struct attention {
    struct draft_backend *backend;
    const struct draft_attention_shape *shape;
    const float *q, *k, *v, *out, *dout;
    float *result, *lse;
    const struct draft_attention_gradients *gradients;
    int64_t step;                  /* from token to token: heads * d */
    int64_t keys, depth;           /* t and d rounded up to a panel */
    int64_t width;                 /* d rounded up to a vector: the columns worth computing */
    int64_t query_blocks, queries; /* tasks of a head, queries of a task */
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Columns [first, first + count) of the valid keys for each query row of a block. */
static void limits_of(const struct attention *a, int64_t query, int64_t rows, int64_t first, int64_t count,
                      int64_t *limit)
{
    for (int64_t i = 0; i < rows; i++) {
        int64_t valid = a->shape->causal ? least(count, query + i + 1 - first) : count;
        limit[i] = valid < 0 ? 0 : valid;
    }
}

static void product(const struct attention *a, int64_t m, int64_t n, int64_t k, const float *left, int64_t left_row,
                    int64_t left_col, const float *b, int64_t b_panel, float *c, int64_t ldc, float alpha,
                    bool accumulate)
{
    struct draft_block block = {.m = m,
                                .n = n,
                                .k = k,
                                .a = left,
                                .a_row = left_row,
                                .a_col = left_col,
                                .b = b,
                                .b_panel = b_panel,
                                .b_row = a->backend->kernels->nr,
                                .c = c,
                                .ldc = ldc,
                                .alpha = alpha,
                                .accumulate = accumulate};
    a->backend->kernels->block(&block);
}

/* Packs rows x [count, d] of one head as panels over d: [d panels][count][nr]. */
static void pack_rows(const struct attention *a, int64_t count, const float *x, float *packed)
{
    int64_t nr = a->backend->kernels->nr, d = a->shape->d;
    for (int64_t c = 0; c < d; c += nr)
        a->backend->kernels->pack_panel(count, least(nr, d - c), x + c, a->step, false, packed + c * count);
}

/* ... as panels over rows, transposed: [rows panels][d][nr]. */
static void pack_columns(const struct attention *a, int64_t count, const float *x, float *packed)
{
    int64_t nr = a->backend->kernels->nr, d = a->shape->d;
    for (int64_t j = 0; j < count; j += nr)
        a->backend->kernels->pack_panel(d, least(nr, count - j), x + j * a->step, a->step, true, packed + j * d);
}

/* Keys that a block of queries ending before `query_end` may see. */
static int64_t keys_seen(const struct attention *a, int64_t query_end)
{
    return a->shape->causal ? least(a->shape->t, query_end) : a->shape->t;
}

static int64_t forward_scratch(const struct attention *a)
{
    return a->keys * a->shape->d + a->shape->t * a->depth + DRAFT_QUERIES * (DRAFT_KEYS + a->depth);
}

static void forward_task(void *context, int64_t task, int thread)
{
    const struct attention *a = context;
    const struct draft_attention_shape *s = a->shape;
    const struct draft_kernels *kernels = a->backend->kernels;
    int64_t head = task / a->query_blocks, from = task % a->query_blocks * a->queries;
    int64_t to = least(s->s, from + a->queries), nr = kernels->nr, vector = kernels->vector, d = s->d;
    int64_t image = head / s->heads, column = head % s->heads * d;
    float *kt = draft_scratch_of(a->backend, thread);
    float *v = kt + a->keys * d, *scores = v + s->t * a->depth, *sum_out = scores + DRAFT_QUERIES * DRAFT_KEYS;
    pack_columns(a, keys_seen(a, to), a->k + image * s->t * a->step + column, kt);
    pack_rows(a, s->t, a->v + image * s->t * a->step + column, v);
    for (int64_t query = from; query < to; query += DRAFT_QUERIES) {
        int64_t rows = least(DRAFT_QUERIES, to - query), seen = keys_seen(a, query + rows);
        float maximum[DRAFT_QUERIES], sum[DRAFT_QUERIES], factor[DRAFT_QUERIES];
        int64_t limit[DRAFT_QUERIES];
        for (int64_t i = 0; i < rows; i++) {
            maximum[i] = -INFINITY;
            sum[i] = 0.0f;
        }
        const float *q = a->q + (image * s->s + query) * a->step + column;
        for (int64_t key = 0; key < seen; key += DRAFT_KEYS) {
            int64_t count = least(DRAFT_KEYS, seen - key);
            product(a, rows, draft_round_up(count, vector), d, q, a->step, 1, kt + key * d, d * nr, scores, DRAFT_KEYS,
                    s->scale, false);
            limits_of(a, query, rows, key, count, limit);
            kernels->softmax_rows(rows, count, DRAFT_KEYS, limit, scores, maximum, sum, factor);
            if (key > 0)
                kernels->scale_rows(rows, a->width, a->depth, factor, sum_out);
            product(a, rows, a->width, count, scores, DRAFT_KEYS, 1, v + key * nr, s->t * nr, sum_out, a->depth, 1.0f,
                    key > 0);
        }
        for (int64_t i = 0; i < rows; i++) {
            if (a->lse)
                a->lse[head * s->s + query + i] = maximum[i] + logf(sum[i]);
            factor[i] = 1.0f / sum[i];
        }
        kernels->move_rows(rows, d, sum_out, a->depth, factor, a->result + (image * s->s + query) * a->step + column,
                           a->step, false);
    }
}

static void measure(struct attention *a)
{
    const struct draft_attention_shape *s = a->shape;
    assert(s->d > 0 && s->heads > 0 && (!s->causal || s->s == s->t));
    int64_t nr = a->backend->kernels->nr;
    a->step = s->heads * s->d;
    a->keys = draft_round_up(s->t, nr);
    a->depth = draft_round_up(s->d, nr);
    a->width = draft_round_up(s->d, a->backend->kernels->vector);
}

bool draft_cpu_attention(struct draft_backend *backend, const struct draft_attention_shape *shape, const float *q,
                         const float *k, const float *v, float *out, float *logsumexp, struct draft_error *err)
{
    struct attention a = {.backend = backend, .shape = shape, .q = q, .k = k, .v = v, .result = out, .lse = logsumexp};
    measure(&a);
    if (!draft_scratch_reserve(backend, 0, (size_t)forward_scratch(&a) * sizeof(float), err))
        return false;
    int64_t heads = shape->n * shape->heads, blocks = (shape->s + DRAFT_QUERIES - 1) / DRAFT_QUERIES;
    int64_t blocks_of_task = blocks; /* packing keys and values is paid once a task */
    if (heads < 4 * backend->threads && backend->threads > 1)
        blocks_of_task = (blocks * heads + 4 * backend->threads - 1) / (4 * backend->threads);
    a.queries = (blocks_of_task > 0 ? blocks_of_task : 1) * DRAFT_QUERIES;
    a.query_blocks = (shape->s + a.queries - 1) / a.queries;
    draft_parallel(backend, heads * a.query_blocks, forward_task, &a);
    return true;
}

static int64_t backward_scratch(const struct attention *a)
{
    int64_t packed = 2 * a->keys * a->shape->d + a->shape->t * a->depth;
    int64_t sums = 2 * a->shape->t * a->depth;
    int64_t block = 2 * DRAFT_QUERIES * DRAFT_KEYS + 3 * DRAFT_QUERIES * a->depth;
    return packed + sums + block;
}

static void backward_task(void *context, int64_t head, int thread)
{
    const struct attention *a = context;
    const struct draft_attention_shape *s = a->shape;
    const struct draft_kernels *kernels = a->backend->kernels;
    const struct draft_attention_gradients *g = a->gradients;
    int64_t nr = kernels->nr, d = s->d, depth = a->depth;
    int64_t image = head / s->heads, column = head % s->heads * d;
    int64_t key_base = image * s->t * a->step + column;
    float *kt = draft_scratch_of(a->backend, thread), *vt = kt + a->keys * d, *k = vt + a->keys * d;
    float *dk = k + s->t * depth, *dv = dk + s->t * depth;
    float *p = dv + s->t * depth, *ds = p + DRAFT_QUERIES * DRAFT_KEYS;
    float *q_packed = ds + DRAFT_QUERIES * DRAFT_KEYS, *dout_packed = q_packed + DRAFT_QUERIES * depth;
    float *dq = dout_packed + DRAFT_QUERIES * depth;
    pack_columns(a, s->t, a->k + key_base, kt);
    pack_columns(a, s->t, a->v + key_base, vt);
    pack_rows(a, s->t, a->k + key_base, k);
    memset(dk, 0, (size_t)(2 * s->t * depth) * sizeof(float)); /* dk and dv */
    for (int64_t query = 0; query < s->s; query += DRAFT_QUERIES) {
        int64_t rows = least(DRAFT_QUERIES, s->s - query), seen = keys_seen(a, query + rows);
        int64_t at = (image * s->s + query) * a->step + column, limit[DRAFT_QUERIES];
        const float *q = a->q + at, *dout = a->dout + at, *lse = a->lse + head * s->s + query;
        float delta[DRAFT_QUERIES];
        kernels->row_dots(rows, d, dout, a->out + at, a->step, delta);
        pack_rows(a, rows, q, q_packed);
        pack_rows(a, rows, dout, dout_packed);
        for (int64_t key = 0; key < seen; key += DRAFT_KEYS) {
            int64_t count = least(DRAFT_KEYS, seen - key), wide = draft_round_up(count, kernels->vector);
            product(a, rows, wide, d, q, a->step, 1, kt + key * d, d * nr, p, DRAFT_KEYS, s->scale, false);
            product(a, rows, wide, d, dout, a->step, 1, vt + key * d, d * nr, ds, DRAFT_KEYS, 1.0f, false);
            limits_of(a, query, rows, key, count, limit);
            kernels->softmax_backward_rows(rows, count, DRAFT_KEYS, limit, p, ds, lse, delta);
            if (g->dv)
                product(a, count, a->width, rows, p, 1, DRAFT_KEYS, dout_packed, rows * nr, dv + key * depth, depth,
                        1.0f, true);
            if (g->dk)
                product(a, count, a->width, rows, ds, 1, DRAFT_KEYS, q_packed, rows * nr, dk + key * depth, depth,
                        s->scale, true);
            if (g->dq)
                product(a, rows, a->width, count, ds, DRAFT_KEYS, 1, k + key * nr, s->t * nr, dq, depth, s->scale,
                        key > 0);
        }
        if (g->dq)
            kernels->move_rows(rows, d, dq, depth, NULL, g->dq + at, a->step, g->accumulate_q);
    }
    if (g->dk)
        kernels->move_rows(s->t, d, dk, depth, NULL, g->dk + key_base, a->step, g->accumulate_k);
    if (g->dv)
        kernels->move_rows(s->t, d, dv, depth, NULL, g->dv + key_base, a->step, g->accumulate_v);
}

bool draft_cpu_attention_backward(struct draft_backend *backend, const struct draft_attention_shape *shape,
                                  const float *q, const float *k, const float *v, const float *out,
                                  const float *logsumexp, const float *dout,
                                  const struct draft_attention_gradients *gradients, struct draft_error *err)
{
    struct attention a = {.backend = backend,
                          .shape = shape,
                          .q = q,
                          .k = k,
                          .v = v,
                          .out = out,
                          .dout = dout,
                          .lse = (float *)logsumexp,
                          .gradients = gradients};
    measure(&a);
    if (!draft_scratch_reserve(backend, 0, (size_t)backward_scratch(&a) * sizeof(float), err))
        return false;
    draft_parallel(backend, shape->n * shape->heads, backward_task, &a);
    return true;
}
