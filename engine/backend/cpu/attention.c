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

/* Packing keys and values is paid once a task, so a task is a whole head unless that leaves threads idle. */
static void cut_queries(struct attention *a)
{
    int64_t heads = a->shape->n * a->shape->heads, want = 4 * a->backend->threads;
    int64_t blocks = (a->shape->s + DRAFT_QUERIES - 1) / DRAFT_QUERIES, of_task = blocks;
    if (heads < want && a->backend->threads > 1)
        of_task = (blocks * heads + want - 1) / want;
    a->queries = (of_task > 0 ? of_task : 1) * DRAFT_QUERIES;
    a->query_blocks = (a->shape->s + a->queries - 1) / a->queries;
}

bool draft_cpu_attention(struct draft_backend *backend, const struct draft_attention_shape *shape, const float *q,
                         const float *k, const float *v, float *out, float *logsumexp, struct draft_error *err)
{
    struct attention a = {.backend = backend, .shape = shape, .q = q, .k = k, .v = v, .result = out, .lse = logsumexp};
    measure(&a);
    if (!draft_scratch_reserve(backend, 0, (size_t)forward_scratch(&a) * sizeof(float), err))
        return false;
    cut_queries(&a);
    draft_parallel(backend, shape->n * shape->heads * a.query_blocks, forward_task, &a);
    return true;
}

/*
 * Backward: one task does a whole head, so that every block of probabilities is made once. With fewer heads than keep
 * the threads busy (a VAE's single head), the head is cut twice: into ranges of queries for dq, and into ranges of keys
 * for dk and dv. Sums run over the same blocks in the same order either way.
 */
struct backward_part {
    int64_t head;
    int64_t query, query_end, key, key_end; /* multiples of DRAFT_QUERIES and DRAFT_KEYS, or the ends */
    bool dq, dk, dv;
};

static int64_t backward_scratch(const struct attention *a)
{
    int64_t packed = 2 * a->keys * a->shape->d + a->shape->t * a->depth;
    int64_t sums = 2 * a->shape->t * a->depth;
    int64_t block = 2 * DRAFT_QUERIES * DRAFT_KEYS + 3 * DRAFT_QUERIES * a->depth;
    return packed + sums + block;
}

static void backward_part(const struct attention *a, const struct backward_part *part, float *scratch)
{
    const struct draft_attention_shape *s = a->shape;
    const struct draft_kernels *kernels = a->backend->kernels;
    const struct draft_attention_gradients *g = a->gradients;
    int64_t nr = kernels->nr, d = s->d, depth = a->depth, width = a->width, keys = part->key_end - part->key;
    int64_t image = part->head / s->heads, column = part->head % s->heads * d;
    int64_t key_base = (image * s->t + part->key) * a->step + column;
    float *kt = scratch, *vt = kt + a->keys * d, *k = vt + a->keys * d;
    float *dk = k + s->t * depth, *dv = dk + s->t * depth;
    float *p = dv + s->t * depth, *ds = p + DRAFT_QUERIES * DRAFT_KEYS;
    float *q_packed = ds + DRAFT_QUERIES * DRAFT_KEYS, *dout_packed = q_packed + DRAFT_QUERIES * depth;
    float *dq = dout_packed + DRAFT_QUERIES * depth;
    pack_columns(a, keys, a->k + key_base, kt);
    pack_columns(a, keys, a->v + key_base, vt);
    if (part->dq)
        pack_rows(a, keys, a->k + key_base, k);
    memset(dk, 0, (size_t)(keys * depth) * sizeof(float));
    memset(dv, 0, (size_t)(keys * depth) * sizeof(float));
    for (int64_t query = part->query; query < part->query_end; query += DRAFT_QUERIES) {
        int64_t rows = least(DRAFT_QUERIES, part->query_end - query);
        int64_t seen = least(part->key_end, keys_seen(a, query + rows)) - part->key;
        int64_t at = (image * s->s + query) * a->step + column, limit[DRAFT_QUERIES];
        const float *q = a->q + at, *dout = a->dout + at, *lse = a->lse + part->head * s->s + query;
        float delta[DRAFT_QUERIES];
        if (seen <= 0)
            continue;
        kernels->row_dots(rows, d, dout, a->out + at, a->step, delta);
        if (part->dk)
            pack_rows(a, rows, q, q_packed);
        if (part->dv)
            pack_rows(a, rows, dout, dout_packed);
        for (int64_t key = 0; key < seen; key += DRAFT_KEYS) {
            int64_t count = least(DRAFT_KEYS, seen - key), wide = draft_round_up(count, kernels->vector);
            product(a, rows, wide, d, q, a->step, 1, kt + key * d, d * nr, p, DRAFT_KEYS, s->scale, false);
            product(a, rows, wide, d, dout, a->step, 1, vt + key * d, d * nr, ds, DRAFT_KEYS, 1.0f, false);
            limits_of(a, query, rows, part->key + key, count, limit);
            kernels->softmax_backward_rows(rows, count, DRAFT_KEYS, limit, p, ds, lse, delta);
            if (part->dv)
                product(a, count, width, rows, p, 1, DRAFT_KEYS, dout_packed, rows * nr, dv + key * depth, depth, 1.0f,
                        true);
            if (part->dk)
                product(a, count, width, rows, ds, 1, DRAFT_KEYS, q_packed, rows * nr, dk + key * depth, depth,
                        s->scale, true);
            if (part->dq)
                product(a, rows, width, count, ds, DRAFT_KEYS, 1, k + key * nr, keys * nr, dq, depth, s->scale,
                        key > 0);
        }
        if (part->dq)
            kernels->move_rows(rows, d, dq, depth, NULL, g->dq + at, a->step, g->accumulate_q);
    }
    if (part->dk)
        kernels->move_rows(keys, d, dk, depth, NULL, g->dk + key_base, a->step, g->accumulate_k);
    if (part->dv)
        kernels->move_rows(keys, d, dv, depth, NULL, g->dv + key_base, a->step, g->accumulate_v);
}

static void head_task(void *context, int64_t head, int thread)
{
    const struct attention *a = context;
    struct backward_part part = {.head = head,
                                 .query_end = a->shape->s,
                                 .key_end = a->shape->t,
                                 .dq = a->gradients->dq,
                                 .dk = a->gradients->dk,
                                 .dv = a->gradients->dv};
    backward_part(a, &part, draft_scratch_of(a->backend, thread));
}

static void queries_task(void *context, int64_t task, int thread)
{
    const struct attention *a = context;
    int64_t query = task % a->query_blocks * a->queries;
    struct backward_part part = {.head = task / a->query_blocks,
                                 .query = query,
                                 .query_end = least(a->shape->s, query + a->queries),
                                 .key_end = a->shape->t,
                                 .dq = true};
    backward_part(a, &part, draft_scratch_of(a->backend, thread));
}

static void keys_task(void *context, int64_t task, int thread)
{
    const struct attention *a = context;
    int64_t blocks = (a->shape->t + DRAFT_KEYS - 1) / DRAFT_KEYS, key = task % blocks * DRAFT_KEYS;
    struct backward_part part = {.head = task / blocks,
                                 .query_end = a->shape->s,
                                 .key = key,
                                 .key_end = least(a->shape->t, key + DRAFT_KEYS),
                                 .dk = a->gradients->dk,
                                 .dv = a->gradients->dv};
    backward_part(a, &part, draft_scratch_of(a->backend, thread));
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
    int64_t heads = shape->n * shape->heads, key_blocks = (shape->t + DRAFT_KEYS - 1) / DRAFT_KEYS;
    if (heads >= 2 * backend->threads || heads % backend->threads == 0 || key_blocks == 1) {
        draft_parallel(backend, heads, head_task, &a);
        return true;
    }
    cut_queries(&a);
    if (gradients->dq)
        draft_parallel(backend, heads * a.query_blocks, queries_task, &a);
    if (gradients->dk || gradients->dv)
        draft_parallel(backend, heads * key_blocks, keys_task, &a);
    return true;
}
