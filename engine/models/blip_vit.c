#include "models/blip_vit.h"

#include <stdio.h>
#include <string.h>

enum { HEAD_WIDTH = 64, MAX_LAYERS = 512, MAX_SIDE = 1024 };

static const float EPS = 1e-6f;

static const char *key(char out[160], const char *prefix, const char *name)
{
    snprintf(out, 160, "%s%s", prefix, name);
    return out;
}

static void read_shapes(struct draft_loader *loader, struct blip_vit *vit, const char *prefix)
{
    char name[160], block[64];
    int64_t proj[4] = {0}, positions[3] = {0}, fc1[2] = {0}, side = 1;
    draft_load_shape(loader, key(name, prefix, "patch_embed.proj.weight"), 4, "[width, 3, patch, patch]", proj);
    draft_load_shape(loader, key(name, prefix, "pos_embed"), 3, "[1, 1 + patches, width]", positions);
    draft_load_shape(loader, key(name, prefix, "blocks.0.mlp.fc1.weight"), 2, "[mlp width, width]", fc1);
    for (vit->layers = 0; vit->layers < MAX_LAYERS; vit->layers++) {
        snprintf(block, sizeof block, "blocks.%d.norm1.weight", vit->layers);
        if (!draft_weights_has(loader->weights, key(name, prefix, block)))
            break;
    }
    if (loader->error.code != DRAFT_OK)
        return;
    while (side * side < positions[1] - 1 && side < MAX_SIDE)
        side++;
    if (side * side != positions[1] - 1 || proj[2] > MAX_SIDE)
        draft_fail(&loader->error, DRAFT_INVALID_ARGUMENT,
                   "%spos_embed has %lld rows for patches of %lld, expected 1 and those of a square picture", prefix,
                   (long long)positions[1], (long long)proj[2]);
    if (proj[0] % HEAD_WIDTH != 0)
        draft_fail(
            &loader->error, DRAFT_INVALID_ARGUMENT,
            "%spatch_embed.proj.weight has a width of %lld, expected a multiple of %d: BLIP's heads are that wide",
            prefix, (long long)proj[0], HEAD_WIDTH);
    vit->width = proj[0];
    vit->wide = fc1[0];
    vit->patch = proj[2];
    vit->size = side * proj[2];
    vit->heads = (int)(proj[0] / HEAD_WIDTH);
}

static void load_block(struct draft_loader *loader, const struct blip_vit *vit, struct blip_vit_block *b,
                       const char *name)
{
    char weight[192], bias[192];
    snprintf(weight, sizeof weight, "%s.attn.qkv.weight", name);
    snprintf(bias, sizeof bias, "%s.attn.qkv.bias", name);
    draft_load_layer_norm(loader, &b->norm1, vit->width, EPS, "%s.norm1", name);
    draft_load_fused_linear(loader, (struct draft_linear_layer *[]){&b->q, &b->k, &b->v}, 3, vit->width, vit->width,
                            weight, bias);
    draft_load_linear(loader, &b->proj, vit->width, vit->width, true, "%s.attn.proj", name);
    draft_load_layer_norm(loader, &b->norm2, vit->width, EPS, "%s.norm2", name);
    draft_load_linear(loader, &b->fc1, vit->width, vit->wide, true, "%s.mlp.fc1", name);
    draft_load_linear(loader, &b->fc2, vit->wide, vit->width, true, "%s.mlp.fc2", name);
}

/* A tensor with leading dimensions of 1, without them. */
static struct draft_tensor *squeezed(struct draft_tensor *x, int rank)
{
    if (x == NULL)
        return NULL;
    memmove(x->dim, x->dim + x->rank - rank, (size_t)rank * sizeof *x->dim);
    x->rank = rank;
    return x;
}

void draft_blip_vit_load(struct draft_loader *loader, struct blip_vit *vit, const char *prefix)
{
    char name[160];
    read_shapes(loader, vit, prefix);
    if (loader->error.code != DRAFT_OK)
        return;
    int64_t side = vit->size / vit->patch;
    vit->cls_token =
        squeezed(draft_load_tensor(loader, key(name, prefix, "cls_token"), 3, (int64_t[]){1, 1, vit->width}), 1);
    vit->pos_embed = squeezed(
        draft_load_tensor(loader, key(name, prefix, "pos_embed"), 3, (int64_t[]){1, 1 + side * side, vit->width}), 2);
    draft_load_conv(loader, &vit->patch_embed, 3, vit->width, (int)vit->patch, (int)vit->patch, 0, "%spatch_embed.proj",
                    prefix);
    vit->block = draft_load_alloc(loader, (size_t)vit->layers * sizeof *vit->block);
    for (int i = 0; i < vit->layers && vit->block != NULL; i++) {
        snprintf(name, sizeof name, "%sblocks.%d", prefix, i);
        load_block(loader, vit, &vit->block[i], name);
    }
    draft_load_layer_norm(loader, &vit->norm, vit->width, EPS, "%snorm", prefix);
}

static struct draft_tensor *block_forward(struct draft_graph *g, const struct blip_vit_block *b, int heads,
                                          struct draft_tensor *x)
{
    struct draft_tensor *h = layer_norm(g, x, &b->norm1); /* [n, s, width] */
    struct draft_tensor *q = linear(g, h, &b->q), *k = linear(g, h, &b->k), *v = linear(g, h, &b->v);
    x = draft_add(g, x, linear(g, draft_attention(g, q, k, v, heads, false), &b->proj));
    h = linear(g, layer_norm(g, x, &b->norm2), &b->fc1); /* [n, s, wide] */
    return draft_add(g, x, linear(g, draft_activate(g, h, DRAFT_GELU), &b->fc2));
}

struct draft_tensor *draft_blip_vit_forward(struct draft_graph *g, const struct blip_vit *vit,
                                            struct draft_tensor *pixels)
{
    struct draft_mark mark = draft_scope_begin(g);
    struct draft_tensor *x = conv(g, enter(g, pixels), &vit->patch_embed); /* [n, side, side, width] */
    x = draft_prepend_token(g, vit->cls_token, draft_to_tokens(g, x));
    x = draft_add_positions(g, x, vit->pos_embed); /* [n, 1 + patches, width] */
    for (int i = 0; i < vit->layers && draft_model_continue(g); i++) {
        struct draft_mark inner = draft_scope_begin(g);
        x = draft_scope_end(g, inner, block_forward(g, &vit->block[i], vit->heads, x));
    }
    return draft_scope_end(g, mark, layer_norm(g, x, &vit->norm));
}
