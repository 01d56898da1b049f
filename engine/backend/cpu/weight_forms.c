/* How forms are made: a weight's rows, from memory or its file, handed out piece by piece, and the forms of matrices.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "backend/cpu/state.h"
#include "tensor/weight_source.h"

struct pieces {
    struct draft_backend *backend;
    const struct draft_tensor *w;
    int64_t rows, row; /* of a piece; numbers in one */
    draft_take_rows take;
    void *context;
    atomic_bool failed;
    pthread_mutex_t mutex; /* of the first error */
    struct draft_error error;
};

static void fail(struct pieces *p, const struct draft_error *error)
{
    pthread_mutex_lock(&p->mutex);
    if (!atomic_exchange(&p->failed, true))
        p->error = *error;
    pthread_mutex_unlock(&p->mutex);
}

static void piece_task(void *context, int64_t task, int thread)
{
    struct pieces *p = context;
    int64_t first = task * p->rows, left = p->w->dim[0] - first, count = left < p->rows ? left : p->rows;
    const float *values = p->w->data ? draft_f32(p->w) + first * p->row : draft_scratch_of(p->backend, thread);
    struct draft_error error = {0};
    if (atomic_load(&p->failed))
        return;
    if (!p->w->data && !draft_weight_rows(p->w, first, count, draft_scratch_of(p->backend, thread), &error))
        fail(p, &error);
    else
        p->take(p->context, first, count, values);
}

bool draft_weight_pieces(struct draft_backend *backend, const struct draft_tensor *w, int64_t rows,
                         draft_take_rows take, void *context, struct draft_error *err)
{
    enum { WORTH_SHARING = 1 << 16 };
    int64_t row = draft_tensor_count(w) / w->dim[0], tasks = (w->dim[0] + rows - 1) / rows;
    if (!w->data && !draft_scratch_reserve(backend, 0, (size_t)(rows * row) * sizeof(float), err))
        return false;
    struct pieces pieces = {.backend = backend,
                            .w = w,
                            .rows = rows,
                            .row = row,
                            .take = take,
                            .context = context,
                            .mutex = PTHREAD_MUTEX_INITIALIZER};
    if (draft_tensor_count(w) >= WORTH_SHARING)
        draft_parallel(backend, tasks, piece_task, &pieces);
    else
        for (int64_t task = 0; task < tasks; task++)
            piece_task(&pieces, task, 0);
    return !atomic_load(&pieces.failed) || draft_fail(err, pieces.error.code, "%s", pieces.error.message);
}

/* --- The forms of a matrix [n, k] --------------------------------------------------------------------------------- */

struct matrix {
    const struct draft_kernels *kernels;
    int64_t n, k;
    float *form;
};

static struct matrix matrix_of(const struct draft_backend *backend, const struct draft_tensor *w, void *form)
{
    return (struct matrix){backend->kernels, w->dim[0], draft_tensor_count(w) / w->dim[0], form};
}

static void copy_rows(void *context, int64_t first, int64_t count, const float *values)
{
    const struct matrix *m = context;
    memcpy(m->form + first * m->k, values, (size_t)(count * m->k) * sizeof *values);
}

/* The rows are one panel of W^T. */
static void pack_forward(void *context, int64_t first, int64_t count, const float *values)
{
    const struct matrix *m = context;
    m->kernels->pack_panel(m->k, count, values, m->k, true, m->form + first * m->k);
}

struct merged_matrix {
    struct matrix matrix;
    const struct draft_merge *merge;
};

/* The same of W + scale up down: the second product is added to the panel, [k][nr] = down^T up^T. */
static void pack_merged(void *context, int64_t first, int64_t count, const float *values)
{
    enum { MOST_COLUMNS = 32, DEPTH = 64 };
    struct merged_matrix *merged = context;
    const struct draft_merge *merge = merged->merge;
    const struct matrix *m = &merged->matrix;
    int64_t nr = m->kernels->nr;
    float up[MOST_COLUMNS * DEPTH];
    pack_forward(&merged->matrix, first, count, values);
    for (int64_t r = 0; r < merge->r; r += DEPTH) {
        int64_t some = merge->r - r < DEPTH ? merge->r - r : DEPTH;
        m->kernels->pack_panel(some, count, merge->up + first * merge->r + r, merge->r, true, up);
        m->kernels->block(&(struct draft_block){.m = m->k,
                                                .n = nr,
                                                .k = some,
                                                .a = merge->down + r * m->k,
                                                .a_row = 1,
                                                .a_col = m->k,
                                                .b = up,
                                                .b_panel = some * nr,
                                                .b_row = nr,
                                                .c = m->form + first * m->k,
                                                .ldc = nr,
                                                .alpha = merge->scale,
                                                .accumulate = true});
    }
}

/* Each panel of W gets its columns of the rows. */
static void pack_backward(void *context, int64_t first, int64_t count, const float *values)
{
    const struct matrix *m = context;
    int64_t nr = m->kernels->nr;
    for (int64_t column = 0; column < m->k; column += nr)
        m->kernels->pack_panel(count, m->k - column < nr ? m->k - column : nr, values + column, m->k, false,
                               m->form + column * m->n + first * nr);
}

/* The same two, rounded. Panels are even in rows, so no pair is cut. */
static void pack_forward_pairs(void *context, int64_t first, int64_t count, const float *values)
{
    enum { MOST_COLUMNS = 32, DEPTH = 64 };
    const struct matrix *m = context;
    float pairs[MOST_COLUMNS * DEPTH];
    int64_t nr = m->kernels->nr, depth = draft_pairs_of(m->k);
    for (int64_t p = 0; p < depth; p += DEPTH) {
        int64_t some = depth - p < DEPTH ? depth - p : DEPTH, numbers = m->k - 2 * p;
        m->kernels->pair_columns(count, numbers < 2 * DEPTH ? numbers : 2 * DEPTH, values + 2 * p, m->k, pairs, DEPTH);
        m->kernels->pack_panel(some, count, pairs, DEPTH, true, m->form + first * depth + p * nr);
    }
}

static void pack_backward_pairs(void *context, int64_t first, int64_t count, const float *values)
{
    const struct matrix *m = context;
    int64_t nr = m->kernels->nr, depth = draft_pairs_of(m->n);
    for (int64_t column = 0; column < m->k; column += nr)
        m->kernels->pair_rows(count, m->k - column < nr ? m->k - column : nr, values + column, m->k,
                              m->form + column * depth + first / 2 * nr, nr, nr);
}

#define MAKER(name, rows, take)                                                                                        \
    static bool name(struct draft_backend *backend, const struct draft_tensor *w, const void *context, void *form,     \
                     struct draft_error *err)                                                                          \
    {                                                                                                                  \
        (void)context;                                                                                                 \
        struct matrix m = matrix_of(backend, w, form);                                                                 \
        return draft_weight_pieces(backend, w, rows, take, &m, err);                                                   \
    }
MAKER(make_rows, 8, copy_rows)
MAKER(make_forward, backend->kernels->nr, pack_forward)
MAKER(make_backward, backend->kernels->nr, pack_backward)
MAKER(make_forward_pairs, backend->kernels->nr, pack_forward_pairs)
MAKER(make_backward_pairs, backend->kernels->nr, pack_backward_pairs)

static bool make_merged(struct draft_backend *backend, const struct draft_tensor *w, const void *context, void *form,
                        struct draft_error *err)
{
    struct merged_matrix merged = {matrix_of(backend, w, form), context};
    return draft_weight_pieces(backend, w, backend->kernels->nr, pack_merged, &merged, err);
}

struct draft_recipe draft_rows_recipe(const struct draft_tensor *w)
{
    return (struct draft_recipe){DRAFT_FORM_ROWS, (size_t)draft_tensor_count(w) * sizeof(float), make_rows, NULL, 0};
}

struct draft_recipe draft_forward_recipe(const struct draft_backend *backend, const struct draft_tensor *w)
{
    int64_t n = w->dim[0], k = draft_tensor_count(w) / n;
    return (struct draft_recipe){DRAFT_FORM_FORWARD, (size_t)draft_packed_size(backend, k, n) * sizeof(float),
                                 make_forward, NULL, 0};
}

struct draft_recipe draft_merged_recipe(const struct draft_backend *backend, const struct draft_tensor *w,
                                        const struct draft_merge *merge)
{
    struct draft_recipe recipe = draft_forward_recipe(backend, w);
    recipe.make = make_merged;
    recipe.context = merge;
    recipe.run = merge->run;
    return recipe;
}

struct draft_recipe draft_backward_recipe(const struct draft_backend *backend, const struct draft_tensor *w)
{
    int64_t n = w->dim[0], k = draft_tensor_count(w) / n;
    return (struct draft_recipe){DRAFT_FORM_BACKWARD, (size_t)draft_packed_size(backend, n, k) * sizeof(float),
                                 make_backward, NULL, 0};
}

struct draft_recipe draft_forward_product_recipe(const struct draft_backend *backend, const struct draft_tensor *w)
{
    int64_t n = w->dim[0], k = draft_tensor_count(w) / n;
    if (!draft_has_pairs(backend))
        return draft_forward_recipe(backend, w);
    return (struct draft_recipe){DRAFT_FORM_FORWARD_PAIRS,
                                 (size_t)draft_packed_size(backend, draft_pairs_of(k), n) * sizeof(float),
                                 make_forward_pairs, NULL, 0};
}

struct draft_recipe draft_backward_product_recipe(const struct draft_backend *backend, const struct draft_tensor *w)
{
    int64_t n = w->dim[0], k = draft_tensor_count(w) / n;
    if (!draft_has_pairs(backend))
        return draft_backward_recipe(backend, w);
    return (struct draft_recipe){DRAFT_FORM_BACKWARD_PAIRS,
                                 (size_t)draft_packed_size(backend, draft_pairs_of(n), k) * sizeof(float),
                                 make_backward_pairs, NULL, 0};
}
