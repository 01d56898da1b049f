/*
 * CLIP (Radford et al. 2021) as transformers lays it out: CLIPTextModel (Stable Diffusion's text encoder) and CLIPModel
 * (reward models). Pre-norm transformers; quick_gelu or gelu from the config; text pooled at argmax(ids) when
 * eos_token_id is 2 (legacy configs), at the first eos_token_id otherwise.
 */
#ifndef DRAFT_MODELS_CLIP_H
#define DRAFT_MODELS_CLIP_H

#include "autograd/graph.h"
#include "tensor/weights.h"

struct draft_clip_text;
struct draft_clip; /* both towers and the projections */

/* A CLIPTextModel folder (text_encoder/): config.json + weights, keys with or without "text_model.". */
struct draft_clip_text *draft_clip_text_open(const char *folder, struct draft_arena *arena, struct draft_error *err);
/* ids I32 [n, s] -> last_hidden_state after the final layer norm [n, s, width] */
struct draft_tensor *draft_clip_text_forward(struct draft_graph *g, const struct draft_clip_text *text,
                                             struct draft_tensor *ids);
/* Visits every weight of a text encoder opened by itself, by checkpoint key. */
void draft_clip_text_each_weight(const struct draft_clip_text *text,
                                 void (*visit)(void *context, struct draft_tensor *weight), void *context);
int64_t draft_clip_text_width(const struct draft_clip_text *text);
int64_t draft_clip_text_max_positions(const struct draft_clip_text *text);
int64_t draft_clip_text_vocabulary(const struct draft_clip_text *text);

/* A CLIPModel folder. Everything lives in `arena`. */
struct draft_clip *draft_clip_open(const char *folder, struct draft_arena *arena, struct draft_error *err);
/* The same without its text tower: draft_clip_image_embed() alone may be called. */
struct draft_clip *draft_clip_open_image(const char *folder, struct draft_arena *arena, struct draft_error *err);
const struct draft_clip_text *draft_clip_text_tower(const struct draft_clip *clip);
/* ids [n, s] -> text_embeds before normalisation [n, projection] */
struct draft_tensor *draft_clip_text_embed(struct draft_graph *g, const struct draft_clip *clip,
                                           struct draft_tensor *ids);
/* pixels, normalised, [n, size, size, 3] -> image_embeds before normalisation [n, projection]. *hidden (may be NULL)
 * receives vision_model's last_hidden_state. */
struct draft_tensor *draft_clip_image_embed(struct draft_graph *g, const struct draft_clip *clip,
                                            struct draft_tensor *pixels, struct draft_tensor **hidden);
/* exp(logit_scale) * cos -> [n] */
struct draft_tensor *draft_clip_score(struct draft_graph *g, const struct draft_clip *clip, struct draft_tensor *image,
                                      struct draft_tensor *text);
int64_t draft_clip_projection(const struct draft_clip *clip); /* width of the embeddings */
int64_t draft_clip_image_size(const struct draft_clip *clip);

#endif
