#include "tensor/weights.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "tensor/pickle.h"
#include "tensor/safetensors.h"
#include "tensor/weight_source.h"

enum { MAX_SHARDS = 512 };

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

static bool no_memory(const char *shown, struct draft_error *err)
{
    return draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", shown);
}

static char *join(const char *folder, const char *name)
{
    char *path;
    return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

/* A file that is there: *path malloc'd. NULL without failure when it is not. */
static bool probe(const char *folder, const char *stem, const char *ending, char **path, struct draft_error *err)
{
    char *name;
    *path = NULL;
    if (asprintf(&name, "%s%s", stem, ending) < 0)
        return no_memory(folder, err);
    *path = join(folder, name);
    free(name);
    if (*path == NULL)
        return no_memory(folder, err);
    if (access(*path, F_OK) == 0)
        return true;
    free(*path);
    *path = NULL;
    return true;
}

static int entry_count(const struct shard *shard)
{
    return shard->part != NULL ? shard->part_count : draft_safetensors_count(shard->file);
}

static const struct draft_safetensors_entry *entry_at(const struct shard *shard, int index)
{
    return shard->part != NULL ? &shard->part[index] : draft_safetensors_at(shard->file, index);
}

static int by_entry_name(const void *name, const void *entry)
{
    return strcmp(name, ((const struct draft_safetensors_entry *)entry)->name);
}

static const struct draft_safetensors_entry *entry_named(const struct shard *shard, const char *name)
{
    if (shard->part == NULL)
        return draft_safetensors_find(shard->file, name);
    return bsearch(name, shard->part, (size_t)shard->part_count, sizeof *shard->part, by_entry_name);
}

static bool add_shard(struct draft_weights *weights, const char *path, const char *name, struct draft_error *err)
{
    struct shard *more = realloc(weights->shards, ((size_t)weights->shard_count + 1) * sizeof *more);
    if (more == NULL)
        return no_memory(path, err);
    weights->shards = more;
    struct shard *shard = &more[weights->shard_count];
    *shard = (struct shard){.file = draft_safetensors_open(path, err)};
    if (shard->file == NULL)
        return false;
    weights->shard_count++;
    if (weights->ldm && !draft_ldm_entries(shard->file, weights->part, &shard->part, &shard->part_count, err))
        return false;
    int count = entry_count(shard);
    shard->name = strdup(name);
    shard->taken = calloc(count > 0 ? (size_t)count : 1, sizeof *shard->taken);
    return (shard->name != NULL && shard->taken != NULL) || no_memory(path, err);
}

static struct shard *shard_named(struct draft_weights *weights, const char *name)
{
    for (int i = 0; i < weights->shard_count; i++)
        if (strcmp(weights->shards[i].name, name) == 0)
            return &weights->shards[i];
    return NULL;
}

/* A shard is a plain name beside the index: nothing that leads out of the folder. */
static bool shard_name_is_safe(const char *name)
{
    for (const char *p = name; *p != '\0'; p++)
        if (*p == '/' || (unsigned char)*p < 0x20 || *p == 0x7f)
            return false;
    return name[0] != '\0' && name[0] != '.' && strlen(name) <= 255;
}

struct index_visit {
    struct draft_weights *weights;
    const char *folder;
    struct draft_error *err;
};

static bool visit_mapping(void *context, const char *key, const char *name)
{
    struct index_visit *visit = context;
    struct draft_weights *weights = visit->weights;
    if (!shard_name_is_safe(name))
        return draft_fail(visit->err, DRAFT_INVALID_ARGUMENT,
                          "%s: weight_map gives a tensor a file that is no plain name in the same folder",
                          weights->shown);
    struct shard *shard = shard_named(weights, name);
    if (shard == NULL) {
        if (weights->shard_count == MAX_SHARDS)
            return draft_fail(visit->err, DRAFT_INVALID_ARGUMENT, "%s names more than %d files", weights->shown,
                              MAX_SHARDS);
        char *path = join(visit->folder, name);
        bool ok = path != NULL ? add_shard(weights, path, name, visit->err) : no_memory(visit->folder, visit->err);
        free(path);
        if (!ok) {
            draft_error_prefix(visit->err, "%s: ", weights->shown);
            return false;
        }
        shard = &weights->shards[weights->shard_count - 1];
    }
    if (draft_safetensors_find(shard->file, key) == NULL)
        return draft_fail(visit->err, DRAFT_INVALID_ARGUMENT,
                          "%s puts a tensor into %s that is not there; the files do not "
                          "belong together",
                          weights->shown, name);
    return true;
}

static bool refuse_doubles(const struct draft_weights *weights, struct draft_error *err)
{
    for (int a = 0; a < weights->shard_count; a++) {
        for (int i = 0; i < draft_safetensors_count(weights->shards[a].file); i++) {
            const char *name = draft_safetensors_at(weights->shards[a].file, i)->name;
            for (int b = a + 1; b < weights->shard_count; b++)
                if (draft_safetensors_find(weights->shards[b].file, name) != NULL)
                    return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: %s is in two of the files: %s and %s",
                                      weights->shown, name, draft_safetensors_path(weights->shards[a].file),
                                      draft_safetensors_path(weights->shards[b].file));
        }
    }
    return true;
}

static bool open_sharded(struct draft_weights *weights, const char *folder, struct draft_error *err)
{
    struct draft_json *index = draft_json_open(weights->shown, err);
    if (index == NULL)
        return false;
    struct draft_error why = {0};
    struct draft_json *map = draft_json_child(index, "weight_map", &why);
    bool ok = false;
    if (why.code != DRAFT_OK)
        draft_fail(err, why.code, "%s", why.message);
    else if (map == NULL)
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s has no weight_map", weights->shown);
    else
        ok = draft_json_each_string(map, &(struct index_visit){weights, folder, err}, visit_mapping, err) &&
             refuse_doubles(weights, err);
    draft_json_close(index);
    return ok;
}

static bool refuse_missing(const char *folder, const char *stem, struct draft_error *err)
{
    static const char *const pickles[] = {".bin", ".fp16.bin", ".ckpt", ".pth", ".msgpack"};
    if (access(folder, F_OK) != 0)
        return draft_fail_errno(err, "cannot open the model folder %s", folder);
    for (size_t i = 0; i < sizeof pickles / sizeof *pickles; i++) {
        char *path = NULL;
        const char *stems[] = {stem, "pytorch_model"};
        for (int s = 0; s < 2 && path == NULL; s++)
            if (!probe(folder, stems[s], pickles[i], &path, err))
                return false;
        if (path == NULL)
            continue;
        draft_refuse_pickle_in(folder, stem, strrchr(path, '/') + 1, err);
        free(path);
        return false;
    }
    return draft_fail(err, DRAFT_NOT_FOUND,
                      "%s has no %s.safetensors, %s.safetensors.index.json or %s.fp16.safetensors", folder, stem, stem,
                      stem);
}

static bool load(struct draft_weights *weights, const char *folder, const char *stem, struct draft_error *err)
{
    static const struct {
        const char *ending;
        bool sharded;
    } forms[] = {
        {".safetensors", false},
        {".safetensors.index.json", true},
        {".fp16.safetensors", false},
        {".safetensors.index.fp16.json", true},
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (!probe(folder, stem, forms[i].ending, &weights->shown, err))
            return false;
        if (weights->shown != NULL)
            return forms[i].sharded ? open_sharded(weights, folder, err)
                                    : add_shard(weights, weights->shown, weights->shown, err);
    }
    return refuse_missing(folder, stem, err);
}

struct draft_weights *draft_weights_open_ldm(const char *path, enum draft_ldm_part part, struct draft_arena *arena,
                                             struct draft_error *err)
{
    struct draft_weights *weights = calloc(1, sizeof *weights);
    if (weights == NULL || (weights->shown = strdup(path)) == NULL) {
        free(weights);
        no_memory(path, err);
        return NULL;
    }
    weights->arena = arena;
    weights->ldm = true;
    weights->part = part;
    if (add_shard(weights, path, path, err))
        return weights;
    draft_weights_close(weights);
    return NULL;
}

struct draft_weights *draft_weights_open(const char *folder, const char *stem, struct draft_arena *arena,
                                         struct draft_error *err)
{
    struct draft_weights *weights = calloc(1, sizeof *weights);
    if (weights == NULL) {
        no_memory(folder, err);
        return NULL;
    }
    weights->arena = arena;
    if (load(weights, folder, stem, err))
        return weights;
    draft_weights_close(weights);
    return NULL;
}

void draft_weights_close(struct draft_weights *weights)
{
    if (weights == NULL)
        return;
    for (int i = 0; i < weights->shard_count; i++) {
        draft_ldm_entries_free(weights->shards[i].part, weights->shards[i].part_count);
        if (!weights->shards[i].handed_over)
            draft_safetensors_close(weights->shards[i].file);
        free(weights->shards[i].name);
        free(weights->shards[i].taken);
    }
    for (int i = 0; i < weights->alias_count; i++) {
        free(weights->aliases[i].ours);
        free(weights->aliases[i].theirs);
    }
    free(weights->shards);
    free(weights->aliases);
    free(weights->shown);
    free(weights);
}

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
        const struct draft_safetensors_entry *entry = entry_named(&weights->shards[i], name);
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
        count += entry_count(&weights->shards[i]);
    return count;
}

const struct draft_safetensors_entry *draft_weights_at(const struct draft_weights *weights, int index)
{
    int shard = 0;
    for (; index >= entry_count(&weights->shards[shard]); shard++)
        index -= entry_count(&weights->shards[shard]);
    return entry_at(&weights->shards[shard], index);
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
    place->shard->taken[place->entry - entry_at(place->shard, 0)] = true;
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
        return no_memory(weights->shown, err);
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
        for (int j = 0; j < entry_count(&weights->shards[i]); j++)
            if (strncmp(entry_at(&weights->shards[i], j)->name, prefix, length) == 0)
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
        for (int j = 0; j < entry_count(shard); j++) {
            const struct draft_safetensors_entry *entry = entry_at(shard, j);
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
