/* Which files a checkpoint is: one, its shards by an index, or a part of a single file; each opened, or refused by
 * name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "tensor/pickle.h"
#include "tensor/weights_state.h"

enum { MAX_SHARDS = 512 };

static bool no_memory(const char *shown, struct draft_error *err)
{
    return draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", shown);
}

static char *join(const char *folder, const char *name)
{
    char *path;
    return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

/* A file that is there: *path malloc'd. NULL without failure when it is not. A link to nothing is there: opening it
 * says what is wrong. */
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
    struct stat status;
    if (lstat(*path, &status) == 0)
        return true;
    free(*path);
    *path = NULL;
    return true;
}

int draft_shard_count(const struct shard *shard)
{
    return shard->part != NULL ? shard->part_count : draft_safetensors_count(shard->file);
}

const struct draft_safetensors_entry *draft_shard_entry(const struct shard *shard, int index)
{
    return shard->part != NULL ? &shard->part[index] : draft_safetensors_at(shard->file, index);
}

static int by_entry_name(const void *name, const void *entry)
{
    return strcmp(name, ((const struct draft_safetensors_entry *)entry)->name);
}

const struct draft_safetensors_entry *draft_shard_find(const struct shard *shard, const char *name)
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
    int count = draft_shard_count(shard);
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
