/*
 * PickScore (Kirstain et al. 2023): what people prefer of two pictures of a prompt, by a CLIP-H tuned on such choices.
 * Its formula is clip's, exp(logit_scale) * cos(image, text), typically 18 to 24; its folder is a CLIPModel's with the
 * tokenizer of CLIP-ViT-H-14.
 */
#include "rewards/clip_folder.h"

static struct draft_reward *open_pickscore(const struct draft_reward_spec *spec, struct draft_arena *arena,
                                           struct draft_error *err)
{
    return draft_clip_folder_open(&draft_reward_pickscore, spec, arena, err);
}

const struct draft_reward_kind draft_reward_pickscore = {
    .name = "pickscore",
    .takes_path = true,
    .open = open_pickscore,
    .read = draft_clip_folder_read,
    .score = draft_clip_folder_score,
    .close = draft_clip_folder_close,
};
