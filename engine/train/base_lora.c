#include "train/base_lora.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/weight_source.h"

struct target {
    char module[DRAFT_LORA_MODULE];
    struct draft_tensor *weight;
};

struct targets {
    struct target *target;
    int count, capacity;
    bool failed;
};

static void collect(void *context, struct draft_tensor *weight)
{
    struct targets *t = context;
    size_t length = strlen(weight->name);
    if (t->failed || length < 8 || strcmp(weight->name + length - 7, ".weight") != 0 || weight->rank < 2)
        return;
    if (t->count == t->capacity) {
        int capacity = t->capacity ? 2 * t->capacity : 512;
        struct target *more = realloc(t->target, (size_t)capacity * sizeof *more);
        if (!more) {
            t->failed = true;
            return;
        }
        t->target = more;
        t->capacity = capacity;
    }
    struct target *target = &t->target[t->count++];
    draft_lora_mangle(target->module, weight->name, (int)(length - 7));
    target->weight = weight;
}

static struct draft_tensor *find(const struct targets *t, const char *module)
{
    for (int i = 0; i < t->count; i++)
        if (strcmp(t->target[i].module, module) == 0)
            return t->target[i].weight;
    return NULL;
}

/* A weight is [out, in] or, channels last, [out, kh, kw, in]; a pair's down is [rank, in] or [rank, in, kh, kw]. */
static bool fits(const struct draft_lora_pair *pair, const struct draft_tensor *weight, const char *path,
                 struct draft_error *err)
{
    const struct draft_safetensors_entry *down = pair->down;
    bool conv = weight->rank == 4;
    int64_t in = conv ? weight->dim[3] : weight->dim[1], kh = conv ? weight->dim[1] : 1, kw = conv ? weight->dim[2] : 1;
    int64_t height = down->rank == 4 ? down->dim[2] : 1, width = down->rank == 4 ? down->dim[3] : 1;
    char a[160], b[160], c[160];
    if (pair->up->dim[0] == weight->dim[0] && down->dim[1] == in && height == kh && width == kw)
        return true;
    return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                      "%s: %.200s %s and up %s do not fit the layer's weight %s (out, then height and width of a "
                      "convolution, in); the LoRA is of another model",
                      path, down->name, draft_shape_text(down->rank, down->dim, a, sizeof a),
                      draft_shape_text(pair->up->rank, pair->up->dim, b, sizeof b),
                      draft_shape_text(weight->rank, weight->dim, c, sizeof c));
}

static bool add(const struct draft_lora_pair *pair, double weight, struct draft_tensor *to, struct draft_error *err)
{
    float *down, *up;
    if (!draft_weight_materialize(to, err) || !draft_lora_pair_read(pair, &down, &up, err))
        return false;
    bool conv = to->rank == 4;
    int64_t out = to->dim[0], taps = conv ? to->dim[1] * to->dim[2] : 1, in = conv ? to->dim[3] : to->dim[1];
    double *row = malloc((size_t)(in * taps) * sizeof *row); /* in the file's order, [in, kh, kw] */
    bool finite = true;
    for (int64_t o = 0; row && o < out; o++) {
        memset(row, 0, (size_t)(in * taps) * sizeof *row);
        for (int64_t r = 0; r < pair->rank; r++) {
            double factor = weight * pair->scale * up[o * pair->rank + r];
            const float *from = down + r * in * taps;
            for (int64_t i = 0; i < in * taps; i++)
                row[i] += factor * from[i];
        }
        float *w = draft_f32(to) + o * in * taps;
        for (int64_t i = 0; i < in; i++)
            for (int64_t tap = 0; tap < taps; tap++)
                finite &= isfinite(w[tap * in + i] = (float)(w[tap * in + i] + row[i * taps + tap]));
    }
    bool ok = row || draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory to merge %s", pair->module);
    if (ok && !finite)
        ok = draft_fail(err, DRAFT_NON_FINITE,
                        "%s: merged with scale %g, %s would hold numbers too large for 32-bit floats; is the file "
                        "damaged, or its weight meant to be smaller",
                        draft_safetensors_path(pair->down->file), weight * pair->scale, pair->module);
    free(row);
    free(down);
    free(up);
    return ok;
}

static bool merge(const struct draft_lora_file *file, double weight, const struct targets part[2], bool unet_only,
                  struct draft_error *err)
{
    const char *path = draft_lora_file_path(file);
    for (int pass = 0; pass < 2; pass++) /* first look at all, then change */
        for (int i = 0; i < draft_lora_file_count(file); i++) {
            const struct draft_lora_pair *pair = draft_lora_file_at(file, i);
            if (pair->text && unet_only)
                continue;
            struct draft_tensor *to = find(&part[pair->text], pair->module);
            if (!to)
                return draft_fail(
                    err, DRAFT_INVALID_ARGUMENT,
                    "%s: %.200s is of a layer that the model's %s does not have; the LoRA is of another model", path,
                    pair->down->name, pair->text ? "text encoder" : "UNet");
            if (pass == 0 ? !fits(pair, to, path, err) : !add(pair, weight, to, err))
                return false;
        }
    return true;
}

bool draft_lora_merge(const char *path, double weight, struct draft_unet *unet, struct draft_clip_text *text,
                      struct draft_error *err)
{
    struct draft_lora_file *file = draft_lora_file_open(path, err);
    if (!file)
        return false;
    struct targets part[2] = {{0}};
    draft_unet_each_weight(unet, collect, &part[0]);
    if (text)
        draft_clip_text_each_weight(text, collect, &part[1]);
    bool ok =
        (!part[0].failed && !part[1].failed) || draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory to merge %s", path);
    ok = ok && merge(file, weight, part, !text, err);
    free(part[0].target);
    free(part[1].target);
    draft_lora_file_close(file);
    return ok;
}

/* --- Going on from a file ----------------------------------------------------------------------------------------- */

static const struct draft_lora_pair *pair_of(const struct draft_lora_file *file, const char *module)
{
    char mangled[DRAFT_LORA_MODULE];
    draft_lora_mangle(mangled, module, (int)strlen(module));
    for (int i = 0; i < draft_lora_file_count(file); i++) {
        const struct draft_lora_pair *pair = draft_lora_file_at(file, i);
        if (!pair->text && strcmp(pair->module, mangled) == 0)
            return pair;
    }
    return NULL;
}

static bool same_shape(const struct draft_lora_pair *pair, const struct draft_adapter_entry *entry, int rank)
{
    return pair->rank == rank && pair->down->rank == 2 && pair->up->rank == 2 && pair->down->dim[1] == entry->in &&
           pair->up->dim[0] == entry->out;
}

static bool take(const struct draft_lora_pair *pair, const struct draft_adapter *adapter, const struct draft_lora *lora,
                 struct draft_error *err)
{
    float *down, *up;
    if (!draft_lora_pair_read(pair, &down, &up, err))
        return false;
    int64_t n = draft_tensor_count(lora->up);
    double ours = adapter->alpha / (double)adapter->rank;
    memcpy(lora->down->data, down, (size_t)draft_tensor_count(lora->down) * sizeof(float));
    for (int64_t i = 0; i < n; i++)
        draft_f32(lora->up)[i] = pair->scale == ours ? up[i] : (float)(up[i] * (pair->scale / ours));
    free(down);
    free(up);
    return true;
}

bool draft_lora_continue(const char *path, struct draft_adapter *adapter, struct draft_error *err)
{
    struct draft_lora_file *file = draft_lora_file_open(path, err);
    if (!file)
        return false;
    bool ok = true;
    if (draft_lora_file_count(file) != adapter->count)
        ok = draft_fail(err, DRAFT_INVALID_ARGUMENT,
                        "%s changes %d layers where this job trains %d (the attention and feed-forward layers of the "
                        "UNet); it can be merged as a base LoRA instead",
                        path, draft_lora_file_count(file), adapter->count);
    for (int pass = 0; ok && pass < 2; pass++)
        for (int i = 0; ok && i < adapter->count; i++) {
            const struct draft_adapter_entry *entry = &adapter->entry[i];
            const struct draft_lora_pair *pair = pair_of(file, entry->module);
            if (!pair)
                ok = draft_fail(err, DRAFT_INVALID_ARGUMENT,
                                "%s has nothing for %s, which this job trains; it can be merged as a base LoRA instead",
                                path, entry->module);
            else if (!same_shape(pair, entry, adapter->rank))
                ok =
                    draft_fail(err, DRAFT_INVALID_ARGUMENT,
                               "%s: %.200s has rank %lld where the job's is %d, or is of another model; the ranks must "
                               "be the same to go on from it",
                               path, pair->down->name, (long long)pair->rank, adapter->rank);
            else if (pass == 1)
                ok = take(pair, adapter, &entry->lora, err);
        }
    draft_lora_file_close(file);
    return ok;
}
