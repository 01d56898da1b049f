/* transformers' modeling_clip.py: CLIPModel. */
#include "models/clip.h"

#include <math.h>
#include <stdio.h>

#include "models/clip_parts.h"

static void load_text(struct draft_loader *loader, struct draft_clip *clip, const struct clip_config *config)
{
    draft_clip_load_text(loader, &clip->text, &config->text);
    draft_load_linear(loader, &clip->text_projection, config->text.tower.width, config->projection, false,
                      "text_projection");
    draft_clip_load_scale(loader, clip);
}

static void load_image(struct draft_loader *loader, struct draft_clip *clip, const struct clip_config *config)
{
    draft_clip_load_vision(loader, &clip->vision, &config->vision);
    draft_load_linear(loader, &clip->visual_projection, config->vision.tower.width, config->projection, false,
                      "visual_projection");
}

void draft_clip_load_scale(struct draft_loader *loader, struct draft_clip *clip)
{
    const struct draft_tensor *scale = draft_load_tensor(loader, "logit_scale", 0, (const int64_t[]){0});
    if (scale == NULL)
        return;
    clip->scale = expf(*draft_f32(scale));
    if (!isfinite(clip->scale))
        draft_fail(&loader->error, DRAFT_NON_FINITE, "logit_scale is %g, whose exponential is not finite",
                   (double)*draft_f32(scale));
}

static struct draft_clip *open_folder(const char *folder, bool with_text, struct draft_arena *arena,
                                      struct draft_error *err)
{
    static const char *const INERT[] = {"position_ids", NULL}, *const TEXT[] = {"text_model.", "text_projection",
                                                                                "logit_scale"};
    char path[4096];
    struct clip_config config;
    if (snprintf(path, sizeof path, "%s/config.json", folder) >= (int)sizeof path) {
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "the CLIP folder has too long a name");
        return NULL;
    }
    if (!draft_clip_config_read(&config, path, err))
        return NULL;
    struct draft_weights *weights = draft_weights_open(folder, "model", arena, err);
    if (weights == NULL)
        return NULL;
    struct draft_loader loader;
    draft_loader_init(&loader, weights, arena, NULL);
    struct draft_clip *clip = draft_load_alloc(&loader, sizeof *clip);
    if (clip != NULL && with_text)
        load_text(&loader, clip, &config);
    if (clip != NULL)
        load_image(&loader, clip, &config);
    for (size_t i = 0; !with_text && i < sizeof TEXT / sizeof *TEXT; i++)
        draft_weights_leave(weights, TEXT[i]);
    if (loader.error.code == DRAFT_OK)
        draft_weights_finish(weights, INERT, &loader.error);
    draft_weights_close(weights);
    if (loader.error.code != DRAFT_OK) {
        draft_fail(err, loader.error.code, "%s", loader.error.message);
        return NULL;
    }
    return clip;
}

struct draft_clip *draft_clip_open(const char *folder, struct draft_arena *arena, struct draft_error *err)
{
    return open_folder(folder, true, arena, err);
}

struct draft_clip *draft_clip_open_image(const char *folder, struct draft_arena *arena, struct draft_error *err)
{
    return open_folder(folder, false, arena, err);
}

const struct draft_clip_text *draft_clip_text_tower(const struct draft_clip *clip)
{
    return &clip->text;
}

struct draft_tensor *draft_clip_text_embed(struct draft_graph *g, const struct draft_clip *clip,
                                           struct draft_tensor *ids)
{
    struct draft_mark mark = draft_scope_begin(g);
    struct draft_tensor *x = draft_clip_text_forward(g, &clip->text, ids); /* [n, s, width] */
    x = draft_clip_text_pool(g, &clip->text, x, ids);                      /* [n, width] */
    return draft_scope_end(g, mark, linear(g, x, &clip->text_projection)); /* [n, projection] */
}

struct draft_tensor *draft_clip_image_embed(struct draft_graph *g, const struct draft_clip *clip,
                                            struct draft_tensor *pixels, struct draft_tensor **hidden)
{
    struct draft_tensor *x = draft_clip_vision_forward(g, &clip->vision, pixels); /* [n, 1 + patches, width] */
    if (hidden != NULL)
        *hidden = x;
    x = draft_clip_vision_pool(g, &clip->vision, x);         /* [n, width] */
    return leave(g, linear(g, x, &clip->visual_projection)); /* [n, projection] */
}

struct draft_tensor *draft_clip_score(struct draft_graph *g, const struct draft_clip *clip, struct draft_tensor *image,
                                      struct draft_tensor *text)
{
    return draft_axpby(g, clip->scale, draft_cosine(g, image, text), 0, NULL); /* [n] */
}

int64_t draft_clip_image_size(const struct draft_clip *clip)
{
    return clip->vision.config.size;
}

int64_t draft_clip_projection(const struct draft_clip *clip)
{
    return clip->visual_projection.weight->dim[0];
}
