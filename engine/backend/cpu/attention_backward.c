/*
 * Attention backward: the probabilities are made again from the logarithms of the sums. Per query row i:
 *
 *   p_ij = exp(scale q_i k_j - lse_i), ds_ij = p_ij (dout_i v_j - dout_i out_i),
 *   dq = scale ds k, dk = scale ds^T q, dv = p^T dout.
 *
 * Here a key is a lane: P and dS are blocks [queries][keys], and dK^T and dV^T take them as the right matrix of their
 * products as they are, so d is padded to vectors for dq alone.
 *
 * One task does a whole head, so that every block of probabilities is made once. With fewer heads than keep the threads
 * busy (a VAE's single head), the head is cut twice: into ranges of queries for dq, and into ranges of keys for dk and
 * dv. Sums run over the same blocks in the same order either way.
 */
#include "backend/cpu/attention.h"

#include <string.h>

enum {
    QUERIES = 96,    /* a block */
    KEYS = 256,      /* a block; a multiple of every nr */
    STEP = KEYS + 16 /* floats from row to row of a block: rows of a tile must not share cache sets */
};

struct backward_part {
    int64_t head;
    int64_t query, query_end, key, key_end; /* multiples of QUERIES and KEYS, or the ends */
    bool dq, dk, dv;
};

static int64_t backward_scratch(const struct attention *a)
{
    const struct draft_attention_shape *s = a->shape;
    int64_t nr = a->backend->kernels->nr, d = s->d, keys = draft_round_up(s->t, KEYS), depth = draft_round_up(d, nr);
    return 4 * keys * d + draft_round_up(s->t * depth, 16) + 2 * QUERIES * STEP +
           2 * draft_round_up(QUERIES * a->row, 16) + QUERIES * depth;
}

/* The keys of a query block's rows that may be seen: columns [0, limit) of a block that begins at `key`. */
static void limits_of(const struct attention *a, int64_t query, int64_t rows, int64_t key, int64_t count,
                      int64_t *limit)
{
    for (int64_t i = 0; i < rows; i++) {
        int64_t valid = a->shape->causal ? draft_least(count, query + i + 1 - key) : count;
        limit[i] = valid < 0 ? 0 : valid;
    }
}

/* Adds up blocks [keys / KEYS][d][KEYS] into rows of dk or dv. */
static void write_turned(const struct attention *a, int64_t keys, const float *turned, float *to, bool accumulate)
{
    for (int64_t key = 0; key < keys; key += KEYS)
        a->backend->kernels->turn_panel(a->shape->d, draft_least(KEYS, keys - key), turned + key * a->shape->d, KEYS,
                                        NULL, to + key * a->step, a->step, accumulate);
}

static void backward_part(const struct attention *a, const struct backward_part *part, float *scratch)
{
    const struct draft_attention_shape *s = a->shape;
    const struct draft_kernels *kernels = a->backend->kernels;
    const struct draft_attention_gradients *g = a->gradients;
    int64_t nr = kernels->nr, d = s->d, depth = draft_round_up(d, nr), width = draft_round_up(d, kernels->vector);
    int64_t keys = part->key_end - part->key, all = draft_round_up(s->t, KEYS);
    int64_t image = part->head / s->heads, column = part->head % s->heads * d;
    int64_t key_base = (image * s->t + part->key) * a->step + column;
    float *kt = scratch, *vt = kt + all * d, *dk = vt + all * d, *dv = dk + all * d, *k = dv + all * d;
    float *p = k + draft_round_up(s->t * depth, 16), *ds = p + QUERIES * STEP, *q = ds + QUERIES * STEP;
    float *dout = q + draft_round_up(QUERIES * a->row, 16), *dq = dout + draft_round_up(QUERIES * a->row, 16);
    draft_attention_pack(a, keys, a->k + key_base, kt);
    draft_attention_pack(a, keys, a->v + key_base, vt);
    for (int64_t c = 0; c < d && part->dq; c += nr)
        kernels->pack_panel(keys, draft_least(nr, d - c), a->k + key_base + c, a->step, false, k + c * keys);
    memset(dk, 0, (size_t)(2 * all * d) * sizeof(float));
    for (int64_t query = part->query; query < part->query_end; query += QUERIES) {
        int64_t rows = draft_least(QUERIES, part->query_end - query), limit[QUERIES];
        int64_t seen = draft_least(part->key_end, draft_attention_keys_seen(a, query + rows)) - part->key;
        int64_t at = (image * s->s + query) * a->step + column;
        const float *lse = a->lse + part->head * s->s + query;
        float delta[QUERIES];
        if (seen <= 0)
            continue;
        kernels->row_dots(rows, d, a->dout + at, a->out + at, a->step, delta);
        draft_attention_copy(a, rows, a->q + at, q);
        draft_attention_copy(a, rows, a->dout + at, dout);
        struct draft_attention_operand q_rows = {q, a->row, 1}, q_columns = {q, 1, a->row};
        struct draft_attention_operand dout_rows = {dout, a->row, 1}, dout_columns = {dout, 1, a->row};
        for (int64_t key = 0; key < seen; key += KEYS) {
            int64_t count = draft_least(KEYS, seen - key), wide = draft_round_up(count, kernels->vector);
            draft_attention_product(a, rows, wide, d, q_rows, kt + key * d, d * nr, nr, p, STEP,
                                    s->scale * DRAFT_LOG2_E, false);
            draft_attention_product(a, rows, wide, d, dout_rows, vt + key * d, d * nr, nr, ds, STEP, 1.0f, false);
            limits_of(a, query, rows, part->key + key, count, limit);
            kernels->softmax_backward_rows(rows, wide, STEP, limit, p, ds, lse, delta);
            if (part->dv)
                draft_attention_product(a, d, wide, rows, dout_columns, p, nr, STEP, dv + key * d, KEYS, 1.0f, true);
            if (part->dk)
                draft_attention_product(a, d, wide, rows, q_columns, ds, nr, STEP, dk + key * d, KEYS, s->scale, true);
            if (part->dq)
                draft_attention_product(a, rows, width, count, (struct draft_attention_operand){ds, STEP, 1},
                                        k + key * nr, keys * nr, nr, dq, depth, s->scale, key > 0);
        }
        if (part->dq)
            kernels->move_rows(rows, d, dq, depth, NULL, g->dq + at, a->step, g->accumulate_q);
    }
    if (part->dk)
        write_turned(a, keys, dk, g->dk + key_base, g->accumulate_k);
    if (part->dv)
        write_turned(a, keys, dv, g->dv + key_base, g->accumulate_v);
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
                                 .query_end = draft_least(a->shape->s, query + a->queries),
                                 .key_end = a->shape->t,
                                 .dq = true};
    backward_part(a, &part, draft_scratch_of(a->backend, thread));
}

static void keys_task(void *context, int64_t task, int thread)
{
    const struct attention *a = context;
    int64_t blocks = (a->shape->t + KEYS - 1) / KEYS, key = task % blocks * KEYS;
    struct backward_part part = {.head = task / blocks,
                                 .query_end = a->shape->s,
                                 .key = key,
                                 .key_end = draft_least(a->shape->t, key + KEYS),
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
    draft_attention_measure(&a);
    if (!draft_scratch_reserve(backend, 0, (size_t)backward_scratch(&a) * sizeof(float), err))
        return false;
    int64_t heads = shape->n * shape->heads, key_blocks = (shape->t + KEYS - 1) / KEYS;
    if (heads >= 2 * backend->threads || heads % backend->threads == 0 || key_blocks == 1) {
        draft_parallel(backend, heads, head_task, &a);
        return true;
    }
    draft_attention_cut(&a, QUERIES);
    if (gradients->dq)
        draft_parallel(backend, heads * a.query_blocks, queries_task, &a);
    if (gradients->dk || gradients->dv)
        draft_parallel(backend, heads * key_blocks, keys_task, &a);
    return true;
}
