/*
 * The CUDA backend's own kernels: everything that is bound by memory. What cpu/cpu.h is for the CPU backend; matrix
 * products, convolutions and fused attention go through cuBLASLt and cuDNN instead.
 *
 * Arrays live on the device and are contiguous, in the layouts of tensor/tensor.h. `void *` arrays hold activations,
 * all of the `type` given: DRAFT_F32 or DRAFT_BF16. Arithmetic is in F32 whatever the type; what is `float *` is F32
 * always: statistics, scales and shifts of norms, losses, gradients of parameters. Outputs may be one of the inputs
 * only where it is said.
 *
 * Every sum has a fixed order that depends on the shape alone, and so have grids and blocks (never on the number of
 * multiprocessors): results are the same bits on every run and every device. There are no atomics.
 *
 * A call only puts kernels into the stream: it never waits, allocates or reads results, so that it may be captured in a
 * CUDA graph. Numbers passed by value are frozen in a captured graph; those that change from step to step are read from
 * device memory, and their parameter is called `at`. Scratch is the caller's: ..._scratch() says how many bytes,
 * 16-byte aligned, contents undefined. A launch that fails stays in cudaGetLastError(), for whoever runs ops to ask
 * once.
 *
 * Sizes: at most 65535 samples (n), and 16 million elements from one row to the next.
 *
 * Thread: any, one at a time per stream. No CUDA header is needed to include this one.
 */
#ifndef DRAFT_BACKEND_CUDA_CUDA_H
#define DRAFT_BACKEND_CUDA_CUDA_H

#include <stddef.h>

#include "backend/shapes.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CUstream_st *draft_cuda_stream; /* what cudaStream_t is */
/* How many kernels this process has launched, the libraries' calls among them. */
extern uint64_t draft_cuda_launches;

/* The stream of a dry backend: what is put into it is left undone. */
#define DRAFT_CUDA_DRY_STREAM ((draft_cuda_stream)UINTPTR_MAX)

/* A gradient to write: `to` NULL means not wanted; accumulate as the tape says (false overwrites, true adds). */
struct draft_cuda_gradient {
    void *to;
    bool accumulate;
};

/* --- Norms (norms.cu) --------------------------------------------------------------------------------------------- */

/* x, y [n, positions, c]; gamma, beta [c]; stats [n, groups, 2]: mean and 1 / sqrt(variance + eps), for backward.
 * Backward: dx may be dy itself; dgamma and dbeta are F32. */
size_t draft_cuda_group_norm_scratch(const struct draft_group_norm_shape *shape); /* forward and backward */
void draft_cuda_group_norm(draft_cuda_stream stream, enum draft_dtype type, const struct draft_group_norm_shape *shape,
                           const void *x, const float *gamma, const float *beta, void *y, float *stats, void *scratch);
void draft_cuda_group_norm_backward(draft_cuda_stream stream, enum draft_dtype type,
                                    const struct draft_group_norm_shape *shape, const void *x, const float *gamma,
                                    const float *beta, const float *stats, const void *dy,
                                    struct draft_cuda_gradient dx, struct draft_cuda_gradient dgamma,
                                    struct draft_cuda_gradient dbeta, void *scratch);

/* x [rows, c], y [rows, c] with y_stride elements from row to row (c or more: a product with a LoRA behind it wants its
 * rows wider); stats [rows, 2] as above. Backward: dx may be dy itself unless dgamma or dbeta are wanted. */
size_t draft_cuda_layer_norm_scratch(int64_t rows, int64_t c); /* backward, and only if dgamma or dbeta are wanted */
void draft_cuda_layer_norm(draft_cuda_stream stream, enum draft_dtype type, int64_t rows, int64_t c, float eps,
                           const void *x, const float *gamma, const float *beta, void *y, int64_t y_stride,
                           float *stats);
void draft_cuda_layer_norm_backward(draft_cuda_stream stream, enum draft_dtype type, int64_t rows, int64_t c,
                                    const void *x, const float *gamma, const float *stats, const void *dy,
                                    struct draft_cuda_gradient dx, struct draft_cuda_gradient dgamma,
                                    struct draft_cuda_gradient dbeta, void *scratch);

/* --- Element by element (elementwise.cu); outputs may be one of the inputs unless said ---------------------------- */

void draft_cuda_map(draft_cuda_stream stream, enum draft_dtype type, enum draft_map map, int64_t n, const void *x,
                    void *y);
void draft_cuda_map_backward(draft_cuda_stream stream, enum draft_dtype type, enum draft_map map, int64_t n,
                             const void *x, const void *dy, struct draft_cuda_gradient dx);
/* x [rows, 2c] = (a, b) -> y [rows, c] = a gelu(b), y_stride elements from row to row; dx [rows, 2c]. No overlap. */
void draft_cuda_geglu(draft_cuda_stream stream, enum draft_dtype type, int64_t rows, int64_t c, const void *x, void *y,
                      int64_t y_stride);
void draft_cuda_geglu_backward(draft_cuda_stream stream, enum draft_dtype type, int64_t rows, int64_t c, const void *x,
                               const void *dy, struct draft_cuda_gradient dx);
/* y = alpha a + beta b (+ y); b may be NULL */
void draft_cuda_axpby(draft_cuda_stream stream, enum draft_dtype type, int64_t n, float alpha, const void *a,
                      float beta, const void *b, struct draft_cuda_gradient y);
/* y[rows, c] = x[rows, c] + b[c] */
void draft_cuda_add_to_rows(draft_cuda_stream stream, enum draft_dtype type, int64_t rows, int64_t c, const void *x,
                            const void *b, void *y);
/* y = min(max(scale x + shift, lo), hi); dx = scale dy where it was not cut. NaN stays NaN. */
struct draft_cuda_clamp {
    float scale, shift, lo, hi;
};
void draft_cuda_scale_clamp(draft_cuda_stream stream, enum draft_dtype type, int64_t n, struct draft_cuda_clamp clamp,
                            const void *x, void *y);
void draft_cuda_scale_clamp_backward(draft_cuda_stream stream, enum draft_dtype type, int64_t n,
                                     struct draft_cuda_clamp clamp, const void *x, const void *dy,
                                     struct draft_cuda_gradient dx);
/* y[i, c] = (x[i, c] - mean[c]) / std[c], c <= 4 channels; mean and std on the host. */
enum { DRAFT_CUDA_MAX_CHANNELS = 4 };
void draft_cuda_normalize_channels(draft_cuda_stream stream, enum draft_dtype type, int64_t rows, int64_t c,
                                   const float *mean, const float *std, const void *x, void *y);
void draft_cuda_normalize_channels_backward(draft_cuda_stream stream, enum draft_dtype type, int64_t rows, int64_t c,
                                            const float *std, const void *dy, struct draft_cuda_gradient dx);

/* --- A sampler's step (elementwise.cu): latents are F32 ----------------------------------------------------------- */

/* y = *alpha a + *beta b (+ y), both numbers read on the device; b may be NULL, y may be a or b. */
void draft_cuda_combine(draft_cuda_stream stream, int64_t n, const float *alpha, const float *a, const float *beta,
                        const float *b, struct draft_cuda_gradient y);

/* --- Moving numbers (movement.cu) --------------------------------------------------------------------------------- */

/* to = from (+ to) */
void draft_cuda_convert(draft_cuda_stream stream, enum draft_dtype from_type, enum draft_dtype to_type, int64_t n,
                        const void *from, struct draft_cuda_gradient to);
/* to[i, c] = from[i, c], F32 to BF16, to_stride numbers from row to row of `to`: `count` matrices, described on the
 * device; whole: every c and to_stride is a multiple of 4, and every address of 4 numbers. */
struct draft_cuda_conversion {
    const float *from;
    void *to;
    int64_t rows, c, to_stride;
};
void draft_cuda_convert_matrices(draft_cuda_stream stream, const struct draft_cuda_conversion *at, int count,
                                 bool whole);
void draft_cuda_convert_rows(draft_cuda_stream stream, const struct draft_cuda_conversion *one);
void draft_cuda_fill(draft_cuda_stream stream, enum draft_dtype type, int64_t n, float value, void *to);

/* A window [n, h, w] of a larger [n, big_h, big_w], at (top, left); w and left in elements (pixels times channels).
 * Channels of [rows, c]: n = 1, h = big_h = rows. Rows of a batch: n = 1, w = big_w. */
struct draft_cuda_window {
    int64_t n, h, w, big_h, big_w, top, left;
};
/* small = the window of big (+ small) */
void draft_cuda_cut(draft_cuda_stream stream, enum draft_dtype type, const struct draft_cuda_window *window,
                    const void *big, struct draft_cuda_gradient small);
/* the window of big = small (+ itself); clear: and zero is written everywhere else, in the same pass. */
void draft_cuda_paste(draft_cuda_stream stream, enum draft_dtype type, const struct draft_cuda_window *window,
                      const void *small, struct draft_cuda_gradient big, bool clear);

/* y [rows, ca + cb] = (a [rows, ca], b [rows, cb]), in one pass. Rows of a batch: rows = 1. */
void draft_cuda_join(draft_cuda_stream stream, enum draft_dtype type, int64_t rows, int64_t ca, int64_t cb,
                     const void *a, const void *b, void *y);

/* y [n, s + 1, c] = token [c], x [n, s, c]. Its gradients: draft_cuda_cut and draft_cuda_sum_rows. */
void draft_cuda_prepend_token(draft_cuda_stream stream, enum draft_dtype type, int64_t n, int64_t s, int64_t c,
                              const void *token, const void *x, void *y);
/* y[i] = x[i, index[i]], x [n, s, c]; index NULL: x[i, 0]; dx is written whole: dy at those rows, zero (or itself)
 * elsewhere. */
void draft_cuda_select_token(draft_cuda_stream stream, enum draft_dtype type, int64_t n, int64_t s, int64_t c,
                             const int32_t *index, const void *x, void *y);
void draft_cuda_select_token_backward(draft_cuda_stream stream, enum draft_dtype type, int64_t n, int64_t s, int64_t c,
                                      const int32_t *index, const void *dy, struct draft_cuda_gradient dx);
/* y[i] = table[ids[i]], table [vocabulary, c]; dtable[v] = sum of dy where v stands. Ids must be in range. */
void draft_cuda_embedding(draft_cuda_stream stream, enum draft_dtype type, int64_t count, int64_t c, const int32_t *ids,
                          const void *table, void *y);
void draft_cuda_embedding_backward(draft_cuda_stream stream, enum draft_dtype type, int64_t count, int64_t vocabulary,
                                   int64_t c, const int32_t *ids, const void *dy, struct draft_cuda_gradient dtable);

/* A convolution as a product: patches [n*oh*ow, stride] with (kh, kw, c) side by side, zeros behind them up to the
 * stride. Backward: dx gathers from every patch that holds it. */
void draft_cuda_patches(draft_cuda_stream stream, enum draft_dtype type, const struct draft_conv_shape *shape,
                        const void *x, int64_t stride, void *patches);
void draft_cuda_patches_backward(draft_cuda_stream stream, enum draft_dtype type, const struct draft_conv_shape *shape,
                                 const void *dpatches, int64_t stride, struct draft_cuda_gradient dx);

/* --- One row (row_product.cu) ------------------------------------------------------------------------------------- */

/* y [o] = w [o, k] x [k] + b [o] + c [o], b and c may be NULL; up to DRAFT_CUDA_ROWS of them with one x. */
enum { DRAFT_CUDA_ROWS = 32 };
struct draft_cuda_row {
    const void *w, *b, *c;
    void *y;
    int64_t o;
};
void draft_cuda_row_products(draft_cuda_stream stream, enum draft_dtype type, int64_t k, const void *x,
                             const struct draft_cuda_row *row, int count);

/* --- Pictures (image.cu) ------------------------------------------------------------------------------------------ */

struct draft_cuda_image {
    int64_t n, h, w, c, out_h, out_w; /* x [n, h, w, c] -> y [n, out_h, out_w, c] */
};
void draft_cuda_upsample_nearest(draft_cuda_stream stream, enum draft_dtype type, const struct draft_cuda_image *image,
                                 const void *x, void *y);
void draft_cuda_upsample_nearest_backward(draft_cuda_stream stream, enum draft_dtype type,
                                          const struct draft_cuda_image *image, const void *dy,
                                          struct draft_cuda_gradient dx);
/* NaN in a window gives NaN. */
void draft_cuda_max_pool(draft_cuda_stream stream, enum draft_dtype type, const struct draft_cuda_image *image,
                         int64_t window, int64_t stride, const void *x, void *y);
/* The sparse rows of one axis' matrix: destination i reads count[i] sources from first[i] on, weighted
 * weight[i * width ..]. All three on the device. */
struct draft_cuda_taps {
    int64_t out, width;
    const int32_t *first, *count;
    const float *weight;
};
/* from [outer, in, inner] -> to [outer, taps->out, inner]: one axis of a resize; backward is the same call with the
 * transposed taps, a gather. */
void draft_cuda_resample(draft_cuda_stream stream, enum draft_dtype from_type, enum draft_dtype to_type,
                         const struct draft_cuda_taps *taps, int64_t outer, int64_t in, int64_t inner, const void *from,
                         struct draft_cuda_gradient to);

/* --- Sums (reductions.cu) ----------------------------------------------------------------------------------------- */

/* sum[b, c] = sum over rows of x[b, rows, c] (+ sum); x_stride elements from row to row, b_stride from b to b. */
struct draft_cuda_rows {
    int64_t b, rows, c, x_stride, b_stride;
};
size_t draft_cuda_sum_rows_scratch(const struct draft_cuda_rows *rows);
void draft_cuda_sum_rows(draft_cuda_stream stream, enum draft_dtype type, enum draft_dtype sum_type,
                         const struct draft_cuda_rows *rows, const void *x, struct draft_cuda_gradient sum,
                         void *scratch);
/* y[0] = sum of x / n; dx = dy[0] / n */
size_t draft_cuda_mean_scratch(int64_t n); /* the same for mean_square_difference */
void draft_cuda_mean(draft_cuda_stream stream, enum draft_dtype type, int64_t n, const void *x, float *y,
                     void *scratch);
void draft_cuda_mean_backward(draft_cuda_stream stream, enum draft_dtype type, int64_t n, const float *dy,
                              struct draft_cuda_gradient dx);
/* y[0] = sum of (a - b)^2 / n; da = dy[0] 2 (a - b) / n; db: exchange a and b. */
void draft_cuda_mean_square_difference(draft_cuda_stream stream, enum draft_dtype type, int64_t n, const void *a,
                                       const void *b, float *y, void *scratch);
void draft_cuda_mean_square_difference_backward(draft_cuda_stream stream, enum draft_dtype type, int64_t n,
                                                const void *a, const void *b, const float *dy,
                                                struct draft_cuda_gradient da);
/* y[i] = cosine of a[i] and b[i], a, b [rows, c]; da as ops/cosine.c has it, db: exchange a and b. */
void draft_cuda_cosine(draft_cuda_stream stream, enum draft_dtype type, int64_t rows, int64_t c, const void *a,
                       const void *b, float *y);
void draft_cuda_cosine_backward(draft_cuda_stream stream, enum draft_dtype type, int64_t rows, int64_t c, const void *a,
                                const void *b, const float *dy, struct draft_cuda_gradient da);
/* LPIPS: out[p, c] = x[p, c] / (|x[p]| + 1e-10) sqrt(linear[c] / positions), one stage of one picture; then the squared
 * distance of each pair of vectors [n, length], distance [n, n] whole. */
void draft_cuda_lpips_stage(draft_cuda_stream stream, enum draft_dtype type, int64_t positions, int64_t c,
                            const void *x, const float *linear, float *out);
void draft_cuda_pair_distances(draft_cuda_stream stream, int64_t n, int64_t length, const float *vectors,
                               float *distance);

/* --- Attention without a fused kernel (attention_unfused.cu) ------------------------------------------------------ */

/* Rows of scores q k^T to probabilities: p = softmax(scale scores), [matrices, s, t]; causal: row i sees j <= i; at: of
 * each row that many take part (1 to t), NULL: all. p may be scores itself if the types are equal. Backward: ds = scale
 * p (dp - sum over t of p dp), dp of score_type; ds may be p, or dp if the types are equal. */
void draft_cuda_softmax(draft_cuda_stream stream, enum draft_dtype score_type, enum draft_dtype type, int64_t matrices,
                        int64_t s, int64_t t, bool causal, const float *at, float scale, const void *scores, void *p);
void draft_cuda_softmax_backward(draft_cuda_stream stream, enum draft_dtype score_type, enum draft_dtype type,
                                 int64_t rows, int64_t t, float scale, const void *p, const void *dp, void *ds);

/* --- The optimizer (optimizer.cu): n parameters in one F32 buffer, their gradients in another --------------------- */

/* What an update reads on the device: draft_adamw_step()'s numbers, rounded as it rounds them. */
struct draft_cuda_adamw_step {
    double max_norm;                  /* of the gradients: they are scaled down to it; INFINITY: never */
    float keep;                       /* 1 - learning rate * weight decay */
    float step;                       /* learning rate / (1 - beta1^t) */
    float root2;                      /* sqrt(1 - beta2^t) */
    float epsilon, beta2, new1, new2; /* new: 1 - beta */
};
/* The gradients' norm, summed in double, not finite when any number is not; factor: min(1, max_norm / (norm + 1e-6)),
 * or NaN when the norm or a number of the guard is not finite. */
struct draft_cuda_norm {
    double norm;
    float factor;
};
size_t draft_cuda_gradient_norm_scratch(int64_t n);
void draft_cuda_gradient_norm(draft_cuda_stream stream, int64_t n, const struct draft_cuda_adamw_step *at,
                              const float *gradient, const struct draft_guard *guard, struct draft_cuda_norm *norm,
                              void *scratch);
/* One update with the gradients times the factor; leaves everything as it is when that is NaN. */
void draft_cuda_adamw(draft_cuda_stream stream, int64_t n, const struct draft_cuda_adamw_step *at,
                      const struct draft_cuda_norm *norm, const float *gradient, float *parameter, float *m, float *v);
/* x += rate (target - x): a moving average of the parameters */
void draft_cuda_approach(draft_cuda_stream stream, int64_t n, float rate, const float *target, float *x);
/* Exchanges the numbers of a and b. */
void draft_cuda_exchange(draft_cuda_stream stream, int64_t n, float *a, float *b);

/* --- JPEG size (jpeg.cu): formulas in ops/jpeg_size.c, constants from its draft_jpeg_model() ---------------------- */

/* x [n, h, w, 3] -> size [n]. Backward needs nothing kept: it computes all again. */
struct draft_cuda_pictures {
    int64_t n, h, w;
};
size_t draft_cuda_jpeg_size_scratch(const struct draft_cuda_pictures *pictures);
void draft_cuda_jpeg_size(draft_cuda_stream stream, enum draft_dtype type, const struct draft_cuda_pictures *pictures,
                          const struct draft_jpeg_model *model, const void *x, float *size, void *scratch);
void draft_cuda_jpeg_size_backward(draft_cuda_stream stream, enum draft_dtype type,
                                   const struct draft_cuda_pictures *pictures, const struct draft_jpeg_model *model,
                                   const void *x, const float *dsize, struct draft_cuda_gradient dx, void *scratch);

/* --- Timestep embedding (timestep_embedding.cu) ------------------------------------------------------------------- */

/* y [n, dim] as ops/timestep_embedding.c; the timestep is read at `at`. */
void draft_cuda_timestep_embedding(draft_cuda_stream stream, enum draft_dtype type, int64_t n, int64_t dim,
                                   float freq_shift, bool flip, const float *at, void *y);

/* --- The clock (clock.cu) ----------------------------------------------------------------------------------------- */

/* *sum += now - *last (sum NULL: nothing); *last = now, in seconds, when the stream gets there. */
void draft_cuda_lap(draft_cuda_stream stream, double *last, double *sum);

#ifdef __cplusplus
}
#endif

#endif
