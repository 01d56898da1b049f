/*
 * Every op, as a typed wrapper. One op = one file ops/<op>.c (formulas, shapes, forward, backward, descriptor), one
 * line in ops.def, one prototype here, and its test tests/engine/ops/test_<op>.c with finite differences.
 *
 * All wrappers: shapes in comments; result in the step arena; NULL once the graph has failed; a wrong shape fails the
 * graph with a sentence naming the op and both shapes (that is a model file's fault as often as ours).
 */
#ifndef DRAFT_OPS_OPS_H
#define DRAFT_OPS_OPS_H

#include "autograd/graph.h"

/* A low-rank adapter of one linear layer: y += scale * (x down^T) up^T  (Hu et al. 2021). Off: nothing is added. */
struct draft_lora {
    struct draft_tensor *down; /* [r, in] */
    struct draft_tensor *up;   /* [out, r] */
    const float *scale;        /* alpha / r times the adapter's strength; shared by the whole adapter */
    const bool *on;            /* shared by the whole adapter */
};

enum draft_activation { DRAFT_SILU, DRAFT_GELU, DRAFT_QUICK_GELU, DRAFT_RELU };

/* y = x W^T + b (+ LoRA).  x [..., k], w [o, k] (or [o, 1, 1, k]), b [o] or NULL -> [..., o].
 * backward: dx = dy W, dW = dy^T x, db = sum dy, and the adapter's. */
struct draft_tensor *draft_linear(struct draft_graph *g, struct draft_tensor *x, struct draft_tensor *w,
                                  struct draft_tensor *b, const struct draft_lora *lora);
/* The same + residual, in one go: [..., o], or for a single row also a weight [o]; NULL: none. */
struct draft_tensor *draft_linear_onto(struct draft_graph *g, struct draft_tensor *residual, struct draft_tensor *x,
                                       struct draft_tensor *w, struct draft_tensor *b, const struct draft_lora *lora);

struct draft_projection {
    struct draft_tensor *weight; /* [o, k] */
    const struct draft_lora *lora;
};
/* y[i] = draft_linear() of layer i, without bias, count <= DRAFT_MAX_SIBLINGS layers of one shape and one x:
 * attention's q, k and v. Without gradient that is one op, and one product where weights and adapters' downs are
 * siblings (draft_tensor) and x has room for every adapter's rank behind its rows. */
void draft_linears(struct draft_graph *g, struct draft_tensor *x, const struct draft_projection *layer, int count,
                   struct draft_tensor **y);

struct draft_row_layer {
    struct draft_tensor *weight, *bias, *more; /* [o, k], [o] and [o] */
};
/* y[i] [o_i] = W_i x + b_i + c_i, x [1, k]: what the time embedding gives to every ResNet block. Without gradient that
 * is one op. */
void draft_row_linears(struct draft_graph *g, struct draft_tensor *x, const struct draft_row_layer *layer, int count,
                       struct draft_tensor **y);

struct draft_conv2d_args {
    int stride;
    int pad_top, pad_left, pad_bottom, pad_right; /* zeros */
};
/* x [n, h, w, c], w [o, kh, kw, c], b [o], a weight or an activation, or NULL -> [n, oh, ow, o] */
struct draft_tensor *draft_conv2d(struct draft_graph *g, struct draft_tensor *x, struct draft_tensor *w,
                                  struct draft_tensor *b, const struct draft_conv2d_args *args);
/* The same + residual [n, oh, ow, o], in one go; NULL: none. */
struct draft_tensor *draft_conv2d_onto(struct draft_graph *g, struct draft_tensor *residual, struct draft_tensor *x,
                                       struct draft_tensor *w, struct draft_tensor *b,
                                       const struct draft_conv2d_args *args);

/* x [n, h, w, c] or [n, s, c]; statistics over (positions, c/groups); then SiLU when `silu`. */
struct draft_tensor *draft_group_norm(struct draft_graph *g, struct draft_tensor *x, struct draft_tensor *gamma,
                                      struct draft_tensor *beta, int groups, float eps, bool silu);
/* over the last dimension */
struct draft_tensor *draft_layer_norm(struct draft_graph *g, struct draft_tensor *x, struct draft_tensor *gamma,
                                      struct draft_tensor *beta, float eps);
struct draft_tensor *draft_activate(struct draft_graph *g, struct draft_tensor *x, enum draft_activation kind);
/* x [..., 2c] = (a, b) -> a * gelu(b), exact erf (diffusers' GEGLU) */
struct draft_tensor *draft_geglu(struct draft_graph *g, struct draft_tensor *x);

/* Multi-head softmax(q k^T / sqrt(d)) v; q [n, s, heads*d], k and v [n, t, heads*d] -> [n, s, heads*d].
 * causal: position i sees j <= i (s == t). */
struct draft_tensor *draft_attention(struct draft_graph *g, struct draft_tensor *q, struct draft_tensor *k,
                                     struct draft_tensor *v, int heads, bool causal);
/* The same with keys that are padded: of sample i the first lengths[i] take part, from 1 to t. lengths F32 [n], no
 * gradient, read when it is run again. */
struct draft_tensor *draft_attention_padded(struct draft_graph *g, struct draft_tensor *q, struct draft_tensor *k,
                                            struct draft_tensor *v, struct draft_tensor *lengths, int heads);

struct draft_tensor *draft_add(struct draft_graph *g, struct draft_tensor *a, struct draft_tensor *b); /* same shape */
/* x [n, s, c] + table [s', c], rows 0 .. s-1 (positions); the table is a weight */
struct draft_tensor *draft_add_positions(struct draft_graph *g, struct draft_tensor *x, struct draft_tensor *table);
/* alpha * a + beta * b, b may be NULL: DDIM steps, guidance, scalings */
struct draft_tensor *draft_axpby(struct draft_graph *g, float alpha, struct draft_tensor *a, float beta,
                                 struct draft_tensor *b);
/* x's numbers as F32 or BF16; x itself where they are that already. A network converts to g->activations at its
 * entrance and to F32 at its exit. Every other op computes in the type of its activations and gives out that, losses
 * and means F32; weights are F32 for the caller whatever the activations are. */
struct draft_tensor *draft_convert(struct draft_graph *g, struct draft_tensor *x, enum draft_dtype dtype);
/* c[i] * a + c[j] * b, b may be NULL; c F32 [numbers], no gradient: axpby whose numbers are read when it is run again
 */
struct draft_tensor *draft_combine(struct draft_graph *g, struct draft_tensor *c, int i, struct draft_tensor *a, int j,
                                   struct draft_tensor *b);
/* clip(scale * x + shift, lo, hi); gradient zero outside [lo, hi] (torch.clamp passes it at the bounds themselves) */
struct draft_tensor *draft_scale_clamp(struct draft_graph *g, struct draft_tensor *x, float scale, float shift,
                                       float lo, float hi);
/* (x - mean_c) / std_c per channel; x [n, h, w, c], c <= 4 */
struct draft_tensor *draft_normalize_channels(struct draft_graph *g, struct draft_tensor *x, const float *mean,
                                              const float *std);

struct draft_tensor *draft_concat_channels(struct draft_graph *g, struct draft_tensor *a,
                                           struct draft_tensor *b); /* last dim */
struct draft_tensor *draft_concat_batch(struct draft_graph *g, struct draft_tensor *a,
                                        struct draft_tensor *b); /* first dim */
/* rows first .. first+count-1 of the first dimension (a view; backward adds into place) */
struct draft_tensor *draft_slice_batch(struct draft_graph *g, struct draft_tensor *x, int64_t first, int64_t count);
/* channels first .. first+count-1 of the last dimension */
struct draft_tensor *draft_slice_channels(struct draft_graph *g, struct draft_tensor *x, int64_t first, int64_t count);
/* the same memory under another shape of equal count */
struct draft_tensor *draft_reshape(struct draft_graph *g, struct draft_tensor *x, int rank, const int64_t *dim);
/* a class token [c] before x [n, s, c] -> [n, s+1, c] */
struct draft_tensor *draft_prepend_token(struct draft_graph *g, struct draft_tensor *token, struct draft_tensor *x);
/* row index[i] of x[i]; x [n, s, c] -> [n, c] (pooling at the end-of-text token). index NULL: the first of each (the
 * class token). */
struct draft_tensor *draft_select_token(struct draft_graph *g, struct draft_tensor *x, const int32_t *index);
/* table [v, c], ids I32 [n, s] -> [n, s, c]; ids are checked against v */
struct draft_tensor *draft_embedding(struct draft_graph *g, struct draft_tensor *table, struct draft_tensor *ids);

struct draft_tensor *draft_upsample_nearest(struct draft_graph *g, struct draft_tensor *x, int64_t h, int64_t w);
/* interpolate(mode="bicubic", antialias=True, align_corners=False): a = -0.5, separable */
struct draft_tensor *draft_resize_bicubic(struct draft_graph *g, struct draft_tensor *x, int64_t h, int64_t w);
/* x [n, h, w, c] -> [n, height, width, c] from (top, left) */
struct draft_tensor *draft_crop(struct draft_graph *g, struct draft_tensor *x, int64_t top, int64_t left,
                                int64_t height, int64_t width);
/* x [n, h, w, c] -> [n, height, width, c] at (top, left), zeros around it */
struct draft_tensor *draft_pad(struct draft_graph *g, struct draft_tensor *x, int64_t top, int64_t left, int64_t height,
                               int64_t width);
struct draft_tensor *draft_max_pool(struct draft_graph *g, struct draft_tensor *x, int window, int stride);

/* cosine of rows: a, b [n, c] -> [n] */
struct draft_tensor *draft_cosine(struct draft_graph *g, struct draft_tensor *a, struct draft_tensor *b);
/* mean of everything -> [1]; accumulated in double */
struct draft_tensor *draft_mean(struct draft_graph *g, struct draft_tensor *x);
/* mean (a - b)^2 -> [1] */
struct draft_tensor *draft_mean_square_difference(struct draft_graph *g, struct draft_tensor *a,
                                                  struct draft_tensor *b);
/* diffusers' Timesteps: t [1] -> [n, dim] sinusoids, flip_sin_to_cos, freq_shift; no gradient */
struct draft_tensor *draft_timestep_embedding(struct draft_graph *g, struct draft_tensor *t, int64_t n, int64_t dim,
                                              bool flip_sin_to_cos, double freq_shift);

/* A differentiable estimate of the JPEG size of x [n, h, w, 3] in [0, 1], in kB -> [n]: RGB to YCbCr, 2x2 chroma means,
 * 8x8 DCT, the quality's tables, soft rounding, rate (reference: rewards). h, w any; edges replicated to blocks. */
struct draft_tensor *draft_jpeg_size(struct draft_graph *g, struct draft_tensor *x, int quality);

/* LPIPS: features x [n, h, w, c] at one stage and its layer's weights linear [c] -> vectors [n, h w c], whose squared
 * distances are that stage's terms; no gradient */
struct draft_tensor *draft_lpips_stage(struct draft_graph *g, struct draft_tensor *x, struct draft_tensor *linear);
/* squared distances of all pairs of rows: x [n, length] -> [n, n]; no gradient */
struct draft_tensor *draft_pair_distances(struct draft_graph *g, struct draft_tensor *x);

#endif
