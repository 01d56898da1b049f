/*
 * Human Preference Score v2 and v2.1 (Wu et al. 2023): cos(image, text) of an open_clip ViT-H-14 tuned on people's
 * choices. (Published tables show it times 100; a reward is its own number.) The whole picture is seen: its longest
 * side is resized to the model's, the rest is black.
 *
 * The folder holds open_clip's tensors (HPS_v2.1_compressed.safetensors) or a CLIPModel that they were converted to,
 * and the tokenizer of CLIP-ViT-H-14 (vocab.json, merges.txt). open_clip's own tokenizer gives the same ids for the
 * text of open_clip_text.h, but for text that was decoded wrongly and capital sigma at a word's end.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "models/open_clip.h"
#include "ops/ops.h"
#include "rewards/clip_folder.h"
#include "rewards/open_clip_text.h"
#include "rewards/weights_file.h"

static bool load(struct clip_folder *hps, const char *folder, struct draft_arena *arena, struct draft_error *err)
{
    static const char *const stems[] = {"open_clip_model", "HPS_v2.1_compressed", "HPS_v2_compressed", "model", NULL};
    char path[4096];
    bool converted =
        (size_t)snprintf(path, sizeof path, "%s/config.json", folder) < sizeof path && access(path, F_OK) == 0;
    const char *stem = converted ? NULL : draft_reward_weights_stem("hps", folder, stems, err);
    if (converted)
        hps->clip = draft_clip_open(folder, arena, err);
    else if (stem != NULL)
        hps->clip = draft_open_clip_open(folder, stem, arena, err);
    if (hps->clip == NULL)
        return false;
    hps->form = draft_clip_picture;
    hps->form.short_side = hps->form.crop = draft_clip_image_size(hps->clip);
    return draft_clip_folder_load_text(hps, folder, err);
}

static struct draft_reward *open_hps(const struct draft_reward_spec *spec, struct draft_arena *arena,
                                     struct draft_error *err)
{
    if (!draft_clip_folder_check(&draft_reward_hps, spec, err))
        return NULL;
    struct clip_folder *hps = calloc(1, sizeof *hps);
    if (hps == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory for the reward hps");
        return NULL;
    }
    hps->reward.kind = &draft_reward_hps;
    hps->mend = draft_open_clip_text;
    if (load(hps, spec->path, arena, err))
        return &hps->reward;
    draft_clip_folder_close(&hps->reward);
    return NULL;
}

static struct draft_tensor *score(struct draft_reward *reward, struct draft_graph *g, struct draft_tensor *images,
                                  struct draft_tensor *text)
{
    struct clip_folder *hps = (struct clip_folder *)reward;
    if (!draft_graph_ok(g))
        return NULL;
    assert(images->rank == 4 && images->dim[3] == 3);
    struct draft_tensor *pixels = draft_picture_pad(g, &hps->form, images);
    return draft_cosine(g, draft_clip_image_embed(g, hps->clip, pixels, NULL), text); /* [n] */
}

const struct draft_reward_kind draft_reward_hps = {
    .name = "hps",
    .takes_path = true,
    .open = open_hps,
    .read = draft_clip_folder_read,
    .score = score,
    .close = draft_clip_folder_close,
};
