/* transformers' modeling_clip.py: CLIPVisionModel. */
#include "models/clip_parts.h"

void draft_clip_load_vision(struct draft_loader *loader, struct clip_vision *vision,
                            const struct clip_vision_config *config)
{
    const int64_t width = config->tower.width, side = config->size / config->patch;
    vision->config = *config;
    vision->class_embedding = draft_load_tensor(loader, "vision_model.embeddings.class_embedding", 1, &width);
    draft_load_patches(loader, &vision->patch_embedding, config->channels, width, (int)config->patch,
                       "vision_model.embeddings.patch_embedding");
    vision->position_embedding = draft_load_tensor(loader, "vision_model.embeddings.position_embedding.weight", 2,
                                                   (const int64_t[]){1 + side * side, width});
    /* "pre_layrnorm" is how the checkpoints spell it. */
    draft_load_layer_norm(loader, &vision->pre_layernorm, width, config->tower.eps, "vision_model.pre_layrnorm");
    draft_clip_load_encoder(loader, &vision->encoder, &config->tower, "vision_model.");
    draft_load_layer_norm(loader, &vision->post_layernorm, width, config->tower.eps, "vision_model.post_layernorm");
}

struct draft_tensor *draft_clip_vision_forward(struct draft_graph *g, const struct clip_vision *vision,
                                               struct draft_tensor *pixels)
{
    const struct clip_vision_config *c = &vision->config;
    char shape[96];
    if (!draft_graph_ok(g))
        return NULL;
    if (pixels->rank != 4 || pixels->dim[1] != c->size || pixels->dim[2] != c->size || pixels->dim[3] != c->channels) {
        draft_fail(&g->error, DRAFT_INVALID_ARGUMENT, "the image tower takes pixels [n, %d, %d, %d], not %s",
                   (int)c->size, (int)c->size, (int)c->channels,
                   draft_shape_text(pixels->rank, pixels->dim, shape, sizeof shape));
        return NULL;
    }
    struct draft_mark mark = draft_scope_begin(g);
    struct draft_tensor *x = conv(g, enter(g, pixels), &vision->patch_embedding); /* [n, side, side, width] */
    if (x != NULL)
        x = draft_to_tokens(g, x);                          /* [n, patches, width] */
    x = draft_prepend_token(g, vision->class_embedding, x); /* [n, 1 + patches, width] */
    x = draft_add_positions(g, x, vision->position_embedding);
    x = layer_norm(g, x, &vision->pre_layernorm);
    return draft_scope_end(g, mark, draft_clip_encoder_forward(g, &vision->encoder, x, false));
}

struct draft_tensor *draft_clip_vision_pool(struct draft_graph *g, const struct clip_vision *vision,
                                            struct draft_tensor *hidden)
{
    if (!draft_graph_ok(g))
        return NULL;
    return layer_norm(g, draft_select_token(g, hidden, NULL), &vision->post_layernorm); /* [n, width] */
}
