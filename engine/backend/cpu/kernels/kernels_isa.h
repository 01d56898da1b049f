/* Prototypes of the kernels of the instruction set being compiled; what they do is said in backend/cpu/kernels.h. */
#ifndef DRAFT_BACKEND_CPU_KERNELS_ISA_H
#define DRAFT_BACKEND_CPU_KERNELS_ISA_H

#include "backend/cpu/kernels/vec.h"

void ISA(block)(const struct draft_block *g);
void ISA(block_pairs)(const struct draft_block *g);
void ISA(pair_columns)(int64_t rows, int64_t k, const float *x, int64_t x_step, float *pairs, int64_t step);
void ISA(pair_rows)(int64_t rows, int64_t columns, const float *x, int64_t x_step, float *pairs, int64_t wide,
                    int64_t step);
void ISA(pack_panel)(int64_t k, int64_t columns, const float *b, int64_t ldb, bool transposed, float *panel);
void ISA(thin)(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,
               int64_t ldc, float alpha, const float *bias, bool accumulate);

void ISA(winograd_weights)(const struct draft_winograd_weights *w, int64_t columns, float *panel);
void ISA(winograd_input)(const struct draft_winograd *w, int64_t first, int64_t count, int64_t at, float *v,
                         float *scratch);
void ISA(winograd_output)(const struct draft_winograd *w, int64_t first, int64_t count, int64_t panel, const float *v,
                          float *m);
void ISA(winograd_input_words)(const struct draft_winograd *w, int64_t first, int64_t count, int64_t at, float *v,
                               float *scratch);
void ISA(winograd_output_words)(const struct draft_winograd *w, int64_t first, int64_t count, int64_t panel,
                                const float *v, float *m);
void ISA(words)(int64_t depth, const float *panel, float *words);
void ISA(block_words)(const struct draft_block *g);

void ISA(softmax_panel)(int64_t keys, int64_t columns, float *s, float *maximum, float *sum, float *factor);
void ISA(scale_panel)(int64_t rows, int64_t columns, const float *factor, float *y);
void ISA(turn_panel)(int64_t rows, int64_t lanes, const float *panel, int64_t ldp, const float *factor, float *y,
                     int64_t y_step, bool accumulate);
void ISA(softmax_backward_rows)(int64_t rows, int64_t columns, int64_t step, const int64_t *limit, float *s, float *dp,
                                const float *lse, const float *delta);
void ISA(move_rows)(int64_t rows, int64_t c, const float *x, int64_t x_step, const float *factor, float *y,
                    int64_t y_step, bool accumulate);
void ISA(row_dots)(int64_t rows, int64_t c, const float *a, const float *b, int64_t step, float *dot);

void ISA(group_moments)(int64_t rows, int64_t c, int64_t repeat, int64_t groups, const float *x, double *moments,
                        float *scratch);
void ISA(norm_apply)(int64_t rows, int64_t c, const float *x, const float *mean, const float *scale, const float *beta,
                     bool silu, float *y);
void ISA(norm_sums)(int64_t rows, int64_t c, const float *x, const float *mean, const float *rstd, const float *gamma,
                    const float *beta, bool silu, const float *dy, float *dz, float *sums);
void ISA(norm_dx)(int64_t rows, int64_t c, const float *x, const float *mean, const float *rstd, const float *gamma,
                  const float *beta, bool silu, const float *dy, const float *a, const float *b, const float *k,
                  float *dx, bool accumulate);
void ISA(layer_norm)(int64_t rows, int64_t c, float eps, const float *x, const float *gamma, const float *beta,
                     float *y, float *stats);
void ISA(layer_norm_dx)(int64_t rows, int64_t c, const float *x, const float *gamma, const float *stats,
                        const float *dy, float *dx, bool accumulate);
void ISA(layer_norm_sums)(int64_t rows, int64_t c, const float *x, const float *stats, const float *dy, float *sums);
void ISA(sum_rows)(int64_t rows, int64_t c, const float *x, float *sum);

void ISA(map)(enum draft_map map, int64_t n, const float *x, float *y);
void ISA(map_backward)(enum draft_map map, int64_t n, const float *x, const float *dy, float *dx, bool accumulate);
void ISA(geglu)(int64_t rows, int64_t c, const float *x, float *y);
void ISA(geglu_backward)(int64_t rows, int64_t c, const float *x, const float *dy, float *dx, bool accumulate);
void ISA(axpby)(int64_t n, float alpha, const float *a, float beta, const float *b, float *y, bool accumulate);

#endif
