/*
 * How well a picture fits its prompt: exp(logit_scale) * cos(image, text) of any CLIPModel folder (CLIP score). The
 * picture takes CLIPImageProcessor's way, the text's side has no gradient: rewards/clip_folder.c.
 */
#include "rewards/clip_folder.h"

static struct draft_reward *open_clip(const struct draft_reward_spec *spec, struct draft_arena *arena,
                                      struct draft_error *err)
{
    return draft_clip_folder_open(&draft_reward_clip, spec, arena, err);
}

const struct draft_reward_kind draft_reward_clip = {
    .name = "clip",
    .takes_path = true,
    .open = open_clip,
    .read = draft_clip_folder_read,
    .score = draft_clip_folder_score,
    .close = draft_clip_folder_close,
};
