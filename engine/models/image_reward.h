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
/* One picture's tokens [1, t, width] and its prompt's ids I32 [1, s] without padding -> the normalised score [1] */
struct draft_tensor *draft_image_reward_judge(struct draft_graph *g, const struct draft_image_reward *model,
                                              struct draft_tensor *tokens, struct draft_tensor *ids);

#endif
