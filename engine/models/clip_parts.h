/* What clip_config.c, clip_encoder.c, clip_text.c, clip_vision.c, clip.c and open_clip.c share. Internal to models/. */
#ifndef DRAFT_MODELS_CLIP_PARTS_H
#define DRAFT_MODELS_CLIP_PARTS_H

#include "base/json.h"
#include "models/clip.h"
#include "models/layers.h"

/* A tower's transformer, as text_config or vision_config give it. */
struct clip_tower_config {
    int64_t width, wide; /* hidden_size, intermediate_size */
    int layers, heads;
    enum draft_activation activation;
    float eps;
};

struct clip_text_config {
    struct clip_tower_config tower;
    int64_t vocabulary, positions;
    int64_t end_token; /* eos_token_id */
};

struct clip_vision_config {
    struct clip_tower_config tower;
    int64_t size, patch, channels;
};

struct clip_config {
    struct clip_text_config text;
    struct clip_vision_config vision;
    int64_t projection;
};

/* folder/config.json of a CLIPTextModel, of a CLIPModel. */
bool draft_clip_text_config_read(struct clip_text_config *config, const char *path, struct draft_error *err);
/* The same from text; sentences name `shown`. */
bool draft_clip_text_config_parse(struct clip_text_config *config, const char *text, const char *shown,
                                  struct draft_error *err);
bool draft_clip_config_read(struct clip_config *config, const char *path, struct draft_error *err);

/* CLIPEncoder: pre-norm transformer layers. */
struct clip_layer {
    struct draft_norm_layer layer_norm1, layer_norm2;
    struct draft_linear_layer q_proj, k_proj, v_proj, out_proj, fc1, fc2;
};
struct clip_encoder {
    struct clip_tower_config config;
    struct clip_layer *layer;
};
void draft_clip_load_encoder(struct draft_loader *loader, struct clip_encoder *encoder,
                             const struct clip_tower_config *config, const char *prefix);
/* x [n, s, width] -> [n, s, width] */
struct draft_tensor *draft_clip_encoder_forward(struct draft_graph *g, const struct clip_encoder *encoder,
                                                struct draft_tensor *x, bool causal);

struct draft_clip_text {
    struct clip_text_config config;
    struct draft_tensor *token_embedding, *position_embedding; /* [vocabulary, width], [positions, width] */
    struct clip_encoder encoder;
    struct draft_norm_layer final_layer_norm;
    struct draft_weight_link *weights; /* of a text encoder by itself; in a CLIPModel NULL */
};
void draft_clip_load_text(struct draft_loader *loader, struct draft_clip_text *text,
                          const struct clip_text_config *config);
/* Pooled at the end-of-text token: [n, width]. */
struct draft_tensor *draft_clip_text_pool(struct draft_graph *g, const struct draft_clip_text *text,
                                          struct draft_tensor *hidden, const struct draft_tensor *ids);

struct clip_vision {
    struct clip_vision_config config;
    struct draft_tensor *class_embedding, *position_embedding; /* [width], [1 + patches, width] */
    struct draft_conv_layer patch_embedding;                   /* no bias */
    struct draft_norm_layer pre_layernorm, post_layernorm;
    struct clip_encoder encoder;
};
void draft_clip_load_vision(struct draft_loader *loader, struct clip_vision *vision,
                            const struct clip_vision_config *config);
/* pixels [n, size, size, c] -> last_hidden_state [n, 1 + patches, width] */
struct draft_tensor *draft_clip_vision_forward(struct draft_graph *g, const struct clip_vision *vision,
                                               struct draft_tensor *pixels);
/* The class token through post_layernorm: [n, width]. */
struct draft_tensor *draft_clip_vision_pool(struct draft_graph *g, const struct clip_vision *vision,
                                            struct draft_tensor *hidden);

struct draft_clip {
    struct draft_clip_text text;
    struct clip_vision vision;
    struct draft_linear_layer text_projection, visual_projection; /* no bias */
    float scale;                                                  /* exp(logit_scale) */
};
/* logit_scale, whose exponential must be finite. */
void draft_clip_load_scale(struct draft_loader *loader, struct draft_clip *clip);

#endif
