#include "rewards/clip_folder.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/json.h"
#include "ops/ops.h"

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

static bool read_preprocessor(struct clip_folder *clip, struct draft_json *json, const char *shown,
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
        !read_rescale(json, shown, err) || !read_size(json, "size", false, &clip->form.short_side, err) ||
        !read_size(json, "crop_size", true, &clip->form.crop, err) ||
        !read_triple(json, "image_mean", shown, clip->form.mean, err) ||
        !read_triple(json, "image_std", shown, clip->form.std, err))
        return false;
    for (int c = 0; c < 3; c++)
        if (!(clip->form.std[c] > 0))
            return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: \"image_std\" holds %g, expected numbers above 0",
                              shown, (double)clip->form.std[c]);
    return draft_json_finish(json, err);
}

static bool set_preprocessing(struct clip_folder *clip, const char *folder, struct draft_error *err)
{
    int64_t size = draft_clip_image_size(clip->clip);
    clip->form = draft_clip_picture;
    clip->form.short_side = clip->form.crop = size;
    char path[640];
    snprintf(path, sizeof path, "%s/preprocessor_config.json", folder);
    if (access(path, F_OK) != 0)
        return true; /* CLIPImageProcessor's own values, at the model's size */
    struct draft_json *json = draft_json_open(path, err);
    bool ok = json != NULL && read_preprocessor(clip, json, path, err);
    draft_json_close(json);
    if (ok && (clip->form.crop != size || clip->form.short_side < size))
        return draft_fail(
            err, DRAFT_INVALID_ARGUMENT,
            "%s: pictures are resized to %lld and cropped to %lld, expected a crop of the model's image_size "
            "(%lld)",
            path, (long long)clip->form.short_side, (long long)clip->form.crop, (long long)size);
    return ok;
}

/* --- Opening ---------------------------------------------------------------------------------------------------------
 */

bool draft_clip_folder_check(const struct draft_reward_kind *kind, const struct draft_reward_spec *spec,
                             struct draft_error *err)
{
    return (spec->path[0] != '\0' && spec->options[0] == '\0') ||
           draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: the reward needs a folder and takes no options: %s:PATH",
                      kind->name, kind->name);
}

bool draft_clip_folder_load(struct clip_folder *clip, const char *folder, struct draft_arena *arena,
                            struct draft_error *err)
{
    clip->clip = draft_clip_open(folder, arena, err);
    return clip->clip != NULL && set_preprocessing(clip, folder, err);
}

bool draft_clip_folder_load_image(struct clip_folder *clip, const char *folder, struct draft_arena *arena,
                                  struct draft_error *err)
{
    clip->clip = draft_clip_open_image(folder, arena, err);
    return clip->clip != NULL && set_preprocessing(clip, folder, err);
}

bool draft_clip_folder_load_text(struct clip_folder *clip, const char *folder, struct draft_error *err)
{
    const struct draft_clip_text *text = draft_clip_text_tower(clip->clip);
    int64_t known = draft_clip_text_vocabulary(text), positions = draft_clip_text_max_positions(text);
    clip->reward.prompts = draft_prompt_memory_create(err);
    clip->tokenizer = clip->reward.prompts != NULL ? draft_tokenizer_open(folder, err) : NULL;
    if (clip->tokenizer == NULL)
        return false;
    if (draft_tokenizer_vocabulary(clip->tokenizer) > known)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: vocab.json holds %d tokens, the model's vocab_size is %lld",
                          folder, draft_tokenizer_vocabulary(clip->tokenizer), (long long)known);
    clip->length = draft_tokenizer_max_length(clip->tokenizer);
    if (clip->length > positions)
        clip->length = (int)positions;
    return true;
}

void draft_clip_folder_close(struct draft_reward *reward)
{
    struct clip_folder *clip = (struct clip_folder *)reward;
    draft_prompt_memory_destroy(clip->reward.prompts);
    draft_tokenizer_close(clip->tokenizer);
    free(clip);
}

struct draft_reward *draft_clip_folder_open(const struct draft_reward_kind *kind, const struct draft_reward_spec *spec,
                                            struct draft_arena *arena, struct draft_error *err)
{
    if (!draft_clip_folder_check(kind, spec, err))
        return NULL;
    struct clip_folder *clip = calloc(1, sizeof *clip);
    if (clip == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory for the reward %s", kind->name);
        return NULL;
    }
    clip->reward.kind = kind;
    if (draft_clip_folder_load(clip, spec->path, arena, err) && draft_clip_folder_load_text(clip, spec->path, err))
        return &clip->reward;
    draft_clip_folder_close(&clip->reward);
    return NULL;
}

/* --- Scoring ---------------------------------------------------------------------------------------------------------
 */

static struct draft_tensor *embed(struct draft_graph *g, void *context, const char *prompt)
{
    struct clip_folder *clip = context;
    struct draft_tensor *ids = draft_new(g, DRAFT_I32, 2, (int64_t[]){1, clip->length});
    char *mended = clip->mend != NULL ? clip->mend(prompt) : NULL;
    if (clip->mend != NULL && mended == NULL && draft_graph_ok(g))
        draft_fail(&g->error, DRAFT_OUT_OF_MEMORY, "out of memory while reading a prompt");
    bool ok = draft_graph_ok(g) && draft_tokenize(clip->tokenizer, mended != NULL ? mended : prompt, clip->length,
                                                  ids->data, NULL, &g->error);
    free(mended);
    return ok ? draft_clip_text_embed(g, clip->clip, ids) : NULL;
}

struct draft_tensor *draft_clip_folder_read(struct draft_reward *reward, struct draft_graph *g,
                                            const char *const *prompts, int64_t n)
{
    struct clip_folder *clip = (struct clip_folder *)reward;
    const int64_t width = draft_clip_projection(clip->clip);
    return draft_prompt_memory_embed(clip->reward.prompts, g, prompts, n, 1, &width, embed, clip);
}

struct draft_tensor *draft_clip_folder_score(struct draft_reward *reward, struct draft_graph *g,
                                             struct draft_tensor *images, struct draft_tensor *text)
{
    struct clip_folder *clip = (struct clip_folder *)reward;
    if (!draft_graph_ok(g))
        return NULL;
    assert(images->rank == 4 && images->dim[3] == 3);
    struct draft_tensor *pixels = draft_picture_cut(g, &clip->form, images);
    return draft_clip_score(g, clip->clip, draft_clip_image_embed(g, clip->clip, pixels, NULL), text);
}
