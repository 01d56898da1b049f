/*
 * What the rewards share that stand on CLIP: the model, its tokenizer, its picture's form.
 * Internal to rewards/.
 */
#ifndef DRAFT_REWARDS_CLIP_FOLDER_H
#define DRAFT_REWARDS_CLIP_FOLDER_H

#include "models/clip.h"
#include "models/tokenizer.h"
#include "rewards/picture.h"
#include "rewards/reward.h"

struct clip_folder {
    struct draft_reward reward; /* so that a reward can be this and nothing more */
    struct draft_clip *clip;
    struct draft_tokenizer *tokenizer; /* NULL: pictures alone */
    struct draft_picture_form form;
    int length; /* tokens of a prompt */
    /* A prompt as its tokenizer is to read it, malloc'd, NULL when memory is out; NULL: as it is written. */
    char *(*mend)(const char *prompt);
};

/* The folder has a path and takes no options; otherwise refused in the kind's name. */
bool draft_clip_folder_check(const struct draft_reward_kind *kind, const struct draft_reward_spec *spec,
                             struct draft_error *err);
/* A CLIPModel folder's weights and, when it is there, preprocessor_config.json. */
bool draft_clip_folder_load(struct clip_folder *clip, const char *folder, struct draft_arena *arena,
                            struct draft_error *err);
/* The same without the text tower, for a reward of pictures alone. */
bool draft_clip_folder_load_image(struct clip_folder *clip, const char *folder, struct draft_arena *arena,
                                  struct draft_error *err);
/* The tokenizer of `folder` for clip->clip. */
bool draft_clip_folder_load_text(struct clip_folder *clip, const char *folder, struct draft_error *err);
void draft_clip_folder_close(struct draft_reward *reward); /* frees it; also when half open */

/* open, read and score of the kinds that are exp(logit_scale) * cos(image, text) of a CLIPModel folder. */
struct draft_reward *draft_clip_folder_open(const struct draft_reward_kind *kind, const struct draft_reward_spec *spec,
                                            struct draft_arena *arena, struct draft_error *err);
struct draft_tensor *draft_clip_folder_read(struct draft_reward *reward, struct draft_graph *g,
                                            const char *const *prompts, int64_t n); /* [n, projection] */
struct draft_tensor *draft_clip_folder_score(struct draft_reward *reward, struct draft_graph *g,
                                             struct draft_tensor *images, struct draft_tensor *text);

#endif
