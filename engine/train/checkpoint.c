#include "train/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char FORMAT[] = "draftd checkpoint 1";
enum { TENSORS_PER_MODULE = 6, MAX_NAME = 512, PAIRS = 9, TEXT = 64 };

/* --- Names -------------------------------------------------------------------------------------------------------- */

/* Tensor `part` of an adapter entry: its name, its shape's tensor and its values. */
static float *part_of(const struct draft_adapter *adapter, const struct draft_adamw *opt, int module, int part,
                      char *name, const struct draft_tensor **shape)
{
    static const char *const suffix[TENSORS_PER_MODULE] = {"down", "up", "down.m", "down.v", "up.m", "up.v"};
    const struct draft_adapter_entry *entry = &adapter->entry[module];
    snprintf(name, MAX_NAME, "%s/%s.%s", part < 2 ? "lora" : "adam", entry->module, suffix[part]);
    bool up = part == 1 || part >= 4;
    int place = 2 * module + up;
    *shape = up ? entry->lora.up : entry->lora.down;
    if (part < 2)
        return draft_f32(*shape);
    return part % 2 == 0 ? opt->m[place] : opt->v[place];
}

/* --- Metadata and checksum ---------------------------------------------------------------------------------------- */

/* The pairs before "draftd.checksum", in a fixed order. */
struct metadata {
    char value[PAIRS][TEXT];
    const char *pair[2 * (PAIRS + 1) + 1];
};
static const char *const key[PAIRS] = {
    "draftd.format", "draftd.step",   "draftd.updates",      "draftd.bad_steps",  "draftd.rank",
    "draftd.alpha",  "draftd.config", "draftd.architecture", "draftd.prediction",
};
static const char CHECKSUM_KEY[] = "draftd.checksum";

static void describe(const struct draft_checkpoint_info *info, struct metadata *m)
{
    snprintf(m->value[0], TEXT, "%s", FORMAT);
    snprintf(m->value[1], TEXT, "%" PRId64, info->step);
    snprintf(m->value[2], TEXT, "%" PRId64, info->updates);
    snprintf(m->value[3], TEXT, "%d", info->bad_steps);
    snprintf(m->value[4], TEXT, "%d", info->rank);
    snprintf(m->value[5], TEXT, "%.17g", info->alpha);
    snprintf(m->value[6], TEXT, "%s", info->config);
    snprintf(m->value[7], TEXT, "%s", info->architecture);
    snprintf(m->value[8], TEXT, "%s", info->prediction);
    for (int i = 0; i < PAIRS; i++) {
        m->pair[2 * i] = key[i];
        m->pair[2 * i + 1] = m->value[i];
    }
}

static size_t numbers(const struct draft_checkpoint_tensor *t)
{
    size_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= (size_t)t->dim[i];
    return n;
}

static void sum_text(struct draft_checksum *sum, const char *text)
{
    draft_checksum_add(sum, text, strlen(text) + 1);
}

static bool checksum(const char *const *value, const struct draft_checkpoint_tensor *tensor, int count,
                     char hex[DRAFT_CHECKSUM_SIZE], struct draft_error *err)
{
    struct draft_checksum *sum = draft_checksum_start();
    if (!sum)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for a checksum");
    for (int i = 0; i < PAIRS; i++)
        sum_text(sum, value[i] ? value[i] : "");
    for (int i = 0; i < count; i++) {
        sum_text(sum, tensor[i].name);
        draft_checksum_add(sum, tensor[i].dim, (size_t)tensor[i].rank * sizeof *tensor[i].dim);
        draft_checksum_add(sum, tensor[i].data, numbers(&tensor[i]) * sizeof(float));
    }
    draft_checksum_finish(sum, hex);
    return true;
}

static bool all_finite(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* --- Saving ------------------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct draft_checkpoint_tensor *)a)->name, ((const struct draft_checkpoint_tensor *)b)->name);
}

/* Everything to be written, in name order; the data stays where it is. */
static bool gather(const struct draft_adapter *adapter, const struct draft_adamw *opt,
                   struct draft_checkpoint_tensor *tensor, char (*name)[MAX_NAME], struct draft_error *err)
{
    int count = adapter->count * TENSORS_PER_MODULE;
    for (int i = 0; i < count; i++) {
        const struct draft_tensor *shape;
        float *data = part_of(adapter, opt, i / TENSORS_PER_MODULE, i % TENSORS_PER_MODULE, name[i], &shape);
        tensor[i] = (struct draft_checkpoint_tensor){.name = name[i], .rank = shape->rank, .data = data};
        memcpy(tensor[i].dim, shape->dim, (size_t)shape->rank * sizeof *shape->dim);
        if (!all_finite(data, numbers(&tensor[i])))
            return draft_fail(err, DRAFT_NON_FINITE,
                              "%s holds a value that is not finite; this state is not worth a checkpoint", name[i]);
    }
    qsort(tensor, (size_t)count, sizeof *tensor, by_name);
    return true;
}

static bool write_all(const char *path, const struct draft_checkpoint_info *info,
                      const struct draft_checkpoint_tensor *tensor, int count, struct draft_error *err)
{
    struct metadata meta = {0};
    const char *value[PAIRS];
    char hex[DRAFT_CHECKSUM_SIZE];
    describe(info, &meta);
    for (int i = 0; i < PAIRS; i++)
        value[i] = meta.value[i];
    if (!checksum(value, tensor, count, hex, err))
        return false;
    meta.pair[2 * PAIRS] = CHECKSUM_KEY;
    meta.pair[2 * PAIRS + 1] = hex;

    struct draft_safetensors_item *item = calloc((size_t)count + 1, sizeof *item);
    if (!item)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the table of a checkpoint");
    for (int i = 0; i < count; i++) {
        item[i] = (struct draft_safetensors_item){
            .name = tensor[i].name, .dtype = DRAFT_F32, .rank = tensor[i].rank, .data = tensor[i].data};
        memcpy(item[i].dim, tensor[i].dim, (size_t)tensor[i].rank * sizeof *tensor[i].dim);
    }
    bool ok = draft_safetensors_write(path, item, count, meta.pair, err);
    free(item);
    return ok;
}

bool draft_checkpoint_save(const char *path, const struct draft_checkpoint_info *info,
                           const struct draft_adapter *adapter, const struct draft_adamw *opt,
                           struct draft_saved *saved, struct draft_error *err)
{
    int count = adapter->count * TENSORS_PER_MODULE;
    struct draft_checkpoint_tensor *tensor = calloc((size_t)count + 1, sizeof *tensor);
    char(*name)[MAX_NAME] = calloc((size_t)count + 1, sizeof *name);
    bool ok = tensor && name;
    if (!ok)
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the table of a checkpoint");
    ok = ok && gather(adapter, opt, tensor, name, err) && write_all(path, info, tensor, count, err);
    free(tensor);
    free(name);
    if (!ok)
        return false;

    struct draft_checkpoint again;
    if (!draft_checkpoint_open(&again, path, err))
        return false;
    draft_checkpoint_close(&again);
    _Static_assert(sizeof saved->checksum >= DRAFT_CHECKSUM_SIZE, "a checksum fits");
    return draft_checksum_file(path, saved->checksum, &saved->bytes, err);
}

/* --- Opening ------------------------------------------------------------------------------------------------------ */

static bool whole_number(const char *text, int64_t max, int64_t *out)
{
    if (!text || text[0] < '0' || text[0] > '9')
        return false;
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || *end || value > max)
        return false;
    *out = value;
    return true;
}

static bool short_text(const char *text, char *out, size_t size)
{
    if (!text || strlen(text) >= size)
        return false;
    memcpy(out, text, strlen(text) + 1);
    return true;
}

static bool read_info(const char *const *value, struct draft_checkpoint_info *info)
{
    int64_t bad, rank;
    if (!whole_number(value[1], INT64_MAX, &info->step) || !whole_number(value[2], INT64_MAX, &info->updates) ||
        !whole_number(value[3], 1000000, &bad) || !whole_number(value[4], 1000000, &rank) || !value[5] ||
        !short_text(value[6], info->config, sizeof info->config) ||
        !short_text(value[7], info->architecture, sizeof info->architecture) ||
        !short_text(value[8], info->prediction, sizeof info->prediction))
        return false;
    char *end;
    info->alpha = strtod(value[5], &end);
    info->bad_steps = (int)bad;
    info->rank = (int)rank;
    return !*end && isfinite(info->alpha) && info->alpha > 0 && rank > 0;
}

/* Format, metadata and the whole of the data, which is loaded on the way. */
static bool load(struct draft_checkpoint *c, const char *path, struct draft_error *err)
{
    const char *value[PAIRS], *told = draft_safetensors_metadata(c->file, CHECKSUM_KEY);
    for (int i = 0; i < PAIRS; i++)
        value[i] = draft_safetensors_metadata(c->file, key[i]);
    if (!value[0])
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s is not a checkpoint of draftd (no draftd.format)", path);
    if (strcmp(value[0], FORMAT) != 0)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s has the format \"%.40s\"; this version reads \"%s\"", path,
                          value[0], FORMAT);
    if (!read_info(value, &c->info))
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: its metadata cannot be read", path);

    for (int i = 0; i < draft_safetensors_count(c->file); i++) {
        const struct draft_safetensors_entry *e = draft_safetensors_at(c->file, i);
        struct draft_checkpoint_tensor *t = &c->tensor[i];
        if (e->dtype != DRAFT_F32 || e->rank > DRAFT_MAX_RANK)
            return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: %s is not a matrix of F32", path, e->name);
        *t = (struct draft_checkpoint_tensor){.name = e->name, .rank = e->rank};
        memcpy(t->dim, e->dim, (size_t)e->rank * sizeof *e->dim);
        t->data = malloc(e->bytes ? e->bytes : 1);
        c->count = i + 1;
        if (!t->data)
            return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for %s", e->name);
        if (!draft_safetensors_to_f32(e, t->data, err))
            return false;
        if (!all_finite(t->data, e->bytes / sizeof(float)))
            return draft_fail(err, DRAFT_NON_FINITE, "%s: %s holds a value that is not finite", path, e->name);
    }
    char hex[DRAFT_CHECKSUM_SIZE];
    if (!checksum(value, c->tensor, c->count, hex, err))
        return false;
    if (!told || strcmp(told, hex) != 0)
        return draft_fail(err, DRAFT_DATA_LOSS, "%s is damaged: its checksum does not match its contents", path);
    return true;
}

bool draft_checkpoint_open(struct draft_checkpoint *c, const char *path, struct draft_error *err)
{
    *c = (struct draft_checkpoint){.file = draft_safetensors_open(path, err)};
    if (!c->file)
        return false;
    c->tensor = calloc((size_t)draft_safetensors_count(c->file) + 1, sizeof *c->tensor);
    bool ok = c->tensor || draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the table of %s", path);
    ok = ok && load(c, path, err);
    if (!ok)
        draft_checkpoint_close(c);
    return ok;
}

void draft_checkpoint_close(struct draft_checkpoint *c)
{
    for (int i = 0; i < c->count; i++)
        free(c->tensor[i].data);
    free(c->tensor);
    draft_safetensors_close(c->file);
    *c = (struct draft_checkpoint){0};
}

/* --- Taking ------------------------------------------------------------------------------------------------------- */

static int tensor_by_name(const void *name, const void *tensor)
{
    return strcmp(name, ((const struct draft_checkpoint_tensor *)tensor)->name);
}

bool draft_checkpoint_take(const struct draft_checkpoint *c, struct draft_adapter *adapter, struct draft_adamw *opt,
                           struct draft_error *err)
{
    int count = adapter->count * TENSORS_PER_MODULE;
    const char *path = draft_safetensors_path(c->file);
    char name[MAX_NAME], found[80], wanted[80];
    const struct draft_tensor *shape;
    if (c->count != count)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "%s holds %d tensors where this job has %d; it is of another model", path, c->count, count);
    for (int pass = 0; pass < 2; pass++) /* first look at all, then take */
        for (int i = 0; i < count; i++) {
            float *to = part_of(adapter, opt, i / TENSORS_PER_MODULE, i % TENSORS_PER_MODULE, name, &shape);
            const struct draft_checkpoint_tensor *t =
                bsearch(name, c->tensor, (size_t)c->count, sizeof *c->tensor, tensor_by_name);
            if (!t)
                return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: %s is missing; it is of another model", path, name);
            if (t->rank != shape->rank || memcmp(t->dim, shape->dim, (size_t)shape->rank * sizeof *shape->dim) != 0)
                return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: %s has the shape %s where this job has %s", path,
                                  name, draft_shape_text(t->rank, t->dim, found, sizeof found),
                                  draft_shape_text(shape->rank, shape->dim, wanted, sizeof wanted));
            if (pass == 1)
                memcpy(to, t->data, (size_t)draft_tensor_count(shape) * sizeof(float));
        }
    opt->updates = c->info.updates;
    return true;
}
