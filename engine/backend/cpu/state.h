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
};

/* 64-byte aligned, in huge pages where large; free() releases. NULL, with a sentence naming `what`, when out of memory.
 */
void *draft_aligned(size_t bytes, const char *what, struct draft_error *err);

/* --- Prepared weights: the packed forms of frozen weights, kept until forgotten (prepared.c) -----------------------
 */

enum draft_form {
    DRAFT_FORM_FORWARD,           /* panels of W^T */
    DRAFT_FORM_BACKWARD,          /* panels of W (linear), or of each stride phase (convolution) */
    DRAFT_FORM_WINOGRAD,          /* [o panels][36][c][nr] */
    DRAFT_FORM_WINOGRAD_BACKWARD, /* the same of the rotated, transposed weight */
    DRAFT_FORMS,
};

struct draft_prepared_table *draft_prepared_create(struct draft_error *err);
void draft_prepared_destroy(struct draft_prepared_table *table); /* touches no tensor */
void draft_prepared_forget(struct draft_backend *backend, struct draft_tensor *weight);
size_t draft_prepared_bytes(const struct draft_backend *backend);

/*
 * The form of `w`, `floats` long: found, or made by `make` into kept memory (frozen) or into `scratch` (trained: the
 * caller reserved draft_prepared_scratch() floats of it).
 */
typedef void (*draft_make_form)(struct draft_backend *backend, const struct draft_tensor *w, void *context,
                                float *form);
const float *draft_prepared_get(struct draft_backend *backend, struct draft_tensor *w, enum draft_form form,
                                int64_t floats, draft_make_form make, void *context, float *scratch,
                                struct draft_error *err);
static inline int64_t draft_prepared_scratch(const struct draft_tensor *w, int64_t floats)
{
    return w->needs_grad ? (floats + 15) / 16 * 16 : 0;
}

/* --- Products (gemm.c) ---------------------------------------------------------------------------------------------
 */

/* `batch` blocks, cut into tasks. strides: elements from matrix to matrix. */
struct draft_product {
    struct draft_block block;
    int64_t batch, stride_a, stride_b, stride_c;
};
void draft_product_run(struct draft_backend *backend, const struct draft_product *product);

/* Floats of packed B[k, n]. */
int64_t draft_packed_size(const struct draft_backend *backend, int64_t k, int64_t n);
/* Packs B[k, n], row-major with step ldb, or stored as B^T. */
void draft_pack(struct draft_backend *backend, int64_t k, int64_t n, const float *b, int64_t ldb, bool transposed,
                float *packed);

/* So few output columns that dot products along the depth beat vectors across columns. */
static inline bool draft_is_thin(const struct draft_backend *backend, int64_t columns, int64_t depth)
{
    return columns <= backend->kernels->vector / 2 && columns <= 8 && depth >= backend->kernels->vector;
}

/* Convolution by Winograd (conv_winograd.c); `backward` turns the weight around: x is dy then, y is dx. */
bool draft_winograd_wins(const struct draft_conv_shape *shape);
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
