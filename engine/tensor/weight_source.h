/*
 * Where the values of a weight come from that keeps none in memory. A matrix that is only multiplied with is needed in
 * the backend's packed form alone; a copy beside it would be the model's size once more. Such a tensor has `data` NULL
 * and a `source`: an entry of an open safetensors file, read and widened to F32 whenever a form is made of it.
 *
 * Reading is by pread: a file that is cut short or written to meanwhile is an error sentence. The file is owned by the
 * arena the tensor lives in (draft_weights_take_lazy). Thread: any number may read.
 */
#ifndef DRAFT_TENSOR_WEIGHT_SOURCE_H
#define DRAFT_TENSOR_WEIGHT_SOURCE_H

#include "base/arena.h"
#include "tensor/safetensors.h"

struct draft_weight_source {
    struct draft_arena *arena; /* the tensor's */
    struct draft_safetensors_entry entry;
    int64_t first;    /* the tensor's values begin here in the entry's: a row range of a fused linear */
    bool convolution; /* the file has [o, i, kh, kw] where the tensor is [o, kh, kw, i] */
};

static inline bool draft_weight_is_there(const struct draft_tensor *w)
{
    return w->data != NULL || w->source != NULL;
}

/* Rows first .. first+count-1 along the first dimension, F32 in the tensor's layout, into out[count * row]: copied from
 * ->data or read from the source. */
bool draft_weight_rows(const struct draft_tensor *w, int64_t first, int64_t count, float *out, struct draft_error *err);

/* The source's file is as it was when it was opened. Asked after reading. True for a weight without source. */
bool draft_weight_unchanged(const struct draft_tensor *w, struct draft_error *err);

/* Gives a lazy weight its values, in its arena, and lets go of the source: for weights that are changed. Weights that
 * have values already stay as they are. */
bool draft_weight_materialize(struct draft_tensor *w, struct draft_error *err);

#endif
