#include "train/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

static const char FORMAT[] = "draftd checkpoint 1";
enum { MAX_NAME = 512, PAIRS = 9, TEXT = 64 };

/* --- Names -------------------------------------------------------------------------------------------------------- */

enum part { VALUE, MOMENT_1, MOMENT_2, AVERAGE, PARTS };

static int parts_of(const struct draft_checkpoint_state *state)
{
    return state->ema ? PARTS : AVERAGE;
}

static void name_of(const struct draft_checkpoint_state *state, int parameter, enum part part, char name[MAX_NAME])
{
    static const char *const group[PARTS] = {NULL, "adam", "adam", "ema"}, *const suffix[PARTS] = {"", ".m", ".v", ""};
    snprintf(name, MAX_NAME, "%s/%s%s", part == VALUE ? state->trained->group : group[part],
             state->trained->name[parameter], suffix[part]);
}

/* NULL: not in memory, since nothing will be trained. */
static float *values_of(const struct draft_checkpoint_state *state, int parameter, enum part part)
{
    switch (part) {
    case VALUE:
        return draft_f32(state->trained->tensor[parameter]);
    case MOMENT_1:
        return state->opt ? state->opt->m[parameter] : NULL;
    case MOMENT_2:
        return state->opt ? state->opt->v[parameter] : NULL;
    default:
        return state->ema->average[parameter];
    }
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

static int64_t numbers(int rank, const int64_t *dim)
{
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= dim[i];
    return n;
}

static void sum_text(struct draft_checksum *sum, const char *text)
{
    draft_checksum_add(sum, text, strlen(text) + 1);
}

/* The checksum's beginning: the metadata's values. */
static struct draft_checksum *sum_start(const char *const *value, struct draft_error *err)
{
    struct draft_checksum *sum = draft_checksum_start();
    for (int i = 0; sum && i < PAIRS; i++)
        sum_text(sum, value[i] ? value[i] : "");
    if (!sum)
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for a checksum");
    return sum;
}

static void sum_tensor(struct draft_checksum *sum, const char *name, int rank, const int64_t *dim, const float *values)
{
    sum_text(sum, name);
    draft_checksum_add(sum, dim, (size_t)rank * sizeof *dim);
    draft_checksum_add(sum, values, (size_t)numbers(rank, dim) * sizeof *values);
}

static bool all_finite(const float *x, int64_t n)
{
    uint32_t bad = 0; /* infinities and NaN have all bits of the exponent; no branch, so that it is fast */
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

/* --- Saving ------------------------------------------------------------------------------------------------------- */

/* One tensor of the state. */
struct saved_tensor {
    char name[MAX_NAME];
    const struct draft_tensor *shape;
    const float *values; /* where the backend computes */
};

struct saving {
    struct draft_backend *backend; /* NULL: values are on the host, and stay where they are */
    struct saved_tensor *tensor;   /* in name order */
    struct draft_safetensors_item *item;
    int count;
    float *room; /* for the largest, where values have to be fetched, one tensor at a time */
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct saved_tensor *)a)->name, ((const struct saved_tensor *)b)->name);
}

static bool fetch(void *context, int index, float *out, struct draft_error *err)
{
    const struct saving *s = context;
    size_t bytes = (size_t)draft_tensor_count(s->tensor[index].shape) * sizeof *out;
    return draft_backend_download(s->backend, out, s->tensor[index].values, bytes, err);
}

/* Everything to be written. */
static bool list_all(const struct draft_checkpoint_state *state, struct saving *s, struct draft_error *err)
{
    int64_t largest = 0;
    s->backend = state->trained->backend;
    s->tensor = calloc((size_t)(state->trained->count * parts_of(state)) + 1, sizeof *s->tensor);
    s->item = calloc((size_t)(state->trained->count * parts_of(state)) + 1, sizeof *s->item);
    for (int i = 0; s->tensor && i < state->trained->count; i++)
        for (int part = 0; part < parts_of(state); part++) {
            struct saved_tensor *t = &s->tensor[s->count++];
            t->shape = state->trained->tensor[i];
            t->values = values_of(state, i, (enum part)part);
            name_of(state, i, (enum part)part, t->name);
            largest = draft_tensor_count(t->shape) > largest ? draft_tensor_count(t->shape) : largest;
        }
    s->room = malloc(s->backend ? (size_t)largest * sizeof *s->room + 1 : 1);
    if (!s->tensor || !s->item || !s->room)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the table of a checkpoint");
    qsort(s->tensor, (size_t)s->count, sizeof *s->tensor, by_name);
    for (int i = 0; i < s->count; i++) {
        const struct draft_tensor *shape = s->tensor[i].shape;
        s->item[i] = (struct draft_safetensors_item){.name = s->tensor[i].name,
                                                     .dtype = DRAFT_F32,
                                                     .rank = shape->rank,
                                                     .data = s->backend ? NULL : s->tensor[i].values};
        memcpy(s->item[i].dim, shape->dim, (size_t)shape->rank * sizeof *shape->dim);
    }
    return true;
}

/* Every value is looked at before the file is begun. */
static bool sum_all(struct saving *s, struct draft_checksum *sum, struct draft_error *err)
{
    for (int i = 0; i < s->count; i++) {
        const struct saved_tensor *t = &s->tensor[i];
        if (s->backend && !fetch(s, i, s->room, err))
            return false;
        const float *values = s->backend ? s->room : t->values;
        if (!all_finite(values, draft_tensor_count(t->shape)))
            return draft_fail(err, DRAFT_NON_FINITE,
                              "%s holds a value that is not finite; this state is not worth a checkpoint", t->name);
        sum_tensor(sum, t->name, t->shape->rank, t->shape->dim, values);
    }
    return true;
}

static bool write_all(const char *path, const struct draft_checkpoint_info *info, struct saving *s,
                      struct draft_error *err)
{
    struct metadata meta = {0};
    const char *value[PAIRS];
    char hex[DRAFT_CHECKSUM_SIZE];
    const struct draft_safetensors_source source = {fetch, s};
    describe(info, &meta);
    for (int i = 0; i < PAIRS; i++)
        value[i] = meta.value[i];
    struct draft_checksum *sum = sum_start(value, err);
    if (!sum)
        return false;
    bool ok = sum_all(s, sum, err);
    draft_checksum_finish(sum, hex);
    meta.pair[2 * PAIRS] = CHECKSUM_KEY;
    meta.pair[2 * PAIRS + 1] = hex;
    return ok && draft_safetensors_write_from(path, s->item, s->count, meta.pair, &source, err);
}

/* A full checkpoint has gigabytes: said before they are written, not after most of them. A disk that cannot be asked is
 * no reason to refuse. */
static bool fits(const char *path, const struct draft_safetensors_item *item, int count, struct draft_error *err)
{
    const double mib = 1 << 20;
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    struct statvfs disk;
    bool known = folder && statvfs(folder, &disk) == 0;
    free(folder);
    double needed = 0, room = known ? (double)disk.f_bavail * (double)disk.f_frsize : 0;
    for (int i = 0; i < count; i++)
        needed += (double)numbers(item[i].rank, item[i].dim) * sizeof(float);
    return !known || needed <= room ||
           draft_fail(err, DRAFT_DISK_FULL,
                      "%s needs %.1f MiB and %.1f MiB are free there; free some space, or keep fewer checkpoints", path,
                      needed / mib, room / mib);
}

bool draft_checkpoint_save(const char *path, const struct draft_checkpoint_info *info,
                           const struct draft_checkpoint_state *state, struct draft_saved *saved,
                           struct draft_error *err)
{
    struct saving s = {0};
    bool ok = list_all(state, &s, err) && fits(path, s.item, s.count, err) && write_all(path, info, &s, err);
    free(s.tensor);
    free(s.item);
    free(s.room);
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
    bool full = rank == 0 && info->alpha == 0;
    return !*end && isfinite(info->alpha) && (full || (info->alpha > 0 && rank > 0));
}

/* Every tensor once, through one buffer. */
static bool read_all(const struct draft_checkpoint *c, struct draft_checksum *sum, struct draft_error *err)
{
    const char *path = draft_safetensors_path(c->file);
    int64_t room = 0;
    for (int i = 0; i < draft_safetensors_count(c->file); i++) {
        const struct draft_safetensors_entry *e = draft_safetensors_at(c->file, i);
        if (e->dtype != DRAFT_F32 || e->rank > DRAFT_MAX_RANK)
            return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: %s is no tensor of F32", path, e->name);
        int64_t n = numbers(e->rank, e->dim);
        room = n > room ? n : room;
    }
    float *values = malloc((size_t)(room > 0 ? room : 1) * sizeof *values);
    bool ok = values || draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory to read %s", path);
    for (int i = 0; ok && i < draft_safetensors_count(c->file); i++) {
        const struct draft_safetensors_entry *e = draft_safetensors_at(c->file, i);
        ok = draft_safetensors_to_f32(e, values, err);
        if (ok && !all_finite(values, numbers(e->rank, e->dim)))
            ok = draft_fail(err, DRAFT_NON_FINITE, "%s: %s holds a value that is not finite", path, e->name);
        if (ok)
            sum_tensor(sum, e->name, e->rank, e->dim, values);
    }
    free(values);
    return ok;
}

/* Format, metadata and the whole of the data. */
static bool verify(struct draft_checkpoint *c, const char *path, struct draft_error *err)
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

    char hex[DRAFT_CHECKSUM_SIZE];
    struct draft_checksum *sum = sum_start(value, err);
    if (!sum)
        return false;
    bool ok = read_all(c, sum, err);
    draft_checksum_finish(sum, hex);
    if (ok && (!told || strcmp(told, hex) != 0))
        return draft_fail(err, DRAFT_DATA_LOSS, "%s is damaged: its checksum does not match its contents", path);
    return ok;
}

bool draft_checkpoint_open(struct draft_checkpoint *c, const char *path, struct draft_error *err)
{
    *c = (struct draft_checkpoint){.file = draft_safetensors_open(path, err)};
    bool ok = c->file && verify(c, path, err);
    if (!ok)
        draft_checkpoint_close(c);
    return ok;
}

void draft_checkpoint_close(struct draft_checkpoint *c)
{
    draft_safetensors_close(c->file);
    *c = (struct draft_checkpoint){0};
}

bool draft_checkpoint_has_average(const struct draft_checkpoint *c, struct draft_error *err)
{
    for (int i = 0; i < draft_safetensors_count(c->file); i++)
        if (strncmp(draft_safetensors_at(c->file, i)->name, "ema/", 4) == 0)
            return true;
    return draft_fail_field(err, DRAFT_FAILED_PRECONDITION, "ema",
                            "the job keeps no average of its weights: it was submitted without ema_decay; leave ema "
                            "out");
}

/* --- Taking ------------------------------------------------------------------------------------------------------- */

static const struct draft_safetensors_entry *find(const struct draft_checkpoint *c,
                                                  const struct draft_checkpoint_state *state, int parameter,
                                                  enum part part, struct draft_error *err)
{
    char name[MAX_NAME], found[160], wanted[160];
    const struct draft_tensor *shape = state->trained->tensor[parameter];
    const char *path = draft_safetensors_path(c->file);
    name_of(state, parameter, part, name);
    const struct draft_safetensors_entry *e = draft_safetensors_find(c->file, name);
    if (!e)
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: %s is missing; it is of another model", path, name);
    else if (e->rank != shape->rank || memcmp(e->dim, shape->dim, (size_t)shape->rank * sizeof *shape->dim) != 0)
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: %s has the shape %s where this job has %s", path, name,
                   draft_shape_text(e->rank, e->dim, found, sizeof found),
                   draft_shape_text(shape->rank, shape->dim, wanted, sizeof wanted));
    else
        return e;
    return NULL;
}

/* `backend` NULL: `to` is on the host. */
static bool take(struct draft_backend *backend, const struct draft_safetensors_entry *e, float *to,
                 struct draft_error *err)
{
    if (!backend)
        return draft_safetensors_to_f32(e, to, err);
    size_t bytes = (size_t)numbers(e->rank, e->dim) * sizeof *to;
    float *read = malloc(bytes + 1);
    bool ok = read || draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory to read a checkpoint");
    ok = ok && draft_safetensors_to_f32(e, read, err) && draft_backend_upload(backend, to, read, bytes, err);
    free(read);
    return ok;
}

bool draft_checkpoint_take(const struct draft_checkpoint *c, const struct draft_checkpoint_state *state,
                           struct draft_error *err)
{
    int parts = parts_of(state), count = state->trained->count * parts;
    if (draft_safetensors_count(c->file) != count)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "%s holds %d tensors where this job has %d; it is of another model",
                          draft_safetensors_path(c->file), draft_safetensors_count(c->file), count);
    for (int pass = 0; pass < 2; pass++) /* first look at all, then take */
        for (int i = 0; i < count; i++) {
            enum part part = (enum part)(i % parts);
            const struct draft_safetensors_entry *e = find(c, state, i / parts, part, err);
            float *to = values_of(state, i / parts, part);
            if (!e || (pass == 1 && to && !take(state->trained->backend, e, to, err)))
                return false;
        }
    if (state->opt)
        state->opt->updates = c->info.updates;
    return true;
}
