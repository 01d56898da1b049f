/*
 * ImageReward (Xu et al. 2023): how much people like a picture for its prompt, by a BERT that reads the prompt and
 * looks at the picture through BLIP's image tower. Normalised: about 0 on average, one standard deviation to 1.
 *
 * The folder holds ImageReward.safetensors, med_config.json, and the vocab.txt of bert-base-uncased. A prompt is read
 * up to 35 tokens. Unlike with CLIP the prompt meets the picture inside the network; all prompts are padded to one
 * length, so that the same ops serve any of them.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/image_reward.h"
#include "models/wordpiece.h"
#include "ops/ops.h"
#include "rewards/picture.h"
#include "rewards/reward.h"
#include "rewards/weights_file.h"

enum { MAX_TOKENS = 35 };

struct imagereward {
    struct draft_reward reward;
    struct draft_image_reward *model;
    struct draft_wordpiece *words;
    struct draft_picture_form form;
    int length; /* tokens of a prompt, at most */
};

static void close_imagereward(struct draft_reward *reward)
{
    struct imagereward *r = (struct imagereward *)reward;
    draft_wordpiece_close(r->words);
    draft_prompt_memory_destroy(r->reward.prompts);
    free(r);
}

static bool load(struct imagereward *r, const char *folder, struct draft_arena *arena, struct draft_error *err)
{
    static const char *const stems[] = {"ImageReward", "model", NULL};
    char path[4096];
    const char *stem = draft_reward_weights_stem("imagereward", folder, stems, err);
    r->model = stem != NULL ? draft_image_reward_open(folder, stem, arena, err) : NULL;
    if (r->model == NULL)
        return false;
    if (snprintf(path, sizeof path, "%s/vocab.txt", folder) >= (int)sizeof path)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "imagereward: the folder has too long a name");
    r->reward.prompts = draft_prompt_memory_create(err);
    r->words = r->reward.prompts != NULL ? draft_wordpiece_open(path, err) : NULL;
    if (r->words == NULL)
        return false;
    int64_t known = draft_image_reward_vocabulary(r->model), positions = draft_image_reward_positions(r->model);
    if (draft_wordpiece_vocabulary(r->words) > known)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "%s: %d tokens with [DEC] and [ENC], the model's vocab_size is %lld", path,
                          draft_wordpiece_vocabulary(r->words), (long long)known);
    if (positions < 2)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "%s/med_config.json: \"max_position_embeddings\" is %lld, expected at least 2", folder,
                          (long long)positions);
    r->length = positions < MAX_TOKENS ? (int)positions : MAX_TOKENS;
    r->form = draft_clip_picture;
    r->form.short_side = r->form.crop = draft_image_reward_size(r->model);
    return true;
}

static struct draft_reward *open_imagereward(const struct draft_reward_spec *spec, struct draft_arena *arena,
                                             struct draft_error *err)
{
    if (spec->path[0] == '\0' || spec->options[0] != '\0') {
        draft_fail(err, DRAFT_INVALID_ARGUMENT,
                   "imagereward: the reward needs a folder and takes no options: imagereward:PATH");
        return NULL;
    }
    struct imagereward *r = calloc(1, sizeof *r);
    if (r == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory for the reward imagereward");
        return NULL;
    }
    r->reward.kind = &draft_reward_imagereward;
    if (load(r, spec->path, arena, err))
        return &r->reward;
    close_imagereward(&r->reward);
    return NULL;
}

static struct draft_tensor *read_one(struct draft_graph *g, void *context, const char *prompt)
{
    const struct imagereward *r = context;
    int count;
    struct draft_tensor *ids = draft_new(g, DRAFT_I32, 2, (int64_t[]){1, r->length});
    if (ids == NULL || !draft_wordpiece_encode(r->words, prompt, r->length, ids->data, &count, &g->error))
        return NULL;
    memset((int32_t *)ids->data + count, 0, (size_t)(r->length - count) * sizeof(int32_t)); /* nobody sees it */
    return draft_image_reward_read(g, r->model, ids, count);
}

/* [n, length + 1, text width]: see draft_image_reward_read */
static struct draft_tensor *read_prompts(struct draft_reward *reward, struct draft_graph *g, const char *const *prompts,
                                         int64_t n)
{
    struct imagereward *r = (struct imagereward *)reward;
    const int64_t dim[] = {r->length + 1, draft_image_reward_text_width(r->model)};
    return draft_prompt_memory_embed(r->reward.prompts, g, prompts, n, 2, dim, read_one, r);
}

static struct draft_tensor *score(struct draft_reward *reward, struct draft_graph *g, struct draft_tensor *images,
                                  struct draft_tensor *text)
{
    const struct imagereward *r = (const struct imagereward *)reward;
    if (!draft_graph_ok(g))
        return NULL;
    assert(images->rank == 4 && images->dim[3] == 3);
    struct draft_tensor *pixels = draft_picture_cut_torchvision(g, &r->form, images);
    return draft_image_reward_judge(g, r->model, draft_image_reward_look(g, r->model, pixels), text);
}

const struct draft_reward_kind draft_reward_imagereward = {
    .name = "imagereward",
    .takes_path = true,
    .open = open_imagereward,
    .read = read_prompts,
    .score = score,
    .close = close_imagereward,
};
