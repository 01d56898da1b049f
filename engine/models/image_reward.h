/*
 * The network of ImageReward (Xu et al. 2023): BLIP's image tower, a BERT that reads the prompt and looks at the
 * picture, and a head on its first token. Tensor names of THUDM/ImageReward's checkpoint.
 */
#ifndef DRAFT_MODELS_IMAGE_REWARD_H
#define DRAFT_MODELS_IMAGE_REWARD_H

#include "autograd/graph.h"

struct draft_image_reward;

/* `stem`.safetensors and med_config.json in `folder`. Everything lives in `arena`. */
struct draft_image_reward *draft_image_reward_open(const char *folder, const char *stem, struct draft_arena *arena,
                                                   struct draft_error *err);
int64_t draft_image_reward_size(const struct draft_image_reward *model);       /* pixels of a side */
int64_t draft_image_reward_vocabulary(const struct draft_image_reward *model); /* ids it knows */
int64_t draft_image_reward_positions(const struct draft_image_reward *model);  /* tokens it can read */
/* pixels, normalised, [n, size, size, 3] -> tokens [n, t, width] */
struct draft_tensor *draft_image_reward_look(struct draft_graph *g, const struct draft_image_reward *model,
                                             struct draft_tensor *pixels);
/* A prompt's `count` ids I32 [1, s], padded, -> what judge wants of it, F32 [s + 1, text_width]: its embeddings, those
 * of the padding, and a row that begins with `count`. No gradient. */
struct draft_tensor *draft_image_reward_read(struct draft_graph *g, const struct draft_image_reward *model,
                                             struct draft_tensor *ids, int count);
int64_t draft_image_reward_text_width(const struct draft_image_reward *model);
/* Pictures' tokens [n, t, width] and what was read of their prompts [n, s + 1, text_width] -> normalised scores [n] */
struct draft_tensor *draft_image_reward_judge(struct draft_graph *g, const struct draft_image_reward *model,
                                              struct draft_tensor *tokens, struct draft_tensor *text);

#endif
