/*
 * What the drivers in backend/cpu/ ask of one instruction set: one table of single-threaded kernels, compiled from
 * backend/cpu/kernels/ once per instruction set (DRAFT_ISA) and chosen by cpuid.
 *
 * A panel is `nr` columns of a matrix B[k, n], stored [k][nr] and zero-filled past n; packed B is its panels in a row.
 */
#ifndef DRAFT_BACKEND_CPU_KERNELS_H
#define DRAFT_BACKEND_CPU_KERNELS_H

#include "backend/cpu/cpu.h"

enum {
    DRAFT_K_BLOCK = 384,   /* depth of B kept in the first cache levels: 384 rows of 128 bytes */
    DRAFT_TILES = 64,      /* Winograd tiles a block */
    DRAFT_NORM_CHUNK = 64, /* rows of one partial sum: short enough for float, the rest is added in double */
};

/* Floats from one of the 36 matrices of a Winograd block to the next, rows being `width` long: one line more than the
 * tiles need, or all 36 would fall into one set of the first cache. */
#define DRAFT_WINOGRAD_STEP(width) (DRAFT_TILES * (width) + 16)

/* c[m, n] = (accumulate ? c : 0) + alpha a b + bias. Element (i, p) of a is a[i*a_row + p*a_col]; one of the two steps
 * is 1. Panel j of b starts at b + j*b_panel, its rows are b_row apart: packed (k*nr, nr) or, when n is a multiple of
 * nr, a plain row-major matrix (nr, ldb). */
struct draft_block {
    int64_t m, n, k;
    const float *a;
    int64_t a_row, a_col;
    const float *b;
    int64_t b_panel, b_row;
    float *c;
    int64_t ldc;
    float alpha;
    const float *bias; /* [n] or NULL */
    bool accumulate;
};

/* Where a Winograd task's tiles lie: tiles are numbered image by image, row by row, 4x4 outputs each. */
struct draft_winograd {
    const float *x; /* [n, h, w, c] */
    int64_t h, w, c;
    int64_t oh, ow, o;
    int64_t pad_top, pad_left;
    int64_t tile_rows, tile_columns;
    const float *transformed; /* [o panels][36][c][nr]; words: [o panels]: [36][c / 2][nr], factors [36][nr] */
    int64_t panel_step;       /* floats from panel to panel; 0: `transformed` is the one panel asked for */
    const float *bias;        /* [o] or NULL */
    float *y;                 /* [n, oh, ow, o] */
    bool accumulate;
    /* Of the c channels `transformed` has from .. from+depth-1, in [36][depth_step][nr]: all, or part after part. */
    int64_t from, depth, depth_step;
};

/* A 3x3 weight seen from one side: element (in, out, tap 0..8) is w[in*in_step + out*out_step + tap*tap_step]. One of
 * the first two steps is 1; if it is out_step, all nr columns can be read. */
struct draft_winograd_weights {
    const float *w;
    int64_t in, in_step, out_step, tap_step;
    int64_t depth; /* rows of each of the panel's 36 matrices; the first `in` are made now */
};

struct draft_winograd_kernels {
    /* Input transform of tiles first .. first+count-1 into v[36][DRAFT_TILES][c rounded up to a vector] from tile `at`
     * of it, the 36 a DRAFT_WINOGRAD_STEP apart; c and o are at least a vector. Words: rows are half as long, factors
     * [36][DRAFT_TILES] follow all 36, and scratch is [36][c rounded up to a vector]. */
    void (*input)(const struct draft_winograd *w, int64_t first, int64_t count, int64_t at, float *v, float *scratch);
    /* Products and, after the last part of the depth, output transform of one panel of output channels; m is scratch
     * [36][DRAFT_TILES][nr], as v, and holds the sums from part to part. */
    void (*output)(const struct draft_winograd *w, int64_t first, int64_t count, int64_t panel, const float *v,
                   float *m);
};

struct draft_kernels {
    const char *isa;
    int vector; /* floats in a vector */
    int mr, nr; /* the micro-tile: rows; columns (two vectors) */

    void (*block)(const struct draft_block *block);

    /* bf16, NULL where the processor has no instruction for it (kernels/bf16.c). An element is 32 bits, a pair of
     * neighbours along the depth, the first in the low half; a missing second is zero. Rounding is to nearest, ties to
     * even. block_pairs is `block` on pairs in a and b, k counting pairs, with c, alpha and bias in float.
     * pair_columns: pairs[r][(k + 1) / 2] of x[r][k], as a left matrix has them. pair_rows: pairs[(rows + 1) / 2][wide]
     * of x[rows][columns], as a right one; zero from `columns` on. */
    void (*block_pairs)(const struct draft_block *block);
    void (*pair_columns)(int64_t rows, int64_t k, const float *x, int64_t x_step, float *pairs, int64_t step);
    void (*pair_rows)(int64_t rows, int64_t columns, const float *x, int64_t x_step, float *pairs, int64_t wide,
                      int64_t step);

    /* One panel from B[k, n] stored row-major with step ldb (or as B^T[n, k]); `columns` <= nr of it are real. */
    void (*pack_panel)(int64_t k, int64_t columns, const float *b, int64_t ldb, bool transposed, float *panel);
    /* c[m, n] = (accumulate ? c : 0) + alpha a[m, k] b[n, k]^T + bias for n <= 8: dot products along k. */
    void (*thin)(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,
                 int64_t ldc, float alpha, const float *bias, bool accumulate);

    /* Transformed weights of `columns` <= nr output channels: panel[36][depth][nr], its first `in` rows of each. */
    void (*winograd_weights)(const struct draft_winograd_weights *w, int64_t columns, float *panel);
    /* `words`: 16-bit integers in place of floats, see kernels/words.c; NULL where there are no bf16 products. The
     * panel's [36][depth][nr] floats become words; in place or elsewhere. */
    void (*words)(int64_t depth, const float *panel, float *words);
    struct draft_winograd_kernels winograd, winograd_words;

    /* One panel of attention scores s[keys][nr], a query a lane, `columns` lanes of them (one or two vectors): in place
     * 2^(s - maximum), with the running maximum and sum of each lane; factor: what earlier sums are to be scaled by. */
    void (*softmax_panel)(int64_t keys, int64_t columns, float *s, float *maximum, float *sum, float *factor);
    /* y[rows][nr] *= factor, lane by lane */
    void (*scale_panel)(int64_t rows, int64_t columns, const float *factor, float *y);
    /* y[lane, c] = factor[lane] panel[c, lane] (+ y) for c < rows and lane < lanes; panel rows are ldp apart; factor
     * NULL: 1 */
    void (*turn_panel)(int64_t rows, int64_t lanes, const float *panel, int64_t ldp, const float *factor, float *y,
                       int64_t y_step, bool accumulate);
    /* p = 2^(s - lse[row]) in place, ds = p (dp - delta[row]) in place of dp, over `columns` rounded up to vectors;
     * zero from limit[row] on. */
    void (*softmax_backward_rows)(int64_t rows, int64_t columns, int64_t step, const int64_t *limit, float *s,
                                  float *dp, const float *lse, const float *delta);
    /* y[rows, c] = factor[row] x (+ y); factor NULL: 1 */
    void (*move_rows)(int64_t rows, int64_t c, const float *x, int64_t x_step, const float *factor, float *y,
                      int64_t y_step, bool accumulate);
    /* dot[row] = sum over c of a b */
    void (*row_dots)(int64_t rows, int64_t c, const float *a, const float *b, int64_t step, float *dot);

    /* Mean and sum of squared deviations of each group over `rows` rows, worked on `repeat` rows side by side; scratch
     * [3 repeat c]. */
    void (*group_moments)(int64_t rows, int64_t c, int64_t repeat, int64_t groups, const float *x, double *moments,
                          float *scratch);
    /* y = silu?((x - mean[c]) scale[c] + beta[c]) */
    void (*norm_apply)(int64_t rows, int64_t c, const float *x, const float *mean, const float *scale,
                       const float *beta, bool silu, float *y);
    /* With xhat = (x - mean) rstd and z = xhat gamma + beta: dz = dy silu?'(z), sums[0..c) = sum dz, sums[c..2c) = sum
     * dz xhat; all vectors by channel. dz is stored when not NULL (it may be dy). */
    void (*norm_sums)(int64_t rows, int64_t c, const float *x, const float *mean, const float *rstd, const float *gamma,
                      const float *beta, bool silu, const float *dy, float *dz, float *sums);
    /* dx = a[c] dz - b[c] - k[c] xhat (+ dx), dz as above */
    void (*norm_dx)(int64_t rows, int64_t c, const float *x, const float *mean, const float *rstd, const float *gamma,
                    const float *beta, bool silu, const float *dy, const float *a, const float *b, const float *k,
                    float *dx, bool accumulate);
    void (*layer_norm)(int64_t rows, int64_t c, float eps, const float *x, const float *gamma, const float *beta,
                       float *y, float *stats);
    void (*layer_norm_dx)(int64_t rows, int64_t c, const float *x, const float *gamma, const float *stats,
                          const float *dy, float *dx, bool accumulate);
    /* sums[0..c) = sum dy, sums[c..2c) = sum dy xhat, over rows with their own statistics */
    void (*layer_norm_sums)(int64_t rows, int64_t c, const float *x, const float *stats, const float *dy, float *sums);
    /* sum[c] = sum over rows; a chunk of at most DRAFT_NORM_CHUNK rows */
    void (*sum_rows)(int64_t rows, int64_t c, const float *x, float *sum);

    void (*map)(enum draft_map map, int64_t n, const float *x, float *y);
    void (*map_backward)(enum draft_map map, int64_t n, const float *x, const float *dy, float *dx, bool accumulate);
    void (*geglu)(int64_t rows, int64_t c, const float *x, float *y);
    void (*geglu_backward)(int64_t rows, int64_t c, const float *x, const float *dy, float *dx, bool accumulate);
    void (*axpby)(int64_t n, float alpha, const float *a, float beta, const float *b, float *y, bool accumulate);
};

/* The table for an instruction set's name, NULL or "auto" for the best that computes in fp32, or, with bf16, the one
 * that has bf16 products; NULL, with a sentence, when unknown or not here. */
const struct draft_kernels *draft_kernels_find(const char *isa, bool bf16, struct draft_error *err);

#endif
