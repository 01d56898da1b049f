/* What an open checkpoint is made of: found and opened by weights_open.c, given out by weights.c. */
#ifndef DRAFT_TENSOR_WEIGHTS_STATE_H
#define DRAFT_TENSOR_WEIGHTS_STATE_H

#include "tensor/safetensors.h"
#include "tensor/weights.h"

struct shard {
    struct draft_safetensors *file;
    bool handed_over; /* lazy tensors read it: the arena closes it */
    char *name;       /* as the index spells it */
    bool *taken;
    struct draft_safetensors_entry *part; /* one part of a single-file checkpoint under diffusers' names; NULL: all */
    int part_count;
};

struct alias {
    char *ours, *theirs;
};

struct draft_weights {
    char *shown; /* the file a sentence names: the one file, or the index */
    struct draft_arena *arena;
    struct shard *shards;
    int shard_count;
    struct alias *aliases;
    int alias_count;
    bool ldm; /* one part of a single-file checkpoint with the original names */
    enum draft_ldm_part part;
};

/* The entries of a shard: of its whole file, or of the one part under diffusers' names. */
int draft_shard_count(const struct shard *shard);
const struct draft_safetensors_entry *draft_shard_entry(const struct shard *shard, int index);
const struct draft_safetensors_entry *draft_shard_find(const struct shard *shard, const char *name); /* NULL: none */

#endif
