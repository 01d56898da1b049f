/* Inside of attention: what its forward and backward drivers share. */
#ifndef DRAFT_BACKEND_CPU_ATTENTION_H
#define DRAFT_BACKEND_CPU_ATTENTION_H

#include "backend/cpu/state.h"

struct attention {
    struct draft_backend *backend;
    const struct draft_attention_shape *shape;
    const float *q, *k, *v, *out, *dout;
    float *result, *lse;
    const struct draft_attention_gradients *gradients;
    int64_t step; /* from token to token: heads * d */
    int64_t row;  /* from token to token of a head's copy: d, and more where rows would share cache sets */
    bool pairs;   /* the products are of bf16 */
    int64_t query_blocks, queries; /* tasks of a head, queries of a task */
};

static const float DRAFT_LOG2_E = 1.44269504f;

/* Fills `row` in. */
void draft_attention_measure(struct attention *a);

/* Cuts the queries of a head, into multiples of `unit`, so that heads and pieces keep all threads busy. What is paid
 * once a task (copies of keys and values) makes a task a whole head where there are enough of them. */
void draft_attention_cut(struct attention *a, int64_t unit);

/* c[m, n] = alpha left b (+ c), both of floats or both of pairs, k counting elements; b in panels, or a row-major
 * matrix (b_panel = nr, b_row its step). */
struct draft_attention_operand {
    const float *at;
    int64_t row, col; /* steps */
};
void draft_attention_product(const struct attention *a, int64_t m, int64_t n, int64_t k,
                             struct draft_attention_operand left, const float *b, int64_t b_panel, int64_t b_row,
                             float *c, int64_t ldc, float alpha, bool accumulate);

/* Copies rows [count, d] of one head next to each other, `row` apart. */
void draft_attention_copy(const struct attention *a, int64_t count, const float *x, float *copy);

/* Packs rows x [count, d] of one head as panels over rows, transposed: [row panels][d][nr], in pairs [..][d / 2][nr]
 * by way of `rows`, which has room for nr of them. */
void draft_attention_pack(const struct attention *a, int64_t count, const float *x, float *rows, float *packed);

/* Keys that queries ending before `query_end` may see. */
static inline int64_t draft_attention_keys_seen(const struct attention *a, int64_t query_end)
{
    return a->shape->causal && query_end < a->shape->t ? query_end : a->shape->t;
}

static inline int64_t draft_least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

#endif
