/*
 * Tensors: a shape over memory that somebody else owns. Activations are F32, or BF16 where a backend computes in it,
 * and live in the step arena; weights and parameters are F32, live in the engine's arena and carry their checkpoint key
 * as name.
 *
 * Layout: images are NHWC [n, h, w, c], so the same memory is a token sequence [n, h*w, c]. Linear weights are
 * [out, in], convolution weights [out, kh, kw, in] (re-laid once, at load, from the checkpoint's [out, in, kh, kw]).
 * All tensors are contiguous, but for activations with room behind their rows (draft_new_rows).
 */
#ifndef DRAFT_TENSOR_TENSOR_H
#define DRAFT_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

enum draft_dtype { DRAFT_F32, DRAFT_F16, DRAFT_BF16, DRAFT_I32, DRAFT_I64, DRAFT_F64 };

enum { DRAFT_MAX_RANK = 4 };

/* Matrices of one shape that a product reads at once, if a backend puts them side by side. */
enum { DRAFT_MAX_SIBLINGS = 3 };
struct draft_siblings {
    int count;
    struct draft_tensor *tensor[DRAFT_MAX_SIBLINGS];
};

struct draft_tensor {
    enum draft_dtype dtype;
    int rank;
    int64_t dim[DRAFT_MAX_RANK];
    void *data;       /* NULL: a weight that keeps no values (weight_source.h) */
    const char *name; /* checkpoint key of a weight or parameter; NULL for an activation */
    bool needs_grad;  /* a trained parameter, or an activation that depends on one */
    void *grad;       /* same shape, same dtype; NULL until first written (parameters: until the trainer provides it) */
    bool grad_written;       /* false: the next backward writes (overwrites); true: it adds */
    int64_t row;             /* numbers from one row to the next where there is room behind each; 0: rows touch */
    struct draft_tensor *up; /* of a frozen matrix with an adapter: the adapter's [out, r]; else NULL */
    const struct draft_siblings *siblings; /* it is one of; NULL: of none */
    void *prepared; /* the backend's own form of a frozen weight (packed panels); owned by the backend */
    const struct draft_weight_source *source; /* of a weight without data */
    bool every_step; /* a weight used at every denoising step, many times a training step: worth keeping packed */
    int tape_level;  /* the tape's: 0 for a leaf (weight, input); else the depth of the tape that recorded it */
    struct draft_values *values; /* the tape's: of an activation made while recording, how long its memory is needed */
};

static inline int64_t draft_tensor_count(const struct draft_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->dim[i];
    return n;
}

static inline float *draft_f32(const struct draft_tensor *t)
{
    return (float *)t->data; /* the cast is for C++, which the .cu files are */
}

/* The gradient of an F32 tensor. */
static inline float *draft_grad_f32(const struct draft_tensor *t)
{
    return (float *)t->grad;
}

size_t draft_dtype_size(enum draft_dtype dtype);      /* bytes of an element */
const char *draft_dtype_name(enum draft_dtype dtype); /* "F32" as safetensors spells it */
/* "[2, 16, 16, 64]" into a buffer; returns the buffer. */
const char *draft_shape_text(int rank, const int64_t *dim, char *buffer, size_t size);

#endif
