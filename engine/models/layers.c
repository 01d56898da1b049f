#include "models/layers.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tensor/weight_source.h"

enum { PATH_SIZE = 256 };

/* The module's path, then ".weight" or ".bias". */
#define MODULE_PATH(buffer, path)                                                                                      \
    char buffer[PATH_SIZE];                                                                                            \
    do {                                                                                                               \
        va_list list;                                                                                                  \
        va_start(list, path);                                                                                          \
        vsnprintf(buffer, sizeof buffer, path, list);                                                                  \
        va_end(list);                                                                                                  \
    } while (0)

static const char *member(char *out, const char *module, const char *name)
{
    snprintf(out, PATH_SIZE + 8, "%s.%s", module, name);
    return out;
}

void draft_loader_init(struct draft_loader *loader, struct draft_weights *weights, struct draft_arena *arena,
                       struct draft_adapter *adapter)
{
    *loader = (struct draft_loader){.weights = weights, .arena = arena, .adapter = adapter};
    loader->last = &loader->first;
}

void *draft_load_alloc(struct draft_loader *loader, size_t bytes)
{
    if (loader->error.code != DRAFT_OK)
        return NULL;
    void *memory = draft_arena_alloc(loader->arena, bytes);
    if (memory == NULL) {
        draft_arena_fail(loader->arena, bytes, &loader->error);
        return NULL;
    }
    return memset(memory, 0, bytes);
}

static struct draft_tensor *remember(struct draft_loader *loader, struct draft_tensor *weight)
{
    struct draft_weight_link *link = weight != NULL ? draft_load_alloc(loader, sizeof *link) : NULL;
    if (link == NULL)
        return NULL;
    link->weight = weight;
    *loader->last = link;
    loader->last = &link->next;
    return weight;
}

static struct draft_tensor *remember_matrix(struct draft_loader *loader, struct draft_tensor *weight)
{
    if (weight != NULL)
        weight->every_step = loader->every_step;
    return remember(loader, weight);
}

static struct draft_tensor *load_matrix(struct draft_loader *loader, const char *key, int64_t out, int64_t in)
{
    if (loader->error.code != DRAFT_OK)
        return NULL;
    return remember_matrix(
        loader, draft_weights_take_lazy(loader->weights, key, 2, (const int64_t[]){out, in}, &loader->error));
}

struct draft_tensor *draft_load_tensor(struct draft_loader *loader, const char *key, int rank, const int64_t *dim)
{
    if (loader->error.code != DRAFT_OK)
        return NULL;
    return remember(loader, draft_weights_take(loader->weights, key, rank, dim, &loader->error));
}

struct draft_tensor *draft_load_table(struct draft_loader *loader, const char *key, int64_t rows, int64_t width)
{
    return load_matrix(loader, key, rows, width);
}

void draft_load_shape(struct draft_loader *loader, const char *key, int rank, const char *expected, int64_t *dim)
{
    int found_rank;
    int64_t found[8];
    char text[160];
    if (loader->error.code != DRAFT_OK)
        return;
    if (!draft_weights_shape(loader->weights, key, &found_rank, found)) {
        draft_fail(&loader->error, DRAFT_INVALID_ARGUMENT, "no tensor %s, expected one of shape %s", key, expected);
        return;
    }
    bool whole = found_rank == rank;
    for (int i = 0; whole && i < rank; i++)
        whole = found[i] >= 1 && found[i] <= 1 << 24;
    if (whole)
        memcpy(dim, found, (size_t)rank * sizeof *dim);
    else
        draft_fail(&loader->error, DRAFT_INVALID_ARGUMENT, "%s is %s, expected %s", key,
                   draft_shape_text(found_rank, found, text, sizeof text), expected);
}

static struct draft_tensor *load_vector(struct draft_loader *loader, const char *module, const char *name, int64_t n)
{
    char key[PATH_SIZE + 8];
    return draft_load_tensor(loader, member(key, module, name), 1, &n);
}

static struct draft_tensor *load_kernel(struct draft_loader *loader, const char *module, int64_t in, int64_t out, int k)
{
    char key[PATH_SIZE + 8];
    if (loader->error.code != DRAFT_OK)
        return NULL;
    return remember_matrix(loader, draft_weights_take_lazy_conv(loader->weights, member(key, module, "weight"), out, in,
                                                                k, k, &loader->error));
}

static void load_linear(struct draft_loader *loader, struct draft_linear_layer *layer, int64_t in, int64_t out,
                        bool bias, const char *module)
{
    char key[PATH_SIZE + 8];
    layer->weight = load_matrix(loader, member(key, module, "weight"), out, in);
    layer->bias = bias ? load_vector(loader, module, "bias", out) : NULL;
}

void draft_load_linear(struct draft_loader *loader, struct draft_linear_layer *layer, int64_t in, int64_t out,
                       bool bias, const char *path, ...)
{
    MODULE_PATH(module, path);
    load_linear(loader, layer, in, out, bias, module);
}

/* `count` rows of a tensor, in its own memory or file. */
static struct draft_tensor *rows(struct draft_loader *loader, const struct draft_tensor *whole, int64_t first,
                                 int64_t count)
{
    struct draft_tensor *part = whole != NULL ? draft_load_alloc(loader, sizeof *part) : NULL;
    if (part == NULL)
        return NULL;
    *part = *whole;
    part->dim[0] = count;
    int64_t skipped = first * (whole->rank == 2 ? whole->dim[1] : 1);
    if (whole->data != NULL) {
        part->data = draft_f32(whole) + skipped;
        return part;
    }
    struct draft_weight_source *source = draft_load_alloc(loader, sizeof *source);
    if (source == NULL)
        return NULL;
    *source = *whole->source;
    source->first += skipped;
    part->source = source;
    return part;
}

void draft_load_fused_linear(struct draft_loader *loader, struct draft_linear_layer *const *layer, int count,
                             int64_t in, int64_t out, const char *weight_key, const char *bias_key)
{
    const struct draft_tensor *weight = load_matrix(loader, weight_key, count * out, in);
    const struct draft_tensor *bias = draft_load_tensor(loader, bias_key, 1, (const int64_t[]){count * out});
    for (int i = 0; i < count; i++)
        *layer[i] = (struct draft_linear_layer){.weight = rows(loader, weight, i * out, out),
                                                .bias = rows(loader, bias, i * out, out)};
}

void draft_load_adapted_linear(struct draft_loader *loader, struct draft_linear_layer *layer, int64_t in, int64_t out,
                               bool bias, const char *path, ...)
{
    MODULE_PATH(module, path);
    load_linear(loader, layer, in, out, bias, module);
    if (loader->adapter != NULL && loader->error.code == DRAFT_OK)
        layer->lora = draft_adapter_add(loader->adapter, module, in, out, &loader->error);
    if (layer->lora != NULL && layer->weight != NULL)
        layer->weight->up = layer->lora->up;
}

void draft_load_siblings(struct draft_loader *loader, struct draft_linear_layer *const *layer, int count)
{
    struct draft_siblings *weights = draft_load_alloc(loader, sizeof *weights);
    struct draft_siblings *downs = draft_load_alloc(loader, sizeof *downs);
    for (int i = 0; downs != NULL && i < count; i++) {
        weights->tensor[weights->count++] = layer[i]->weight;
        layer[i]->weight->siblings = weights;
        if (layer[i]->lora == NULL)
            continue;
        downs->tensor[downs->count++] = layer[i]->lora->down;
        layer[i]->lora->down->siblings = downs;
    }
}

void draft_load_pointwise(struct draft_loader *loader, struct draft_linear_layer *layer, int64_t in, int64_t out,
                          const char *path, ...)
{
    MODULE_PATH(module, path);
    layer->weight = load_kernel(loader, module, in, out, 1);
    layer->bias = load_vector(loader, module, "bias", out);
}

void draft_load_conv(struct draft_loader *loader, struct draft_conv_layer *layer, int64_t in, int64_t out, int kernel,
                     int stride, int pad, const char *path, ...)
{
    MODULE_PATH(module, path);
    layer->weight = load_kernel(loader, module, in, out, kernel);
    layer->bias = load_vector(loader, module, "bias", out);
    layer->args = (struct draft_conv2d_args){stride, pad, pad, pad, pad};
}

void draft_load_patches(struct draft_loader *loader, struct draft_conv_layer *layer, int64_t in, int64_t out, int patch,
                        const char *path, ...)
{
    MODULE_PATH(module, path);
    layer->weight = load_kernel(loader, module, in, out, patch);
    layer->args = (struct draft_conv2d_args){.stride = patch};
}

static void load_norm(struct draft_loader *loader, struct draft_norm_layer *layer, int64_t channels, const char *module)
{
    layer->weight = load_vector(loader, module, "weight", channels);
    layer->bias = load_vector(loader, module, "bias", channels);
}

void draft_load_group_norm(struct draft_loader *loader, struct draft_norm_layer *layer, int64_t channels, int groups,
                           float eps, const char *path, ...)
{
    MODULE_PATH(module, path);
    load_norm(loader, layer, channels, module);
    layer->groups = groups;
    layer->eps = eps;
}

void draft_load_layer_norm(struct draft_loader *loader, struct draft_norm_layer *layer, int64_t channels, float eps,
                           const char *path, ...)
{
    MODULE_PATH(module, path);
    load_norm(loader, layer, channels, module);
    layer->eps = eps;
}

struct draft_tensor *draft_to_tokens(struct draft_graph *g, struct draft_tensor *x)
{
    if (x == NULL)
        return NULL;
    return draft_reshape(g, x, 3, (const int64_t[]){x->dim[0], x->dim[1] * x->dim[2], x->dim[3]});
}

struct draft_tensor *draft_to_image(struct draft_graph *g, struct draft_tensor *x, int64_t h, int64_t w)
{
    if (x == NULL)
        return NULL;
    return draft_reshape(g, x, 4, (const int64_t[]){x->dim[0], h, w, x->dim[2]});
}

bool draft_model_continue(struct draft_graph *g)
{
    if (draft_graph_ok(g) && g->keep_going != NULL && !g->keep_going(g->context))
        draft_fail(&g->error, DRAFT_CANCELLED, "stopped on request");
    return draft_graph_ok(g);
}
