/*
 * torch.nn's layers as a checkpoint holds them: Linear, Conv2d, GroupNorm, LayerNorm. A model's load function names
 * each one by its module path; its forward function applies it by value. Internal to models/.
 *
 * Loading is sticky like the graph: after the first failure every load does nothing, and the model's open function
 * looks at loader.error once. The matrices of linear and convolution layers are lazy (tensor/weight_source.h).
 */
#ifndef DRAFT_MODELS_LAYERS_H
#define DRAFT_MODELS_LAYERS_H

#include "models/lora.h"
#include "ops/ops.h"
#include "tensor/weights.h"

struct draft_weight_link {
    struct draft_tensor *weight;
    struct draft_weight_link *next;
};

struct draft_loader {
    struct draft_weights *weights;
    struct draft_arena *arena;
    struct draft_adapter *adapter; /* NULL: no LoRA */
    bool every_step;               /* the matrices are used at every denoising step (draft_tensor) */
    struct draft_weight_link *first, **last;
    struct draft_error error;
};

struct draft_linear_layer {
    struct draft_tensor *weight, *bias; /* [out, in] or [out, 1, 1, in]; [out] or NULL */
    const struct draft_lora *lora;
};
struct draft_conv_layer {
    struct draft_tensor *weight, *bias; /* [out, kh, kw, in]; [out] or NULL */
    struct draft_conv2d_args args;
};
struct draft_norm_layer {
    struct draft_tensor *weight, *bias; /* [channels] */
    int groups;                         /* GroupNorm */
    float eps;
};

void draft_loader_init(struct draft_loader *loader, struct draft_weights *weights, struct draft_arena *arena,
                       struct draft_adapter *adapter);
/* Zeroed memory in the model's arena. NULL once loading has failed. */
void *draft_load_alloc(struct draft_loader *loader, size_t bytes);
/* One tensor by its full key, with its values. */
struct draft_tensor *draft_load_tensor(struct draft_loader *loader, const char *key, int rank, const int64_t *dim);

/* A table [rows, width] that only draft_embedding() reads, a few rows at a time: they stay in the file. */
struct draft_tensor *draft_load_table(struct draft_loader *loader, const char *key, int64_t rows, int64_t width);

/* For a model whose configuration is its tensors: the shape of one that must be there with this rank, each side at
 * least 1. `expected` as in "[width, 3, patch, patch]". dim is left as it is once loading has failed. */
void draft_load_shape(struct draft_loader *loader, const char *key, int rank, const char *expected, int64_t *dim);

/* The printf-like tail is the module's path, without ".weight". */
#define DRAFT_PATH_FORMAT(n) __attribute__((format(printf, n, n + 1)))
void draft_load_linear(struct draft_loader *loader, struct draft_linear_layer *layer, int64_t in, int64_t out,
                       bool bias, const char *path, ...) DRAFT_PATH_FORMAT(6);
/* Several linear layers [out, in] whose weights and biases are one tensor each, [count * out, in] and [count * out]:
 * each takes its rows of it. Full keys. */
void draft_load_fused_linear(struct draft_loader *loader, struct draft_linear_layer *const *layer, int count,
                             int64_t in, int64_t out, const char *weight_key, const char *bias_key);
/* draft_load_linear with a LoRA pair when the loader has an adapter. */
void draft_load_adapted_linear(struct draft_loader *loader, struct draft_linear_layer *layer, int64_t in, int64_t out,
                               bool bias, const char *path, ...) DRAFT_PATH_FORMAT(6);
/* Adapted layers of one shape that read one x (draft_linears): their weights are siblings, and their adapters' downs.
 */
void draft_load_siblings(struct draft_loader *loader, struct draft_linear_layer *const *layer, int count);
/* A 1x1 convolution, which is a linear layer of the channels. */
void draft_load_pointwise(struct draft_loader *loader, struct draft_linear_layer *layer, int64_t in, int64_t out,
                          const char *path, ...) DRAFT_PATH_FORMAT(5);
/* Square kernel, equal padding, with bias. */
void draft_load_conv(struct draft_loader *loader, struct draft_conv_layer *layer, int64_t in, int64_t out, int kernel,
                     int stride, int pad, const char *path, ...) DRAFT_PATH_FORMAT(8);
/* A patch embedding: kernel and stride `patch`, no bias. */
void draft_load_patches(struct draft_loader *loader, struct draft_conv_layer *layer, int64_t in, int64_t out, int patch,
                        const char *path, ...) DRAFT_PATH_FORMAT(6);
void draft_load_group_norm(struct draft_loader *loader, struct draft_norm_layer *layer, int64_t channels, int groups,
                           float eps, const char *path, ...) DRAFT_PATH_FORMAT(6);
void draft_load_layer_norm(struct draft_loader *loader, struct draft_norm_layer *layer, int64_t channels, float eps,
                           const char *path, ...) DRAFT_PATH_FORMAT(5);

static inline struct draft_tensor *linear(struct draft_graph *g, struct draft_tensor *x,
                                          const struct draft_linear_layer *layer)
{
    return draft_linear(g, x, layer->weight, layer->bias, layer->lora);
}
/* residual + linear(x) */
static inline struct draft_tensor *linear_onto(struct draft_graph *g, struct draft_tensor *residual,
                                               struct draft_tensor *x, const struct draft_linear_layer *layer)
{
    return draft_linear_onto(g, residual, x, layer->weight, layer->bias, layer->lora);
}
static inline struct draft_tensor *conv(struct draft_graph *g, struct draft_tensor *x,
                                        const struct draft_conv_layer *layer)
{
    return draft_conv2d(g, x, layer->weight, layer->bias, &layer->args);
}
/* residual + conv(x) */
static inline struct draft_tensor *conv_onto(struct draft_graph *g, struct draft_tensor *residual,
                                             struct draft_tensor *x, const struct draft_conv_layer *layer)
{
    return draft_conv2d_onto(g, residual, x, layer->weight, layer->bias, &layer->args);
}
static inline struct draft_tensor *group_norm(struct draft_graph *g, struct draft_tensor *x,
                                              const struct draft_norm_layer *layer)
{
    return draft_group_norm(g, x, layer->weight, layer->bias, layer->groups, layer->eps, false);
}
static inline struct draft_tensor *group_norm_silu(struct draft_graph *g, struct draft_tensor *x,
                                                   const struct draft_norm_layer *layer)
{
    return draft_group_norm(g, x, layer->weight, layer->bias, layer->groups, layer->eps, true);
}
static inline struct draft_tensor *layer_norm(struct draft_graph *g, struct draft_tensor *x,
                                              const struct draft_norm_layer *layer)
{
    return draft_layer_norm(g, x, layer->weight, layer->bias, layer->eps);
}

/* At a network's entrance: x in the type that networks compute in. At its exit: in F32. */
static inline struct draft_tensor *enter(struct draft_graph *g, struct draft_tensor *x)
{
    return draft_convert(g, x, g->activations);
}
static inline struct draft_tensor *leave(struct draft_graph *g, struct draft_tensor *x)
{
    return draft_convert(g, x, DRAFT_F32);
}

/* [n, h, w, c] -> [n, h*w, c] and back: the same memory. */
struct draft_tensor *draft_to_tokens(struct draft_graph *g, struct draft_tensor *x);
struct draft_tensor *draft_to_image(struct draft_graph *g, struct draft_tensor *x, int64_t h, int64_t w);

/* Asks g->keep_going between blocks; a refusal fails the graph with DRAFT_CANCELLED. */
bool draft_model_continue(struct draft_graph *g);

#endif
