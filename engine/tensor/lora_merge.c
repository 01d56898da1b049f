#include "tensor/lora_merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tensor/lora_file.h"

enum { NAME = DRAFT_LORA_MODULE + 32, ABOUT = 1024 };

/* One layer of the result: the pairs of all files that have it. */
struct layer {
    const struct draft_lora_pair *pair[DRAFT_LORA_MERGE_MAX];
    double weight[DRAFT_LORA_MERGE_MAX];
    int pairs;
    int64_t rank;
    float alpha;
    float *down, *up;
    char name[3][NAME];
};

struct sum {
    struct draft_lora_file *file[DRAFT_LORA_MERGE_MAX];
    int files;
    struct layer *layer;
    int layers, capacity;
};

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static struct layer *layer_of(struct sum *s, const struct draft_lora_pair *pair)
{
    for (int i = 0; i < s->layers; i++)
        if (s->layer[i].pair[0]->text == pair->text && strcmp(s->layer[i].pair[0]->module, pair->module) == 0)
            return &s->layer[i];
    if (s->layers == s->capacity) {
        int capacity = s->capacity ? 2 * s->capacity : 256;
        struct layer *more = realloc(s->layer, (size_t)capacity * sizeof *more);
        if (more == NULL)
            return NULL;
        s->layer = more;
        s->capacity = capacity;
    }
    s->layer[s->layers] = (struct layer){0};
    return &s->layer[s->layers++];
}

/* The kernel's taps: 1 for a linear layer and a 1x1 convolution. */
static int64_t taps(const struct draft_lora_pair *pair)
{
    return pair->down->rank == 4 ? pair->down->dim[2] * pair->down->dim[3] : 1;
}

static bool same_layer(const struct draft_lora_pair *a, const struct draft_lora_pair *b)
{
    return a->down->rank == b->down->rank && a->down->dim[1] == b->down->dim[1] && a->up->dim[0] == b->up->dim[0] &&
           (a->down->rank == 2 || (a->down->dim[2] == b->down->dim[2] && a->down->dim[3] == b->down->dim[3]));
}

static bool add_file(struct sum *s, const char *path, double weight, struct draft_error *err)
{
    struct draft_lora_file *file = draft_lora_file_open(path, err);
    if (file == NULL)
        return false;
    s->file[s->files++] = file;
    for (int i = 0; i < draft_lora_file_count(file); i++) {
        const struct draft_lora_pair *pair = draft_lora_file_at(file, i);
        struct layer *layer = layer_of(s, pair);
        if (layer == NULL)
            return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory to merge %s", path);
        if (layer->pairs > 0 && !same_layer(layer->pair[0], pair))
            return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                              "%s and %s have different shapes for %s; they are not of the same model",
                              draft_safetensors_path(layer->pair[0]->down->file), path, pair->module);
        layer->pair[layer->pairs] = pair;
        layer->weight[layer->pairs++] = weight;
        layer->rank += pair->rank;
        if (layer->rank > DRAFT_LORA_MAX_RANK)
            return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the ranks of %s add up to more than %d", pair->module,
                              DRAFT_LORA_MAX_RANK);
    }
    return true;
}

/* down [R, in * taps], up [out, R] with R the sum of the ranks. */
static bool stack(struct layer *layer, struct draft_error *err)
{
    const struct draft_lora_pair *first = layer->pair[0];
    int64_t row = first->down->dim[1] * taps(first), out = first->up->dim[0], begin = 0;
    layer->down = malloc((size_t)(layer->rank * row) * sizeof(float));
    layer->up = malloc((size_t)(out * layer->rank) * sizeof(float));
    if (layer->down == NULL || layer->up == NULL)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory to merge %s", first->module);
    for (int i = 0; i < layer->pairs; i++) {
        const struct draft_lora_pair *pair = layer->pair[i];
        float *down, *up;
        if (!draft_lora_pair_read(pair, &down, &up, err))
            return false;
        double factor = layer->weight[i] * pair->scale;
        memcpy(layer->down + begin * row, down, (size_t)(pair->rank * row) * sizeof(float));
        for (int64_t o = 0; o < out; o++)
            for (int64_t r = 0; r < pair->rank; r++)
                layer->up[o * layer->rank + begin + r] = (float)(factor * up[o * pair->rank + r]);
        begin += pair->rank;
        free(down);
        free(up);
    }
    return true;
}

static void describe(struct layer *layer, enum draft_dtype dtype, struct draft_safetensors_item item[3])
{
    const struct draft_lora_pair *first = layer->pair[0];
    static const char *const ending[] = {"lora_down.weight", "lora_up.weight", "alpha"};
    int rank = first->down->rank;
    layer->alpha = (float)layer->rank;
    for (int i = 0; i < 3; i++) {
        snprintf(layer->name[i], NAME, "%s%s.%s", first->text ? "lora_te_" : "lora_unet_", first->module, ending[i]);
        item[i] = (struct draft_safetensors_item){.name = layer->name[i], .dtype = dtype, .rank = i < 2 ? rank : 0};
    }
    memcpy(item[0].dim, first->down->dim, sizeof item[0].dim);
    item[0].dim[0] = layer->rank;
    item[0].data = layer->down;
    item[1].dim[0] = first->up->dim[0];
    item[1].dim[1] = layer->rank;
    item[1].dim[2] = item[1].dim[3] = 1;
    item[1].data = layer->up;
    item[2].data = &layer->alpha;
}

static bool write_sum(struct sum *s, const char *out, bool f32, const char *about, struct draft_error *err)
{
    struct draft_safetensors_item *item = calloc(3 * (size_t)s->layers + 1, sizeof *item);
    bool ok = item != NULL || draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory to write %s", out);
    for (int i = 0; ok && i < s->layers; i++) {
        ok = stack(&s->layer[i], err);
        describe(&s->layer[i], f32 ? DRAFT_F32 : DRAFT_F16, item + 3 * i);
    }
    const char *metadata[] = {"draftd.merged", about, "ss_network_module", "networks.lora", NULL};
    ok = ok && draft_safetensors_write(out, item, 3 * s->layers, metadata, err);
    free(item);
    return ok;
}

bool draft_lora_merge_files(const char *const *paths, const double *weights, int count, const char *out, bool f32,
                            struct draft_error *err)
{
    struct sum s = {0};
    char about[ABOUT] = "";
    bool ok = count > 0 && count <= DRAFT_LORA_MERGE_MAX;
    if (!ok)
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "%d files are named; 1 to %d can be merged", count,
                   DRAFT_LORA_MERGE_MAX);
    for (int i = 0; ok && i < count; i++) {
        size_t used = strlen(about);
        snprintf(about + used, ABOUT - used, "%s%g*%.100s", i > 0 ? " + " : "", weights[i], base_name(paths[i]));
        ok = add_file(&s, paths[i], weights[i], err);
    }
    size_t bad;
    if (!draft_utf8_valid(about, strlen(about), &bad))
        about[bad] = '\0'; /* a name that is none, or was cut */
    ok = ok && write_sum(&s, out, f32, about, err);
    for (int i = 0; i < s.layers; i++) {
        free(s.layer[i].down);
        free(s.layer[i].up);
    }
    for (int i = 0; i < s.files; i++)
        draft_lora_file_close(s.file[i]);
    free(s.layer);
    return ok;
}
