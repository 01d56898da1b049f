#include "models/transformer_2d.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

/* Constants of diffusers' classes that no config sets. */
static const float GROUP_NORM_EPS = 1e-6f; /* Transformer2DModel.norm */
static const float LAYER_NORM_EPS = 1e-5f; /* BasicTransformerBlock's norms */
enum { FEED_FORWARD_FACTOR = 4, QKV = 3 };

static void load_attention(struct draft_loader *loader, struct draft_attention_layer *a, int64_t inner, int64_t context,
                           int heads, const char *name)
{
    a->heads = heads;
    draft_load_adapted_linear(loader, &a->to_q, inner, inner, false, "%s.to_q", name);
    draft_load_adapted_linear(loader, &a->to_k, context, inner, false, "%s.to_k", name);
    draft_load_adapted_linear(loader, &a->to_v, context, inner, false, "%s.to_v", name);
    draft_load_adapted_linear(loader, &a->to_out, inner, inner, true, "%s.to_out.0", name);
}

static void load_block(struct draft_loader *loader, struct draft_transformer_block *b, int64_t inner, int64_t context,
                       int heads, int *place, const char *name)
{
    char attention[300];
    draft_load_layer_norm(loader, &b->norm1, inner, LAYER_NORM_EPS, "%s.norm1", name);
    snprintf(attention, sizeof attention, "%s.attn1", name);
    load_attention(loader, &b->attn1, inner, inner, heads, attention);
    struct draft_linear_layer *const of_one_x[] = {&b->attn1.to_q, &b->attn1.to_k, &b->attn1.to_v};
    draft_load_siblings(loader, of_one_x, QKV);
    draft_load_layer_norm(loader, &b->norm2, inner, LAYER_NORM_EPS, "%s.norm2", name);
    snprintf(attention, sizeof attention, "%s.attn2", name);
    load_attention(loader, &b->attn2, inner, context, heads, attention);
    b->attn2.place = (*place)++;
    draft_load_layer_norm(loader, &b->norm3, inner, LAYER_NORM_EPS, "%s.norm3", name);
    int64_t wide = FEED_FORWARD_FACTOR * inner;
    draft_load_adapted_linear(loader, &b->ff_in, inner, 2 * wide, true, "%s.ff.net.0.proj", name);
    draft_load_adapted_linear(loader, &b->ff_out, wide, inner, true, "%s.ff.net.2", name);
}

void draft_load_transformer_2d(struct draft_loader *loader, struct draft_transformer_2d *model,
                               const struct draft_transformer_shape *shape, int *place, const char *path, ...)
{
    char name[256], block[290];
    va_list list;
    va_start(list, path);
    vsnprintf(name, sizeof name, path, list);
    va_end(list);

    int64_t c = shape->channels, inner = c / shape->heads * shape->heads;
    draft_load_group_norm(loader, &model->norm, c, shape->groups, GROUP_NORM_EPS, "%s.norm", name);
    if (shape->linear_projection)
        draft_load_linear(loader, &model->proj_in, c, inner, true, "%s.proj_in", name);
    else
        draft_load_pointwise(loader, &model->proj_in, c, inner, "%s.proj_in", name);
    model->blocks = shape->blocks;
    model->block = draft_load_alloc(loader, (size_t)shape->blocks * sizeof *model->block);
    for (int i = 0; i < shape->blocks && model->block != NULL; i++) {
        snprintf(block, sizeof block, "%s.transformer_blocks.%d", name, i);
        load_block(loader, &model->block[i], inner, shape->context, shape->heads, place, block);
    }
    if (shape->linear_projection)
        draft_load_linear(loader, &model->proj_out, inner, c, true, "%s.proj_out", name);
    else
        draft_load_pointwise(loader, &model->proj_out, inner, c, "%s.proj_out", name);
}

static struct draft_tensor *self_attention(struct draft_graph *g, const struct draft_attention_layer *a,
                                           struct draft_tensor *x)
{
    const struct draft_projection layer[QKV] = {
        {a->to_q.weight, a->to_q.lora}, {a->to_k.weight, a->to_k.lora}, {a->to_v.weight, a->to_v.lora}};
    struct draft_tensor *qkv[QKV];
    draft_linears(g, x, layer, QKV, qkv);                               /* [n, s, inner] each */
    return draft_attention(g, qkv[0], qkv[1], qkv[2], a->heads, false); /* to_out is its caller's */
}

struct draft_tensor *draft_both_halves(struct draft_graph *g, struct draft_tensor *x, int64_t n)
{
    return !draft_graph_ok(g) || x->dim[0] == n ? x : draft_concat_batch(g, x, x);
}

static struct draft_tensor *cross_attention(struct draft_graph *g, const struct draft_attention_layer *a,
                                            struct draft_tensor *x, struct draft_tensor *context,
                                            const struct draft_unet_context *cached)
{
    assert(cached == NULL || a->place < cached->count);
    struct draft_tensor *q = linear(g, x, &a->to_q);                                                /* [n, s, inner] */
    struct draft_tensor *k = cached != NULL ? cached->key[a->place] : linear(g, context, &a->to_k); /* [n, t, inner] */
    struct draft_tensor *v = cached != NULL ? cached->value[a->place] : linear(g, context, &a->to_v);
    q = draft_both_halves(g, q, context->dim[0]);
    return draft_attention(g, q, k, v, a->heads, false);
}

/* The rank of the adapter on a layer; 0: there is none. */
static int64_t rank_on(const struct draft_linear_layer *layer)
{
    return layer->lora != NULL && *layer->lora->on ? layer->lora->down->dim[0] : 0;
}

static struct draft_tensor *block_forward(struct draft_graph *g, const struct draft_transformer_block *b,
                                          struct draft_tensor *x, struct draft_tensor *context,
                                          const struct draft_unet_context *cached)
{
    /* What norms, attention and GEGLU give is read by linears with an adapter. */
    const int64_t before = g->room, rank = rank_on(&b->attn1.to_q);
    g->room = QKV * rank;
    struct draft_tensor *h = layer_norm(g, x, &b->norm1);
    g->room = rank;
    h = self_attention(g, &b->attn1, h);
    x = linear_onto(g, x, h, &b->attn1.to_out);
    h = cross_attention(g, &b->attn2, layer_norm(g, x, &b->norm2), context, cached);
    x = linear_onto(g, draft_both_halves(g, x, context->dim[0]), h, &b->attn2.to_out);
    h = linear(g, layer_norm(g, x, &b->norm3), &b->ff_in); /* [n, s, 8 inner] */
    h = draft_geglu(g, h);                                 /* [n, s, 4 inner] */
    g->room = before;
    return linear_onto(g, x, h, &b->ff_out); /* [n, s, inner] */
}

struct draft_tensor *draft_transformer_2d_forward(struct draft_graph *g, const struct draft_transformer_2d *model,
                                                  struct draft_tensor *x, struct draft_tensor *context,
                                                  const struct draft_unet_context *cached)
{
    if (x == NULL)
        return NULL;
    const int64_t height = x->dim[1], width = x->dim[2];
    struct draft_tensor *h = draft_to_tokens(g, group_norm(g, x, &model->norm)); /* [n, h*w, c] */
    h = linear(g, h, &model->proj_in);                                           /* [n, h*w, inner] */
    for (int i = 0; i < model->blocks; i++)
        h = block_forward(g, &model->block[i], h, context, cached);
    x = draft_to_tokens(g, draft_both_halves(g, x, context->dim[0]));
    return draft_to_image(g, linear_onto(g, x, h, &model->proj_out), height, width);
}

void draft_transformer_2d_precompute(struct draft_graph *g, const struct draft_transformer_2d *model,
                                     struct draft_tensor *context, struct draft_unet_context *cached)
{
    for (int i = 0; i < model->blocks; i++) {
        const struct draft_attention_layer *a = &model->block[i].attn2;
        cached->key[a->place] = linear(g, context, &a->to_k);
        cached->value[a->place] = linear(g, context, &a->to_v);
    }
}
