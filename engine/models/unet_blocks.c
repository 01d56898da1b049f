/* diffusers' unet_2d_blocks.py: (CrossAttn)DownBlock2D, UNetMidBlock2D(CrossAttn), (CrossAttn)UpBlock2D. */
#include <assert.h>
#include <stdio.h>

#include "models/unet_parts.h"

static struct draft_transformer_shape shape_at(const struct unet_config *c, int level)
{
    return (struct draft_transformer_shape){
        .channels = c->channels[level],
        .context = c->context_width,
        .heads = c->heads[level],
        .groups = c->groups,
        .blocks = c->transformer_layers[level],
        .linear_projection = c->linear_projection,
    };
}

static bool make_block(struct draft_loader *loader, struct unet_block *block, int layers, int attentions)
{
    block->layers = layers;
    block->attentions = attentions;
    block->resnet = draft_load_alloc(loader, (size_t)layers * sizeof *block->resnet);
    if (attentions > 0)
        block->attention = draft_load_alloc(loader, (size_t)attentions * sizeof *block->attention);
    return loader->error.code == DRAFT_OK;
}

static void load_down(struct draft_loader *loader, struct draft_unet *unet, int level)
{
    const struct unet_config *c = &unet->config;
    struct unet_block *block = &unet->down[level];
    const struct draft_transformer_shape shape = shape_at(c, level);
    int64_t in = c->channels[level > 0 ? level - 1 : 0], out = c->channels[level];
    snprintf(block->name, sizeof block->name, "down_blocks.%d", level);
    if (!make_block(loader, block, c->layers[level], c->down_attends[level] ? c->layers[level] : 0))
        return;
    for (int i = 0; i < block->layers; i++) {
        draft_load_resnet(loader, &block->resnet[i], i == 0 ? in : out, out, c->time_width, c->groups, c->eps,
                          "%s.resnets.%d", block->name, i);
        if (block->attention != NULL)
            draft_load_transformer_2d(loader, &block->attention[i], &shape, &unet->cross_attentions, "%s.attentions.%d",
                                      block->name, i);
    }
    if (level + 1 < c->levels)
        draft_load_conv(loader, &block->sampler, out, out, 3, 2, 1, "%s.downsamplers.0.conv", block->name);
}

static void load_middle(struct draft_loader *loader, struct draft_unet *unet)
{
    const struct unet_config *c = &unet->config;
    struct unet_block *block = &unet->middle;
    const struct draft_transformer_shape shape = shape_at(c, c->levels - 1);
    snprintf(block->name, sizeof block->name, "mid_block");
    /* get_mid_block gives UNetMidBlock2D no further layers: one resnet alone. */
    if (!make_block(loader, block, c->middle_attends ? 2 : 1, c->middle_attends ? 1 : 0))
        return;
    for (int i = 0; i < block->layers; i++) {
        draft_load_resnet(loader, &block->resnet[i], shape.channels, shape.channels, c->time_width, c->groups, c->eps,
                          "%s.resnets.%d", block->name, i);
        if (i < block->attentions)
            draft_load_transformer_2d(loader, &block->attention[i], &shape, &unet->cross_attentions, "%s.attentions.%d",
                                      block->name, i);
    }
}

/* index counts from the lowest resolution, level is the same block in the config's order. */
static void load_up(struct draft_loader *loader, struct draft_unet *unet, int index)
{
    const struct unet_config *c = &unet->config;
    struct unet_block *block = &unet->up[index];
    int level = c->levels - 1 - index;
    const struct draft_transformer_shape shape = shape_at(c, level);
    int64_t out = c->channels[level];
    int64_t below = c->channels[index > 0 ? level + 1 : level]; /* channels that come from the block before */
    int64_t above = c->channels[level > 0 ? level - 1 : 0];     /* channels of the last skip of this level */
    snprintf(block->name, sizeof block->name, "up_blocks.%d", index);
    int layers = c->layers[level] + 1;
    if (!make_block(loader, block, layers, c->up_attends[level] ? layers : 0))
        return;
    for (int i = 0; i < layers; i++) {
        int64_t skip = i == layers - 1 ? above : out;
        draft_load_resnet(loader, &block->resnet[i], (i == 0 ? below : out) + skip, out, c->time_width, c->groups,
                          c->eps, "%s.resnets.%d", block->name, i);
        if (block->attention != NULL)
            draft_load_transformer_2d(loader, &block->attention[i], &shape, &unet->cross_attentions, "%s.attentions.%d",
                                      block->name, i);
    }
    if (level > 0)
        draft_load_conv(loader, &block->sampler, out, out, 3, 1, 1, "%s.upsamplers.0.conv", block->name);
}

void draft_unet_load_blocks(struct draft_loader *loader, struct draft_unet *unet)
{
    for (int i = 0; i < unet->config.levels; i++)
        load_down(loader, unet, i);
    if (unet->config.has_middle)
        load_middle(loader, unet);
    for (int i = 0; i < unet->config.levels; i++)
        load_up(loader, unet, i);
}

/* The units of recompute and of no-gradient scopes: a resnet, a transformer. */

static struct draft_tensor *resnet_unit(struct draft_graph *g, void *module, struct draft_tensor *const *in)
{
    return draft_resnet_forward(g, module, in[0], in[1]);
}

static struct draft_tensor *skip_resnet_unit(struct draft_graph *g, void *module, struct draft_tensor *const *in)
{
    struct draft_tensor *skip = draft_both_halves(g, in[2], in[0]->dim[0]);
    return draft_resnet_forward(g, module, draft_concat_channels(g, in[0], skip), in[1]);
}

static struct draft_tensor *transformer_unit(struct draft_graph *g, void *module, struct draft_tensor *const *in)
{
    return draft_transformer_2d_forward(g, module, in[0], in[1], NULL);
}

/* The end of a part of a layer: while recording it gives back at once what it has done with. Else the whole layer does,
 * so that one result moves instead of two. */
static struct draft_tensor *part_end(struct draft_graph *g, struct draft_mark mark, struct draft_tensor *y)
{
    return g->recording ? draft_scope_end(g, mark, y) : y;
}

static struct draft_tensor *resnet(struct unet_pass *pass, struct draft_resnet *module, struct draft_tensor *x,
                                   struct draft_tensor *skip)
{
    struct draft_graph *g = pass->g;
    if (!draft_model_continue(g))
        return NULL;
    draft_block unit = skip != NULL ? skip_resnet_unit : resnet_unit;
    struct draft_tensor *in[] = {x, pass->bias[pass->resnets++], skip};
    if (pass->unet->recompute && g->recording)
        return draft_recompute(g, unit, module, in, skip != NULL ? 3 : 2);
    struct draft_mark mark = draft_scope_begin(g);
    return part_end(g, mark, unit(g, module, in));
}

static struct draft_tensor *transformer(struct unet_pass *pass, struct draft_transformer_2d *module,
                                        struct draft_tensor *x)
{
    struct draft_graph *g = pass->g;
    if (!draft_model_continue(g))
        return NULL;
    struct draft_tensor *in[] = {x, pass->call->context};
    if (pass->unet->recompute && g->recording && pass->call->cached == NULL)
        return draft_recompute(g, transformer_unit, module, in, 2);
    struct draft_mark mark = draft_scope_begin(g);
    return part_end(g, mark, draft_transformer_2d_forward(g, module, x, pass->call->context, pass->call->cached));
}

static void push(struct unet_pass *pass, struct draft_tensor *x)
{
    assert(pass->skips < UNET_MAX_SKIPS);
    pass->skip[pass->skips++] = x;
}

struct draft_tensor *draft_unet_down(struct unet_pass *pass, const struct unet_block *block, struct draft_tensor *x)
{
    for (int i = 0; i < block->layers; i++) {
        struct draft_mark mark = draft_scope_begin(pass->g);
        x = resnet(pass, &block->resnet[i], x, NULL); /* [n, h, w, out] */
        if (block->attention != NULL)
            x = transformer(pass, &block->attention[i], x); /* [n, h, w, out] */
        x = draft_scope_end(pass->g, mark, x);
        push(pass, x);
    }
    if (block->sampler.weight != NULL) {
        x = conv(pass->g, x, &block->sampler); /* [n, h/2, w/2, out] */
        push(pass, x);
    }
    return x;
}

struct draft_tensor *draft_unet_middle(struct unet_pass *pass, const struct unet_block *block, struct draft_tensor *x)
{
    struct draft_mark mark = draft_scope_begin(pass->g);
    for (int i = 0; i < block->layers; i++) {
        x = resnet(pass, &block->resnet[i], x, NULL); /* [n, h, w, c] */
        if (i < block->attentions)
            x = transformer(pass, &block->attention[i], x); /* [n, h, w, c] */
    }
    return draft_scope_end(pass->g, mark, x);
}

struct draft_tensor *draft_unet_up(struct unet_pass *pass, const struct unet_block *block, struct draft_tensor *x)
{
    struct draft_graph *g = pass->g;
    for (int i = 0; i < block->layers; i++) {
        struct draft_mark mark = draft_scope_begin(g);
        x = resnet(pass, &block->resnet[i], x, pass->skip[--pass->skips]); /* [n, h, w, out] */
        if (block->attention != NULL)
            x = transformer(pass, &block->attention[i], x); /* [n, h, w, out] */
        x = draft_scope_end(g, mark, x);
    }
    if (block->sampler.weight != NULL && draft_graph_ok(g)) {
        /* To the size of the next skip: twice as large, or one less where the size on the way down was odd. */
        const struct draft_tensor *next = pass->skip[pass->skips - 1];
        struct draft_mark mark = draft_scope_begin(g);
        x = draft_upsample_nearest(g, x, next->dim[1], next->dim[2]); /* [n, 2h, 2w, out] */
        x = draft_scope_end(g, mark, conv(g, x, &block->sampler));    /* [n, 2h, 2w, out] */
    }
    return x;
}
