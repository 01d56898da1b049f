/*
 * A weighted sum of LoRA files as one LoRA file with kohya's names. Exact: the ranks of a layer are laid one after the
 * other (down's rows, up's columns), so that up x down is the sum; weight and alpha / rank are multiplied into up, and
 * the alpha written is the new rank. Layers that only some files have are kept.
 */
#ifndef DRAFT_TENSOR_LORA_MERGE_H
#define DRAFT_TENSOR_LORA_MERGE_H

#include "base/error.h"

enum { DRAFT_LORA_MERGE_MAX = 32 };

/* `count` files, 1 to DRAFT_LORA_MERGE_MAX. Refused: a file that is no LoRA, a layer with two shapes, a sum of ranks
 * above DRAFT_LORA_MAX_RANK, numbers that 16-bit floats cannot hold (f32 false). Equal input gives equal bytes. */
bool draft_lora_merge_files(const char *const *paths, const double *weights, int count, const char *out, bool f32,
                            struct draft_error *err);

#endif
