/* The shapes and kinds that a kernel is told, the same for every backend. */
#ifndef DRAFT_BACKEND_SHAPES_H
#define DRAFT_BACKEND_SHAPES_H

#include <stdbool.h>
#include <stdint.h>

struct draft_conv_shape {
    int64_t n, h, w, c; /* input */
    int64_t o, kh, kw;  /* weight [o, kh, kw, c] */
    int64_t stride;
    int64_t pad_top, pad_left, pad_bottom, pad_right; /* zeros */
};

static inline int64_t draft_conv_out_h(const struct draft_conv_shape *s)
{
    return (s->h + s->pad_top + s->pad_bottom - s->kh) / s->stride + 1;
}

static inline int64_t draft_conv_out_w(const struct draft_conv_shape *s)
{
    return (s->w + s->pad_left + s->pad_right - s->kw) / s->stride + 1;
}

struct draft_attention_shape {
    int64_t n, s, t;  /* q, out [n, s, heads*d]; k, v [n, t, heads*d] */
    int64_t heads, d; /* d: of one head */
    bool causal;      /* position i sees j <= i; s == t */
    float scale;      /* usually 1 / sqrt(d) */
    int64_t out_row;  /* numbers from one row of out to the next where there is room behind each; 0: rows touch */
};

struct draft_group_norm_shape {
    int64_t n, positions, c, groups;
    float eps;
    bool silu; /* y = silu(norm(x)) */
};

enum draft_map { DRAFT_MAP_SILU, DRAFT_MAP_GELU, DRAFT_MAP_QUICK_GELU, DRAFT_MAP_RELU }; /* gelu: exact, with erf */

/* The constants of ops/jpeg_size.c's estimate at one quality; arrays of two: luma, chroma. */
struct draft_jpeg_model {
    float steepness, half_nonzero, header_bytes;
    float nonzero[2], magnitude[2], run[2], end[2]; /* prices of AC */
    float dc_nonzero, dc_magnitude;
    float step[2][64]; /* quantisation, in zigzag order */
    double cosine[64]; /* the DCT's matrix */
    double colour[9];  /* RGB -> YCbCr */
    unsigned char zigzag[64];
};

/* What an update of the parameters is asked beside its numbers; all where values live. */
struct draft_guard {
    const float *finite; /* [count]: the update is left out when one of these is not, as when the norm is not */
    int64_t count;       /* may be 0 */
    double *norm;        /* told the gradients' norm, before clipping; may be NULL */
};

#endif
