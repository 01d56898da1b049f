/* transformers' modeling_clip.py: CLIPEncoder, shared by the two towers. */
#include <stdio.h>

#include "models/clip_parts.h"

void draft_clip_load_encoder(struct draft_loader *loader, struct clip_encoder *encoder,
                             const struct clip_tower_config *config, const char *prefix)
{
    char name[96];
    const int64_t width = config->width;
    encoder->config = *config;
    encoder->layer = draft_load_alloc(loader, (size_t)config->layers * sizeof *encoder->layer);
    for (int i = 0; i < config->layers && encoder->layer != NULL; i++) {
        struct clip_layer *l = &encoder->layer[i];
        snprintf(name, sizeof name, "%sencoder.layers.%d", prefix, i);
        draft_load_layer_norm(loader, &l->layer_norm1, width, config->eps, "%s.layer_norm1", name);
        draft_load_linear(loader, &l->q_proj, width, width, true, "%s.self_attn.q_proj", name);
        draft_load_linear(loader, &l->k_proj, width, width, true, "%s.self_attn.k_proj", name);
        draft_load_linear(loader, &l->v_proj, width, width, true, "%s.self_attn.v_proj", name);
        draft_load_linear(loader, &l->out_proj, width, width, true, "%s.self_attn.out_proj", name);
        draft_load_layer_norm(loader, &l->layer_norm2, width, config->eps, "%s.layer_norm2", name);
        draft_load_linear(loader, &l->fc1, width, config->wide, true, "%s.mlp.fc1", name);
        draft_load_linear(loader, &l->fc2, config->wide, width, true, "%s.mlp.fc2", name);
    }
}

static struct draft_tensor *layer_forward(struct draft_graph *g, const struct clip_encoder *encoder,
                                          const struct clip_layer *l, struct draft_tensor *x, bool causal)
{
    struct draft_tensor *h = layer_norm(g, x, &l->layer_norm1); /* [n, s, width] */
    struct draft_tensor *q = linear(g, h, &l->q_proj), *k = linear(g, h, &l->k_proj), *v = linear(g, h, &l->v_proj);
    h = draft_attention(g, q, k, v, encoder->config.heads, causal);
    x = linear_onto(g, x, h, &l->out_proj);                    /* [n, s, width] */
    h = linear(g, layer_norm(g, x, &l->layer_norm2), &l->fc1); /* [n, s, wide] */
    return linear_onto(g, x, draft_activate(g, h, encoder->config.activation), &l->fc2);
}

struct draft_tensor *draft_clip_encoder_forward(struct draft_graph *g, const struct clip_encoder *encoder,
                                                struct draft_tensor *x, bool causal)
{
    for (int i = 0; i < encoder->config.layers && draft_model_continue(g); i++) {
        struct draft_mark mark = draft_scope_begin(g);
        x = draft_scope_end(g, mark, layer_forward(g, encoder, &encoder->layer[i], x, causal));
    }
    return draft_graph_ok(g) ? x : NULL;
}
