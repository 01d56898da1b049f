/*
 * The weights of one model folder: `<stem>.safetensors`, or `<stem>.safetensors.index.json` with its shards, or the
 * fp16 variant `<stem>.fp16.safetensors`. A model takes each tensor by its checkpoint key and shape; at the end
 * draft_weights_finish() refuses what nobody took. Taken tensors are F32 and live in `arena`.
 */
#ifndef DRAFT_TENSOR_WEIGHTS_H
#define DRAFT_TENSOR_WEIGHTS_H

#include "base/arena.h"
#include "tensor/ldm_names.h"
#include "tensor/tensor.h"

struct draft_weights;

struct draft_weights *draft_weights_open(const char *folder, const char *stem, struct draft_arena *arena,
                                         struct draft_error *err);
/* One part of a single-file checkpoint with the original names, by diffusers' names. */
struct draft_weights *draft_weights_open_ldm(const char *path, enum draft_ldm_part part, struct draft_arena *arena,
                                             struct draft_error *err);
void draft_weights_close(struct draft_weights *weights); /* taken tensors stay */

/* Keys may be asked for under an alias: when a wanted key begins with `ours`, it is looked for with `theirs` in its
 * place too ("text_model." against ""; the VAE's old "query" against "to_q"). Call before the first take. */
void draft_weights_alias(struct draft_weights *weights, const char *ours, const char *theirs);

bool draft_weights_has(const struct draft_weights *weights, const char *name);
const struct draft_safetensors *draft_weights_file(const struct draft_weights *weights); /* the first, if sharded */
/* Every tensor there is, in no particular order, by the names that aliases do not change. */
int draft_weights_count(const struct draft_weights *weights);
const struct draft_safetensors_entry *draft_weights_at(const struct draft_weights *weights, int index);
/* The shape that the file gives it; false when it is not there. */
bool draft_weights_shape(const struct draft_weights *weights, const char *name, int *rank, int64_t dim[8]);

/* The tensor `name` of exactly this shape, as F32. An absent key, another shape, a dtype that is not a float, or a
 * non-finite value: NULL, with a sentence that names file, key, expected and found. */
struct draft_tensor *draft_weights_take(struct draft_weights *weights, const char *name, int rank, const int64_t *dim,
                                        struct draft_error *err);

/* The same, checked alike but without values in memory (tensor/weight_source.h): for matrices that are only multiplied
 * with. The file stays open as long as the arena. Convolution weights have the checkpoint's shape [o, i, kh, kw] and
 * come back as [o, kh, kw, i]. */
struct draft_tensor *draft_weights_take_lazy(struct draft_weights *weights, const char *name, int rank,
                                             const int64_t *dim, struct draft_error *err);
struct draft_tensor *draft_weights_take_lazy_conv(struct draft_weights *weights, const char *name, int64_t o, int64_t i,
                                                  int64_t kh, int64_t kw, struct draft_error *err);

/* Tensors under `prefix` belong to a part that is loaded by itself or not at all: draft_weights_finish() passes them
 * by. */
void draft_weights_leave(struct draft_weights *weights, const char *prefix);

/* Refuses tensors that nobody took, except those whose key ends with one of `inert` (NULL-terminated; "position_ids").
 */
bool draft_weights_finish(struct draft_weights *weights, const char *const *inert, struct draft_error *err);

#endif
