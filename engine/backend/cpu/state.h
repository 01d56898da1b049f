/* Inside of the CPU backend, for the drivers in this folder. */
#ifndef DRAFT_BACKEND_CPU_STATE_H
#define DRAFT_BACKEND_CPU_STATE_H

#include "backend/cpu/cpu.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/pool.h"

struct draft_prepared_table; /* prepared.c */

struct draft_scratch {
    void *memory;
    size_t bytes;
};

struct draft_backend {
    struct draft_backend_head head;
    const struct draft_kernels *kernels;
    struct draft_pool *pool;
    int threads;
    struct draft_scratch shared, each; /* each: `threads` pieces of each_step bytes */
    size_t each_step;
    struct draft_prepared_table *prepared;
    size_t keep;               /* draft_backend_keep() */
    double marks[DRAFT_MARKS]; /* the clock's seconds */
};

/* 64-byte aligned, in huge pages where large; free() releases. NULL, with a sentence naming `what`, when out of memory.
 */
void *draft_aligned(size_t bytes, const char *what, struct draft_error *err);

/* --- Forms of weights (prepared.c, weight_forms.c) ------------------------------------------------------------------
 *
 * What a product reads of a weight is a form: panels, or Winograd's transform. A form is bytes: its element type is a
 * matter between whoever makes it and the kernel that reads it. Forms of pairs are bf16 (kernels.h), half the bytes.
 */

enum draft_form {
    DRAFT_FORM_ROWS,          /* as the tensor has it, [n, k]: for thin products of a weight without data */
    DRAFT_FORM_FORWARD,       /* panels of W^T */
    DRAFT_FORM_BACKWARD,      /* panels of W (linear), or of each stride phase (convolution) */
    DRAFT_FORM_FORWARD_PAIRS, /* the same two in pairs along the depth */
    DRAFT_FORM_BACKWARD_PAIRS,
    DRAFT_FORM_WINOGRAD,          /* [o panels][36][c][nr] */
    DRAFT_FORM_WINOGRAD_BACKWARD, /* the same of the rotated, transposed weight */
    DRAFT_FORMS,
};

/* How a form is made: `make` fills all `bytes` of it, mostly by draft_weight_pieces(). */
struct draft_recipe {
    enum draft_form form;
    size_t bytes;
    bool (*make)(struct draft_backend *backend, const struct draft_tensor *w, const void *context, void *form,
                 struct draft_error *err);
    const void *context;
    uint64_t run; /* of a merged form (draft_merge); 0: of the weight alone */
};

struct draft_prepared_table *draft_prepared_create(struct draft_error *err);
void draft_prepared_destroy(struct draft_prepared_table *table); /* touches no tensor */
void draft_prepared_forget(struct draft_backend *backend, struct draft_tensor *weight);
void draft_prepared_keep(struct draft_backend *backend, size_t bytes);
size_t draft_prepared_bytes(const struct draft_backend *backend);

/* Whether this form of `w` is kept or would be, by the policy in prepared.c. */
bool draft_prepared_keeps(const struct draft_backend *backend, const struct draft_tensor *w, enum draft_form form,
                          size_t bytes);
/* It is kept and there already. */
bool draft_prepared_has(const struct draft_backend *backend, const struct draft_tensor *w, enum draft_form form);
/* The kept form, made now if it must be; or, of one that is not kept, made into `scratch`: the caller has reserved the
 * draft_prepared_scratch() bytes there. NULL: failed. */
const void *draft_prepared_get(struct draft_backend *backend, struct draft_tensor *w, const struct draft_recipe *recipe,
                               void *scratch, struct draft_error *err);
/* The form for now: the kept one if it is there, else made into `scratch` whatever the policy. */
const void *draft_prepared_borrow(struct draft_backend *backend, struct draft_tensor *w,
                                  const struct draft_recipe *recipe, void *scratch, struct draft_error *err);
/* draft_prepared_get() with the shared scratch, for drivers that need none of it beside. */
const void *draft_form_of(struct draft_backend *backend, struct draft_tensor *w, const struct draft_recipe *recipe,
                          struct draft_error *err);
static inline size_t draft_prepared_scratch(const struct draft_backend *backend, const struct draft_tensor *w,
                                            const struct draft_recipe *recipe)
{
    return draft_prepared_keeps(backend, w, recipe->form, recipe->bytes) ? 0 : (recipe->bytes + 63) / 64 * 64;
}

/* Hands the rows of `w` (F32, [count, its count / dim[0]]) to `take`, `rows` at a time, on all threads; a weight
 * without data is read into the threads' scratch piece by piece. `first` is a multiple of `rows`. */
typedef void (*draft_take_rows)(void *context, int64_t first, int64_t count, const float *values);
bool draft_weight_pieces(struct draft_backend *backend, const struct draft_tensor *w, int64_t rows,
                         draft_take_rows take, void *context, struct draft_error *err);

/* The recipes of a matrix [n, ...]: its rows; W^T for y = x W^T; W for dx = dy W. */
struct draft_recipe draft_rows_recipe(const struct draft_tensor *w);
struct draft_recipe draft_forward_recipe(const struct draft_backend *backend, const struct draft_tensor *w);
struct draft_recipe draft_merged_recipe(const struct draft_backend *backend, const struct draft_tensor *w,
                                        const struct draft_merge *merge);
struct draft_recipe draft_backward_recipe(const struct draft_backend *backend, const struct draft_tensor *w);
/* The same in pairs where the backend multiplies bf16 (draft_has_pairs), else in floats. */
struct draft_recipe draft_forward_product_recipe(const struct draft_backend *backend, const struct draft_tensor *w);
struct draft_recipe draft_backward_product_recipe(const struct draft_backend *backend, const struct draft_tensor *w);

static inline bool draft_has_pairs(const struct draft_backend *backend)
{
    return backend->kernels->block_pairs != NULL;
}
static inline bool draft_is_pairs(enum draft_form form)
{
    return form == DRAFT_FORM_FORWARD_PAIRS || form == DRAFT_FORM_BACKWARD_PAIRS;
}
/* Elements of a depth of k numbers in pairs, and from row to row of a left matrix of them: never in step with the sets
 * of the caches. */
static inline int64_t draft_pairs_of(int64_t k)
{
    return (k + 1) / 2;
}
static inline int64_t draft_pairs_step(int64_t k)
{
    return (draft_pairs_of(k) + 15) / 16 * 16 + 16;
}

/* So few output columns that dot products along the depth beat vectors across columns: these read rows. */
static inline bool draft_is_thin(const struct draft_backend *backend, int64_t columns, int64_t depth)
{
    return columns <= backend->kernels->vector / 2 && columns <= 8 && depth >= backend->kernels->vector;
}

/* --- Products (gemm.c) ---------------------------------------------------------------------------------------------
 */

/* `batch` blocks, cut into tasks. strides: elements from matrix to matrix. pairs: b is in pairs, a in floats (its rows
 * are rounded task by task, in scratch of the threads that draft_product_reserve() has asked for), k counts numbers. */
struct draft_product {
    struct draft_block block;
    int64_t batch, stride_a, stride_b, stride_c;
    bool pairs;
    /* NULL, or a second product, of floats, that is added to the same c (batch 1): its a, b, k and alpha count. */
    const struct draft_block *plus;
};
bool draft_product_reserve(struct draft_backend *backend, const struct draft_product *product, struct draft_error *err);
void draft_product_run(struct draft_backend *backend, const struct draft_product *product);

/* Floats of packed B[k, n]. */
int64_t draft_packed_size(const struct draft_backend *backend, int64_t k, int64_t n);
/* Packs B[k, n], row-major with step ldb, or stored as B^T. */
void draft_pack(struct draft_backend *backend, int64_t k, int64_t n, const float *b, int64_t ldb, bool transposed,
                float *packed);

/* Convolution by Winograd (conv_winograd.c); `backward` turns the weight around: x is dy then, y is dx. */
bool draft_winograd_wins(const struct draft_backend *backend, const struct draft_conv_shape *shape);
bool draft_winograd_run(struct draft_backend *backend, const struct draft_conv_shape *shape, bool backward,
                        const float *x, struct draft_tensor *w, const float *bias, float *y, bool accumulate,
                        struct draft_error *err);

/* Backward to data of non-overlapping patches (conv_patch.c). */
bool draft_patch_applies(const struct draft_conv_shape *shape);
bool draft_patch_dx(struct draft_backend *backend, const struct draft_conv_shape *shape, const float *dy,
                    struct draft_tensor *w, float *dx, bool accumulate, struct draft_error *err);

static inline int64_t draft_round_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

#endif
