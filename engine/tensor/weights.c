#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/weight_source.h"
#include "tensor/weights_state.h"

void draft_weights_alias(struct draft_weights *weights, const char *ours, const char *theirs)
{
    struct alias *more = realloc(weights->aliases, ((size_t)weights->alias_count + 1) * sizeof *more);
    if (more == NULL)
        return; /* the key is then reported as absent */
    weights->aliases = more;
    struct alias alias = {strdup(ours), strdup(theirs)};
    if (alias.ours == NULL || alias.theirs == NULL) {
        free(alias.ours);
        free(alias.theirs);
        return;
    }
    weights->aliases[weights->alias_count++] = alias;
}

/* Where an entry stands: its shard and its place there. */
struct place {
    struct shard *shard;
    const struct draft_safetensors_entry *entry;
};

static struct place find_exact(const struct draft_weights *weights, const char *name)
{
    for (int i = 0; i < weights->shard_count; i++) {
        const struct draft_safetensors_entry *entry = draft_shard_find(&weights->shards[i], name);
        if (entry != NULL)
            return (struct place){&weights->shards[i], entry};
    }
    return (struct place){NULL, NULL};
}

static struct place find(const struct draft_weights *weights, const char *name)
{
    struct place place = find_exact(weights, name);
    for (int i = 0; i < weights->alias_count && place.entry == NULL; i++) {
        const struct alias *alias = &weights->aliases[i];
        size_t length = strlen(alias->ours);
        if (strncmp(name, alias->ours, length) != 0)
            continue;
        char *theirs;
        if (asprintf(&theirs, "%s%s", alias->theirs, name + length) < 0)
            continue;
        place = find_exact(weights, theirs);
        free(theirs);
    }
    return place;
}

bool draft_weights_has(const struct draft_weights *weights, const char *name)
{
    return find(weights, name).entry != NULL;
}

const struct draft_safetensors *draft_weights_file(const struct draft_weights *weights)
{
    return weights->shards[0].file;
}

int draft_weights_count(const struct draft_weights *weights)
{
    int count = 0;
    for (int i = 0; i < weights->shard_count; i++)
        count += draft_shard_count(&weights->shards[i]);
    return count;
}

const struct draft_safetensors_entry *draft_weights_at(const struct draft_weights *weights, int index)
{
    int shard = 0;
    for (; index >= draft_shard_count(&weights->shards[shard]); shard++)
        index -= draft_shard_count(&weights->shards[shard]);
    return draft_shard_entry(&weights->shards[shard], index);
}

bool draft_weights_shape(const struct draft_weights *weights, const char *name, int *rank, int64_t dim[8])
{
    const struct draft_safetensors_entry *entry = find(weights, name).entry;
    if (entry == NULL)
        return false;
    *rank = entry->rank;
    memcpy(dim, entry->dim, sizeof entry->dim);
    return true;
}

static bool check_shape(const struct draft_safetensors_entry *entry, int rank, const int64_t *dim,
                        struct draft_error *err)
{
    bool same = entry->rank == rank;
    for (int i = 0; same && i < rank; i++)
        same = entry->dim[i] == dim[i];
    if (same)
        return true;
    char found[160], expected[160];
    return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: %s is %s, expected %s", draft_safetensors_path(entry->file),
                      entry->name, draft_shape_text(entry->rank, entry->dim, found, sizeof found),
                      draft_shape_text(rank, dim, expected, sizeof expected));
}

static void arena_full(const struct draft_weights *weights, const char *name, size_t bytes, struct draft_error *err)
{
    draft_arena_fail(weights->arena, bytes, err);
    draft_error_prefix(err, "%s: %s: ", weights->shown, name);
}

/* A tensor of this shape without values, whose entry is there, has the shape and is finite. */
static struct draft_tensor *describe(struct draft_weights *weights, const char *name, int rank, const int64_t *dim,
                                     struct place *place, struct draft_error *err)
{
    assert(rank >= 0 && rank <= DRAFT_MAX_RANK);
    *place = find(weights, name);
    if (place->entry == NULL) {
        char expected[160];
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: no tensor %s, expected one of shape %s", weights->shown, name,
                   draft_shape_text(rank, dim, expected, sizeof expected));
        return NULL;
    }
    if (!check_shape(place->entry, rank, dim, err) || !draft_safetensors_check_finite(place->entry, err))
        return NULL;
    struct draft_tensor *tensor = draft_arena_alloc(weights->arena, sizeof *tensor);
    char *key = draft_arena_strdup(weights->arena, name);
    if (tensor == NULL || key == NULL) {
        arena_full(weights, name, sizeof *tensor, err);
        return NULL;
    }
    *tensor = (struct draft_tensor){.dtype = DRAFT_F32, .rank = rank, .name = key};
    memcpy(tensor->dim, dim, (size_t)rank * sizeof *dim);
    place->shard->taken[place->entry - draft_shard_entry(place->shard, 0)] = true;
    return tensor;
}

struct draft_tensor *draft_weights_take(struct draft_weights *weights, const char *name, int rank, const int64_t *dim,
                                        struct draft_error *err)
{
    struct place place;
    struct draft_tensor *tensor = describe(weights, name, rank, dim, &place, err);
    if (tensor == NULL)
        return NULL;
    size_t bytes = (size_t)draft_tensor_count(tensor) * sizeof(float); /* fits: the file's shape is the same */
    tensor->data = draft_arena_alloc(weights->arena, bytes);
    if (tensor->data == NULL) {
        arena_full(weights, name, bytes, err);
        return NULL;
    }
    return draft_safetensors_to_f32(place.entry, tensor->data, err) ? tensor : NULL;
}

static void close_file(void *file)
{
    draft_safetensors_close(file);
}

/* From here on the arena closes the shard's file. */
static bool hand_over(struct draft_weights *weights, struct shard *shard, struct draft_error *err)
{
    if (!shard->handed_over && !draft_arena_own(weights->arena, close_file, shard->file))
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", weights->shown);
    shard->handed_over = true;
    return true;
}

static struct draft_tensor *take_lazy(struct draft_weights *weights, const char *name, int rank, const int64_t *dim,
                                      bool convolution, struct draft_error *err)
{
    struct place place;
    struct draft_tensor *tensor = describe(weights, name, rank, dim, &place, err);
    if (tensor == NULL || !hand_over(weights, place.shard, err))
        return NULL;
    struct draft_weight_source *source = draft_arena_alloc(weights->arena, sizeof *source);
    char *key = draft_arena_strdup(weights->arena, place.entry->name);
    if (source == NULL || key == NULL) {
        arena_full(weights, name, sizeof *source, err);
        return NULL;
    }
    *source = (struct draft_weight_source){weights->arena, *place.entry, 0, convolution};
    source->entry.name = key; /* a single file's renamed entries go with `weights` */
    tensor->source = source;
    return tensor;
}

struct draft_tensor *draft_weights_take_lazy(struct draft_weights *weights, const char *name, int rank,
                                             const int64_t *dim, struct draft_error *err)
{
    return take_lazy(weights, name, rank, dim, false, err);
}

struct draft_tensor *draft_weights_take_lazy_conv(struct draft_weights *weights, const char *name, int64_t o, int64_t i,
                                                  int64_t kh, int64_t kw, struct draft_error *err)
{
    struct draft_tensor *tensor = take_lazy(weights, name, 4, (int64_t[]){o, i, kh, kw}, true, err);
    if (tensor == NULL)
        return NULL;
    tensor->dim[1] = kh;
    tensor->dim[2] = kw;
    tensor->dim[3] = i;
    return tensor;
}

void draft_weights_leave(struct draft_weights *weights, const char *prefix)
{
    size_t length = strlen(prefix);
    for (int i = 0; i < weights->shard_count; i++)
        for (int j = 0; j < draft_shard_count(&weights->shards[i]); j++)
            if (strncmp(draft_shard_entry(&weights->shards[i], j)->name, prefix, length) == 0)
                weights->shards[i].taken[j] = true;
}

static bool is_inert(const char *name, const char *const *inert)
{
    for (; inert != NULL && *inert != NULL; inert++) {
        size_t length = strlen(name), ending = strlen(*inert);
        if (length >= ending && strcmp(name + length - ending, *inert) == 0)
            return true;
    }
    return false;
}

bool draft_weights_finish(struct draft_weights *weights, const char *const *inert, struct draft_error *err)
{
    const struct draft_safetensors_entry *first = NULL;
    int unused = 0;
    for (int i = 0; i < weights->shard_count; i++) {
        const struct shard *shard = &weights->shards[i];
        for (int j = 0; j < draft_shard_count(shard); j++) {
            const struct draft_safetensors_entry *entry = draft_shard_entry(shard, j);
            if (shard->taken[j] || is_inert(entry->name, inert))
                continue;
            first = first != NULL ? first : entry;
            unused++;
        }
    }
    if (unused == 0)
        return true;
    char shape[160];
    return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                      "%s: %s %s is not part of this model (%d such tensors); ignoring it might change the result",
                      draft_safetensors_path(first->file), first->name,
                      draft_shape_text(first->rank, first->dim, shape, sizeof shape), unused);
}
