/*
 * Attention backward: the probabilities are made again from the logarithms of the sums. Per query row i:
 *
 *   p_ij = exp(scale q_i k_j - lse_i), ds_ij = p_ij (dout_i v_j - dout_i out_i),
 *   dq = scale ds k, dk = scale ds^T q, dv = p^T dout.
 *
 * Here a key is a lane: P and dS are blocks [queries][keys], and dK^T and dV^T take them as the right matrix of their
 * products as they are, so d is padded to vectors for dq alone. Where the backend multiplies bf16, all five products do
 * (dk and dv are still added up over the blocks in float).
 *
 * One task does a whole head, so that every block of probabilities is made once. With fewer heads than keep the threads
 * busy (a VAE's single head), the head is cut twice: into ranges of queries for dq, and into ranges of keys for dk and
 * dv. Sums run over the same blocks in the same order either way.
 */
#include "backend/cpu/attention.h"

#include <string.h>

enum {
    QUERIES = 96,    /* a block, at most */
    KEYS = 256,      /* a block; a multiple of every nr */
    STEP = KEYS + 16 /* floats from row to row of a block: rows of a tile must not share cache sets */
};

struct backward_part {
    int64_t head;
    int64_t query, query_end, key, key_end; /* multiples of QUERIES and KEYS, or the ends */
    bool dq, dk, dv;
};

/* One block of queries against one block of keys. */
struct block_memory {
    float *q, *dout;                 /* [queries][row], by rows */
    float *q_columns, *dout_columns; /* by columns: the same memory, or in pairs of queries */
    float *p, *ds;                   /* [queries][STEP] */
    float *pairs;                    /* P or dS in pairs of queries */
    float *dq;                       /* [queries][depth] */
};

/* Queries of a block. Short heads against many keys take half: probabilities, keys and gradients then share the second
 * cache. With longer heads the keys do not fit anyway and are read once per block; products of pairs gain nothing. */
static int64_t queries_of(const struct attention *a)
{
    return !a->pairs && a->shape->d <= 64 && a->shape->t > KEYS ? QUERIES / 2 : QUERIES;
}

static int64_t rows_floats(const struct attention *a)
{
    return draft_round_up(QUERIES * a->row, 16);
}

static int64_t backward_scratch(const struct attention *a)
{
    const struct draft_attention_shape *s = a->shape;
    int64_t d = s->d, keys = draft_round_up(s->t, KEYS), depth = draft_round_up(d, a->backend->kernels->nr);
    return 4 * keys * d + draft_round_up((s->t + 1) * depth, 16) + 3 * QUERIES * STEP + 4 * rows_floats(a) +
           QUERIES * depth;
}

static struct block_memory block_memory(const struct attention *a, float *scratch)
{
    struct block_memory m = {.p = scratch, .ds = scratch + QUERIES * STEP, .pairs = scratch + 2 * QUERIES * STEP};
    m.q = m.pairs + QUERIES * STEP;
    m.dout = m.q + rows_floats(a);
    m.q_columns = a->pairs ? m.dout + rows_floats(a) : m.q;
    m.dout_columns = a->pairs ? m.q_columns + rows_floats(a) : m.dout;
    m.dq = m.dout + 3 * rows_floats(a);
    return m;
}

/* The rows of q or dout that begin at x, by rows and by columns. */
static void load_rows(const struct attention *a, int64_t rows, const float *x, float *by_row, float *by_column)
{
    const struct draft_kernels *kernels = a->backend->kernels;
    if (!a->pairs) {
        draft_attention_copy(a, rows, x, by_row);
        return;
    }
    kernels->pair_columns(rows, a->shape->d, x, a->step, by_row, a->row);
    kernels->pair_rows(rows, a->shape->d, x, a->step, by_column, a->shape->d, a->row);
}

/* Keys as the right matrix of dq, [d panels][keys][nr]. */
static void pack_keys(const struct attention *a, int64_t keys, const float *from, float *k)
{
    const struct draft_kernels *kernels = a->backend->kernels;
    int64_t nr = kernels->nr, d = a->shape->d, elements = a->pairs ? draft_pairs_of(keys) : keys;
    for (int64_t c = 0; c < d; c += nr) {
        int64_t columns = draft_least(nr, d - c);
        if (a->pairs)
            kernels->pair_rows(keys, columns, from + c, a->step, k + c * elements, nr, nr);
        else
            kernels->pack_panel(keys, columns, from + c, a->step, false, k + c * elements);
    }
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

/* to^T[d][keys] += alpha left^T right, right being P or dS. */
static void add_turned(const struct attention *a, int64_t rows, int64_t wide, const float *left, const float *right,
                       float *pairs, float alpha, float *to)
{
    const struct draft_kernels *kernels = a->backend->kernels;
    if (a->pairs) {
        kernels->pair_rows(rows, wide, right, STEP, pairs, wide, STEP);
        right = pairs;
    }
    draft_attention_product(a, a->shape->d, wide, a->pairs ? draft_pairs_of(rows) : rows,
                            (struct draft_attention_operand){left, 1, a->row}, right, kernels->nr, STEP, to, KEYS,
                            alpha, true);
}

static void backward_part(const struct attention *a, const struct backward_part *part, float *scratch)
{
    const struct draft_attention_shape *s = a->shape;
    const struct draft_kernels *kernels = a->backend->kernels;
    const struct draft_attention_gradients *g = a->gradients;
    int64_t nr = kernels->nr, d = s->d, depth = draft_round_up(d, nr), width = draft_round_up(d, kernels->vector);
    int64_t d_elements = a->pairs ? draft_pairs_of(d) : d;
    int64_t keys = part->key_end - part->key, all = draft_round_up(s->t, KEYS);
    int64_t image = part->head / s->heads, column = part->head % s->heads * d;
    int64_t key_base = (image * s->t + part->key) * a->step + column;
    float *kt = scratch, *vt = kt + all * d, *dk = vt + all * d, *dv = dk + all * d, *k = dv + all * d;
    struct block_memory m = block_memory(a, k + draft_round_up((s->t + 1) * depth, 16));
    draft_attention_pack(a, keys, a->k + key_base, dk, kt); /* dk: not in use yet */
    draft_attention_pack(a, keys, a->v + key_base, dk, vt);
    if (part->dq)
        pack_keys(a, keys, a->k + key_base, k);
    memset(dk, 0, (size_t)(2 * all * d) * sizeof(float));
    int64_t queries = queries_of(a);
    for (int64_t query = part->query; query < part->query_end; query += queries) {
        int64_t rows = draft_least(queries, part->query_end - query), limit[QUERIES];
        int64_t seen = draft_least(part->key_end, draft_attention_keys_seen(a, query + rows)) - part->key;
        int64_t at = (image * s->s + query) * a->step + column;
        const float *lse = a->lse + part->head * s->s + query;
        float delta[QUERIES];
        if (seen <= 0)
            continue;
        kernels->row_dots(rows, d, a->dout + at, a->out + at, a->step, delta);
        load_rows(a, rows, a->q + at, m.q, m.q_columns);
        load_rows(a, rows, a->dout + at, m.dout, m.dout_columns);
        struct draft_attention_operand q = {m.q, a->row, 1}, dout = {m.dout, a->row, 1}, ds = {m.ds, STEP, 1};
        for (int64_t key = 0; key < seen; key += KEYS) {
            int64_t count = draft_least(KEYS, seen - key), wide = draft_round_up(count, kernels->vector);
            draft_attention_product(a, rows, wide, d_elements, q, kt + key * d_elements, d_elements * nr, nr, m.p, STEP,
                                    s->scale * DRAFT_LOG2_E, false);
            draft_attention_product(a, rows, wide, d_elements, dout, vt + key * d_elements, d_elements * nr, nr, m.ds,
                                    STEP, 1.0f, false);
            limits_of(a, query, rows, part->key + key, count, limit);
            kernels->softmax_backward_rows(rows, wide, STEP, limit, m.p, m.ds, lse, delta);
            if (part->dv)
                add_turned(a, rows, wide, m.dout_columns, m.p, m.pairs, 1.0f, dv + key * d);
            if (part->dk)
                add_turned(a, rows, wide, m.q_columns, m.ds, m.pairs, s->scale, dk + key * d);
            if (!part->dq)
                continue;
            if (a->pairs)
                kernels->pair_columns(rows, count, m.ds, STEP, m.ds,
                                      STEP); /* in place: what is written has been read */
            int64_t k_elements = a->pairs ? draft_pairs_of(keys) : keys;
            draft_attention_product(a, rows, width, a->pairs ? draft_pairs_of(count) : count, ds,
                                    k + (a->pairs ? key / 2 : key) * nr, k_elements * nr, nr, m.dq, depth, s->scale,
                                    key > 0);
        }
        if (part->dq)
            kernels->move_rows(rows, d, m.dq, depth, NULL, g->dq + at, a->step, g->accumulate_q);
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
                          .gradients = gradients,
                          .pairs = draft_has_pairs(backend)};
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
