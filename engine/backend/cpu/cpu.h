/*
 * The CPU backend's door for engine/ops: threads, scratch memory and the heavy kernels.
 *
 * Shapes are plain numbers and pointers; all arrays are contiguous F32, row-major, in the layouts of tensor/tensor.h
 * (images NHWC, linear weights [out, in], convolution weights [out, kh, kw, in]). Weights come as tensors: a frozen one
 * (needs_grad false) is packed at first use and its packed form kept in tensor->prepared until
 * draft_backend_forget(), or made anew at each use (draft_backend_keep()); its values may be in a file only
 * (tensor/weight_source.h). A trained one is packed into scratch at every call.
 *
 * Accumulate flags: false overwrites the output, true adds to it. Outputs must not overlap inputs unless said.
 * Errors: the bool functions fail only when memory for scratch or packed weights is out, or a weight's file cannot be
 * read. Wrong shapes are asserts.
 * Determinism: every result is bitwise the same for any number of threads.
 * Thread: one caller at a time per backend (the graph's thread); the pool works inside.
 */
#ifndef DRAFT_BACKEND_CPU_CPU_H
#define DRAFT_BACKEND_CPU_CPU_H

#include "backend/backend.h"
#include "backend/shapes.h"

/* --- Threads and scratch ------------------------------------------------------------------------------------------ */

typedef void (*draft_task)(void *context, int64_t task, int thread);

/* Runs fn(context, 0 .. tasks-1, thread), each once, in no fixed order, on up to draft_backend_threads() threads;
 * returns when all are done. thread < draft_backend_threads(). A result may depend on the task, never on the thread.
 * Not nestable. A task should be worth 20 us or more; with one task, or one thread, all runs inline. */
void draft_parallel(struct draft_backend *backend, int64_t tasks, draft_task fn, void *context);

/* Cuts [0, n) into pieces of `grain` (the last is shorter) and runs fn(context, begin, end) on each. Elementwise work:
 * n below one grain runs inline; 4096 to 16384 elements are a good grain. */
void draft_parallel_range(struct draft_backend *backend, int64_t n, int64_t grain,
                          void (*fn)(void *context, int64_t begin, int64_t end), void *context);

/* `bytes` of 64-byte aligned scratch that all threads share, and as much again for each thread. Contents are undefined
 * and last until the next draft_cpu_* call or reservation. Reused from call to call. */
bool draft_scratch_reserve(struct draft_backend *backend, size_t shared_bytes, size_t bytes_per_thread,
                           struct draft_error *err);
void *draft_scratch_shared(struct draft_backend *backend);
void *draft_scratch_of(struct draft_backend *backend, int thread);

/* --- Matrix products ---------------------------------------------------------------------------------------------- */

/* A term of low rank, added while the rows of a product are still in the cache: scale left[m, r] right, where right is
 * [r, n], or stored as [n, r] with trans_right. The second half of a LoRA, in float always. */
struct draft_low_rank {
    int64_t r;
    float scale;
    const float *left, *right;
    bool trans_right;
};

/* y[m, n] = x[m, k] w^T (+ bias[n]) (+ the term) (+ y).  w [n, ...] with k = its count / n. bias and term may be NULL.
 */
bool draft_cpu_linear(struct draft_backend *backend, int64_t m, const float *x, struct draft_tensor *w,
                      const float *bias, const struct draft_low_rank *term, float *y, bool accumulate,
                      struct draft_error *err);
/* The second product made part of the weight: y = x (w + scale up down)^T + bias, up [n, r], down [r, k]. The sum takes
 * the place of w's packed form and serves all calls with the same `run`, not 0; a call without a merge, or with another
 * run, packs anew from w itself. false where it is not worth it or not exact: w not kept packed in floats. */
struct draft_merge {
    uint64_t run;
    int64_t r;
    float scale;
    const float *up, *down;
};
bool draft_cpu_merges(const struct draft_backend *backend, const struct draft_tensor *w);
bool draft_cpu_linear_merged(struct draft_backend *backend, int64_t m, const float *x, struct draft_tensor *w,
                             const float *bias, const struct draft_merge *merge, float *y, struct draft_error *err);
/* dx[m, k] = dy[m, n] w (+ the term) (+ dx) */
bool draft_cpu_linear_dx(struct draft_backend *backend, int64_t m, const float *dy, struct draft_tensor *w,
                         const struct draft_low_rank *term, float *dx, bool accumulate, struct draft_error *err);
/* dw[n, k] = dy[m, n]^T x[m, k] (+ dw) */
bool draft_cpu_linear_dw(struct draft_backend *backend, int64_t m, int64_t n, int64_t k, const float *x,
                         const float *dy, float *dw, bool accumulate, struct draft_error *err);

/* sum[b, c] = sum over rows of x[b, rows, c] (+ sum). The gradient of a bias (b = 1) or of one broadcast over
 * positions. */
bool draft_cpu_sum_rows(struct draft_backend *backend, int64_t b, int64_t rows, int64_t c, const float *x, float *sum,
                        bool accumulate, struct draft_error *err);

/* For each of `batch` matrices: c[m, n] = alpha op(a)[m, k] op(b)[k, n] + beta c. op transposes when asked: a is stored
 * [m, k], or [k, m] with trans_a; b [k, n], or [n, k] with trans_b. ld*: elements from row to row as stored; stride*:
 * from matrix to matrix. beta = 0 never reads c. A LoRA product (n or k small) is one of these with batch = 1. */
struct draft_gemm {
    int64_t batch, m, n, k;
    bool trans_a, trans_b;
    float alpha, beta;
    const float *a, *b;
    float *c;
    int64_t lda, ldb, ldc;
    int64_t stride_a, stride_b, stride_c;
};
bool draft_cpu_gemm(struct draft_backend *backend, const struct draft_gemm *gemm, struct draft_error *err);

/* --- Convolution -------------------------------------------------------------------------------------------------- */

/* y[n, oh, ow, o] = conv(x, w) (+ bias[o]) */
bool draft_cpu_conv2d(struct draft_backend *backend, const struct draft_conv_shape *shape, const float *x,
                      struct draft_tensor *w, const float *bias, float *y, struct draft_error *err);
bool draft_cpu_conv2d_dx(struct draft_backend *backend, const struct draft_conv_shape *shape, const float *dy,
                         struct draft_tensor *w, float *dx, bool accumulate, struct draft_error *err);
/* The bias's gradient is draft_cpu_sum_rows(1, n*oh*ow, o, dy). */
bool draft_cpu_conv2d_dw(struct draft_backend *backend, const struct draft_conv_shape *shape, const float *x,
                         const float *dy, float *dw, bool accumulate, struct draft_error *err);

/* --- Attention ---------------------------------------------------------------------------------------------------- */

/* out = softmax(scale q k^T) v, head by head. logsumexp [n, heads, s], in base 2, is kept for the backward pass; NULL:
 * not wanted. */
bool draft_cpu_attention(struct draft_backend *backend, const struct draft_attention_shape *shape, const float *q,
                         const float *k, const float *v, float *out, float *logsumexp, struct draft_error *err);

/* A gradient buffer that is NULL is not computed. Buffers must differ from each other. */
struct draft_attention_gradients {
    float *dq, *dk, *dv;
    bool accumulate_q, accumulate_k, accumulate_v;
};
bool draft_cpu_attention_backward(struct draft_backend *backend, const struct draft_attention_shape *shape,
                                  const float *q, const float *k, const float *v, const float *out,
                                  const float *logsumexp, const float *dout,
                                  const struct draft_attention_gradients *gradients, struct draft_error *err);

/* --- Norms -------------------------------------------------------------------------------------------------------- */

struct draft_norm_gradients {
    float *dx, *dgamma, *dbeta; /* NULL: not wanted */
    bool accumulate_x, accumulate_gamma, accumulate_beta;
};

/* x, y [n, positions, c]; gamma, beta [c]; stats [n, groups, 2]: mean and 1 / sqrt(variance + eps), for backward.
 * Backward: dx may be dy itself. */
bool draft_cpu_group_norm(struct draft_backend *backend, const struct draft_group_norm_shape *shape, const float *x,
                          const float *gamma, const float *beta, float *y, float *stats, struct draft_error *err);
bool draft_cpu_group_norm_backward(struct draft_backend *backend, const struct draft_group_norm_shape *shape,
                                   const float *x, const float *gamma, const float *beta, const float *stats,
                                   const float *dy, const struct draft_norm_gradients *gradients,
                                   struct draft_error *err);

/* x, y [rows, c]; stats [rows, 2] as above. Backward: dx may be dy itself when dgamma and dbeta are not wanted. */
bool draft_cpu_layer_norm(struct draft_backend *backend, int64_t rows, int64_t c, float eps, const float *x,
                          const float *gamma, const float *beta, float *y, float *stats, struct draft_error *err);
bool draft_cpu_layer_norm_backward(struct draft_backend *backend, int64_t rows, int64_t c, const float *x,
                                   const float *gamma, const float *stats, const float *dy,
                                   const struct draft_norm_gradients *gradients, struct draft_error *err);

/* --- Elementwise: outputs may be one of the inputs (same index, never shifted) -------------------------------------
 */

void draft_cpu_map(struct draft_backend *backend, enum draft_map map, int64_t n, const float *x, float *y);
/* dx = dy map'(x) (+ dx) */
void draft_cpu_map_backward(struct draft_backend *backend, enum draft_map map, int64_t n, const float *x,
                            const float *dy, float *dx, bool accumulate);
/* x [rows, 2c] = (a, b) -> y [rows, c] = a gelu(b); dx [rows, 2c]. Here outputs must not overlap inputs. */
void draft_cpu_geglu(struct draft_backend *backend, int64_t rows, int64_t c, const float *x, float *y);
void draft_cpu_geglu_backward(struct draft_backend *backend, int64_t rows, int64_t c, const float *x, const float *dy,
                              float *dx, bool accumulate);
/* y = alpha a + beta b (+ y); b may be NULL */
void draft_cpu_axpby(struct draft_backend *backend, int64_t n, float alpha, const float *a, float beta, const float *b,
                     float *y, bool accumulate);

#endif
