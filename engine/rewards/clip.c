/*
 * How well a picture fits its prompt: exp(logit_scale) * cos(image, text) of any CLIPModel folder (PickScore, Kirstain
 * et al. 2023; CLIP score). The picture takes CLIPImageProcessor's way, differentiably: short side to the size, the
 * other to int(size * long / short), bicubic with antialias; centre crop; normalisation.
 *
 * The text's side has no gradient. Each prompt is embedded by itself, so that its numbers never depend on which others
 * were asked for before or beside it, and is remembered.
 */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/json.h"
#include "models/clip.h"
#include "models/tokenizer.h"
#include "ops/ops.h"
#include "rewards/reward.h"

enum { SLOTS = 2048 }; /* remembered prompts; a newcomer takes the place of the one with the same hash */

struct embedded {
    char *prompt;
    float *numbers; /* [width] */
};

struct clip_reward {
    struct draft_reward reward;
    struct draft_clip *clip;
    struct draft_tokenizer *tokenizer;
    int64_t short_side, crop;
    float mean[3], std[3];
    int length;    /* tokens of a prompt */
    int64_t width; /* of the embeddings; 0 until the first */
    struct embedded slot[SLOTS];
};

/* --- preprocessor_config.json ----------------------------------------------------------------------------------------
 */

/* "size": 224, {"shortest_edge": 224}; "crop_size": 224, {"height": 224, "width": 224} */
static bool read_size(struct draft_json *json, const char *key, bool crop, int64_t *size, struct draft_error *err)
{
    struct draft_error not_object = {0};
    struct draft_json *child = draft_json_child(json, key, &not_object);
    if (child == NULL)
        return draft_json_int(json, key, 1, 16384, *size, size, err);
    if (!crop)
        return draft_json_int(child, "shortest_edge", 1, 16384, *size, size, err) && draft_json_finish(child, err);
    int64_t width = *size;
    return draft_json_int(child, "height", 1, 16384, *size, size, err) &&
           draft_json_int(child, "width", *size, *size, width, &width, err) && draft_json_finish(child, err);
}

static bool read_triple(struct draft_json *json, const char *key, const char *shown, float *out,
                        struct draft_error *err)
{
    double values[3];
    int count;
    if (!draft_json_doubles(json, key, values, 3, &count, err))
        return false;
    if (count != 0 && count != 3)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: \"%s\" holds %d numbers, expected 3", shown, key, count);
    for (int c = 0; c < count; c++)
        out[c] = (float)values[c];
    return true;
}

static bool read_rescale(struct draft_json *json, const char *shown, struct draft_error *err)
{
    double factor;
    if (!draft_json_double(json, "rescale_factor", 1 / 255.0, &factor, err))
        return false;
    if (fabs(factor * 255 - 1) > 1e-6)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: \"rescale_factor\" is %g, expected 1/255", shown, factor);
    return true;
}

static bool read_preprocessor(struct clip_reward *clip, struct draft_json *json, const char *shown,
                              struct draft_error *err)
{
    static const char *const inert[] = {
        "feature_extractor_type", "image_processor_type", "processor_class", "_valid_processor_keys", "crop_pct", NULL};
    static const char *const always[] = {"do_resize", "do_center_crop", "do_normalize", "do_rescale", "do_convert_rgb"};
    draft_json_ignore(json, inert);
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        if (!draft_json_require(json, always[i], "true", err))
            return false;
    if (!draft_json_require(json, "resample", "3", err) || /* PIL's bicubic */
        !read_rescale(json, shown, err) || !read_size(json, "size", false, &clip->short_side, err) ||
        !read_size(json, "crop_size", true, &clip->crop, err) ||
        !read_triple(json, "image_mean", shown, clip->mean, err) ||
        !read_triple(json, "image_std", shown, clip->std, err))
        return false;
    for (int c = 0; c < 3; c++)
        if (!(clip->std[c] > 0))
            return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: \"image_std\" holds %g, expected numbers above 0",
                              shown, (double)clip->std[c]);
    return draft_json_finish(json, err);
}

static bool set_preprocessing(struct clip_reward *clip, const char *folder, struct draft_error *err)
{
    int64_t size = draft_clip_image_size(clip->clip);
    static const float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f},
                       std[3] = {0.26862954f, 0.26130258f, 0.27577711f};
    clip->short_side = clip->crop = size;
    memcpy(clip->mean, mean, sizeof mean);
    memcpy(clip->std, std, sizeof std);
    char path[640];
    snprintf(path, sizeof path, "%s/preprocessor_config.json", folder);
    if (access(path, F_OK) != 0)
        return true; /* CLIPImageProcessor's own values, at the model's size */
    struct draft_json *json = draft_json_open(path, err);
    bool ok = json != NULL && read_preprocessor(clip, json, path, err);
    draft_json_close(json);
    if (ok && (clip->crop != size || clip->short_side < size))
        return draft_fail(
            err, DRAFT_INVALID_ARGUMENT,
            "%s: pictures are resized to %lld and cropped to %lld, expected a crop of the model's image_size "
            "(%lld)",
            path, (long long)clip->short_side, (long long)clip->crop, (long long)size);
    return ok;
}

/* --- Opening ---------------------------------------------------------------------------------------------------------
 */

static void close_clip(struct draft_reward *reward)
{
    struct clip_reward *clip = (struct clip_reward *)reward;
    for (int i = 0; i < SLOTS; i++) {
        free(clip->slot[i].prompt);
        free(clip->slot[i].numbers);
    }
    draft_tokenizer_close(clip->tokenizer);
    free(clip);
}

static bool load(struct clip_reward *clip, const char *folder, struct draft_arena *arena, struct draft_error *err)
{
    clip->tokenizer = draft_tokenizer_open(folder, err);
    if (clip->tokenizer == NULL)
        return false;
    clip->clip = draft_clip_open(folder, arena, err);
    if (clip->clip == NULL || !set_preprocessing(clip, folder, err))
        return false;
    const struct draft_clip_text *text = draft_clip_text_tower(clip->clip);
    int64_t known = draft_clip_text_vocabulary(text), positions = draft_clip_text_max_positions(text);
    if (draft_tokenizer_vocabulary(clip->tokenizer) > known)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: vocab.json holds %d tokens, the model's vocab_size is %lld",
                          folder, draft_tokenizer_vocabulary(clip->tokenizer), (long long)known);
    clip->length = draft_tokenizer_max_length(clip->tokenizer);
    if (clip->length > positions)
        clip->length = (int)positions;
    return true;
}

static struct draft_reward *open_clip(const struct draft_reward_spec *spec, struct draft_arena *arena,
                                      struct draft_error *err)
{
    if (spec->path[0] == '\0' || spec->options[0] != '\0') {
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "clip: the reward needs a folder and takes no options: clip:PATH");
        return NULL;
    }
    struct clip_reward *clip = calloc(1, sizeof *clip);
    if (clip == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory for the reward clip");
        return NULL;
    }
    clip->reward.kind = &draft_reward_clip;
    if (load(clip, spec->path, arena, err))
        return &clip->reward;
    close_clip(&clip->reward);
    return NULL;
}

/* --- Text ------------------------------------------------------------------------------------------------------------
 */

static bool remember(struct clip_reward *clip, struct embedded *slot, const char *prompt,
                     const struct draft_tensor *embedding, struct draft_error *err)
{
    size_t bytes = (size_t)draft_tensor_count(embedding) * sizeof(float);
    char *copy = strdup(prompt);
    float *numbers = malloc(bytes);
    if (copy == NULL || numbers == NULL) {
        free(copy);
        free(numbers);
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory for the embedding of a prompt");
    }
    memcpy(numbers, embedding->data, bytes);
    free(slot->prompt);
    free(slot->numbers);
    *slot = (struct embedded){copy, numbers};
    clip->width = draft_tensor_count(embedding);
    return true;
}

/* Its place is filled when this returns true. */
static const struct embedded *embed(struct clip_reward *clip, struct draft_graph *g, const char *prompt)
{
    struct embedded *slot = &clip->slot[XXH3_64bits(prompt, strlen(prompt)) % SLOTS];
    if (slot->prompt != NULL && strcmp(slot->prompt, prompt) == 0)
        return slot;
    bool was = draft_no_grad(g);
    size_t mark = draft_scope_begin(g);
    struct draft_tensor *ids = draft_new(g, DRAFT_I32, 2, (int64_t[]){1, clip->length});
    bool ok = ids != NULL && draft_tokenize(clip->tokenizer, prompt, clip->length, ids->data, NULL, &g->error);
    struct draft_tensor *embedding = ok ? draft_clip_text_embed(g, clip->clip, ids) : NULL;
    ok = embedding != NULL && remember(clip, slot, prompt, embedding, &g->error);
    draft_scope_end(g, mark, NULL);
    g->recording = was;
    return ok ? slot : NULL;
}

/* prompts -> [n, width]; a constant: no gradient goes this way */
static struct draft_tensor *embed_all(struct clip_reward *clip, struct draft_graph *g, const char *const *prompts,
                                      int64_t n)
{
    struct draft_tensor *text = NULL;
    for (int64_t i = 0; i < n && draft_graph_ok(g); i++) {
        const struct embedded *one = embed(clip, g, prompts[i]);
        if (one == NULL)
            return NULL;
        if (text == NULL)
            text = draft_new(g, DRAFT_F32, 2, (int64_t[]){n, clip->width});
        if (text != NULL)
            memcpy(draft_f32(text) + i * clip->width, one->numbers, (size_t)clip->width * sizeof(float));
    }
    return text;
}

/* --- Picture ---------------------------------------------------------------------------------------------------------
 */

/* CLIPImageProcessor: images [n, h, w, 3] in [0, 1] -> [n, crop, crop, 3] */
static struct draft_tensor *preprocess(const struct clip_reward *clip, struct draft_graph *g, struct draft_tensor *x)
{
    int64_t h = x->dim[1], w = x->dim[2], side = clip->short_side, crop = clip->crop;
    int64_t to_h = h <= w ? side : (int64_t)((double)(side * h) / (double)w);
    int64_t to_w = h <= w ? (int64_t)((double)(side * w) / (double)h) : side;
    if (to_h != h || to_w != w)
        x = draft_resize_bicubic(g, x, to_h, to_w);
    if (to_h != crop || to_w != crop)
        x = draft_crop(g, x, (to_h - crop) / 2, (to_w - crop) / 2, crop, crop);
    return draft_normalize_channels(g, x, clip->mean, clip->std);
}

static struct draft_tensor *score(struct draft_reward *reward, struct draft_graph *g, struct draft_tensor *images,
                                  const char *const *prompts)
{
    struct clip_reward *clip = (struct clip_reward *)reward;
    if (!draft_graph_ok(g))
        return NULL;
    assert(images->rank == 4 && images->dim[3] == 3);
    struct draft_tensor *text = embed_all(clip, g, prompts, images->dim[0]);
    struct draft_tensor *pixels = draft_graph_ok(g) ? preprocess(clip, g, images) : NULL;
    return draft_clip_score(g, clip->clip, draft_clip_image_embed(g, clip->clip, pixels, NULL), text);
}

const struct draft_reward_kind draft_reward_clip = {
    .name = "clip",
    .help = "how well the picture fits its prompt, by a CLIPModel folder (PickScore, CLIP): clip:PATH",
    .takes_path = true,
    .open = open_clip,
    .score = score,
    .close = close_clip,
};
