/*
 * What a call carries besides its tensors (struct draft_call's args), in the order of ops.def: the wrapper in
 * ops/<op>.c fills it in, each backend's forward and backward read it. An op that is not here needs nothing, or one of
 * the kernels' own descriptions: conv2d, group_norm and attention their shape, activate its enum draft_map.
 */
#ifndef DRAFT_OPS_ARGS_H
#define DRAFT_OPS_ARGS_H

#include "backend/shapes.h"
#include "tensor/tensor.h"

struct draft_linear_args {
    int64_t m, k, o, r; /* r 0: no adapter */
    float scale;        /* the adapter's */
};

struct draft_linears_args {
    int count;
    struct draft_tensor *w[DRAFT_MAX_SIBLINGS], *down[DRAFT_MAX_SIBLINGS], *up[DRAFT_MAX_SIBLINGS];
    struct draft_linear_args each;
};

struct draft_row_layer; /* ops.h */
struct draft_row_linears_args {
    int count;
    const struct draft_row_layer *layer;
};
enum { DRAFT_ROW_ALIGNED = 8 }; /* numbers: each result begins at a multiple */

struct draft_layer_norm_args {
    float eps;
};

struct draft_axpby_args {
    float alpha, beta;
};

struct draft_combine_args {
    int i, j; /* of the numbers in c */
};

struct draft_scale_clamp_args {
    float scale, shift, lo, hi;
};

enum { DRAFT_NORMALIZE_CHANNELS = 4 }; /* at most */
struct draft_normalize_channels_args {
    int64_t c;
    float mean[DRAFT_NORMALIZE_CHANNELS], std[DRAFT_NORMALIZE_CHANNELS];
};

struct draft_slice_batch_args {
    int64_t offset; /* elements before the slice */
};

struct draft_slice_channels_args {
    int64_t first;
};

struct draft_crop_args {
    int64_t top, left;
};

struct draft_pad_args {
    int64_t top, left;
};

struct draft_max_pool_args {
    int64_t window, stride;
};

struct draft_timestep_embedding_args {
    float freq_shift;
    bool flip;
};

struct draft_jpeg_size_args {
    int quality;
};

#endif
