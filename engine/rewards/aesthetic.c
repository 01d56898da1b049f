/*
 * How pleasing a picture is, without a prompt: LAION's aesthetic predictor v2 (Schuhmann 2022), about 1 to 10. With e
 * the image embedding of CLIP ViT-L/14, the score is an affine function of e / |e|; its weight w of the five layers
 * multiplied gives |w| cos(e, w) + b.
 *
 * The folder is a CLIPModel's (openai/clip-vit-large-patch14) with the layers beside it in aesthetic.safetensors, or
 * under the name in which they are shared; "head=NAME" names another file of the folder, without its .safetensors.
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "models/affine_head.h"
#include "rewards/clip_folder.h"
#include "rewards/weights_file.h"

struct aesthetic {
    struct clip_folder clip; /* its image side */
    struct draft_affine_head head;
    float size; /* |weight| */
};

struct head_name {
    char name[128];
};

static bool visit_option(void *context, const char *key, const char *value, struct draft_error *err)
{
    struct head_name *head = context;
    if (strcmp(key, "head") != 0)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "aesthetic: %s=%s is not understood; the option is head=NAME",
                          key, value);
    if (value[0] == '\0' || strchr(value, '/') != NULL)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "aesthetic: head is \"%s\", expected the name of a file in the reward's folder", value);
    snprintf(head->name, sizeof head->name, "%s", value);
    return true;
}

static bool measure(struct aesthetic *a, const char *folder, struct draft_error *err)
{
    double sum = 0;
    for (int64_t i = 0; i < draft_tensor_count(a->head.weight); i++)
        sum += pow((double)draft_f32(a->head.weight)[i], 2);
    a->size = (float)sqrt(sum);
    return a->size > 0 || draft_fail(err, DRAFT_INVALID_ARGUMENT,
                                     "aesthetic: the layers in %s multiplied are 0; no picture would differ", folder);
}

static bool load_head(struct aesthetic *a, const struct draft_reward_spec *spec, struct draft_arena *arena,
                      struct draft_error *err)
{
    static const char *const shared[] = {"aesthetic", "sac+logos+ava1-l14-linearMSE", "ava+logos-l14-linearMSE", NULL};
    struct head_name head = {""};
    if (!draft_reward_options_each(spec->options, &head, visit_option, err))
        return false;
    const char *named[] = {head.name, NULL};
    const char *stem = draft_reward_weights_stem("aesthetic", spec->path, head.name[0] ? named : shared, err);
    struct draft_weights *weights = stem != NULL ? draft_weights_open(spec->path, stem, arena, err) : NULL;
    if (weights == NULL)
        return false;
    struct draft_loader loader;
    draft_loader_init(&loader, weights, arena, NULL);
    draft_load_affine_head(&loader, &a->head, draft_clip_projection(a->clip.clip), "", 1, 0);
    if (loader.error.code == DRAFT_OK)
        draft_weights_finish(weights, NULL, &loader.error);
    draft_weights_close(weights);
    if (loader.error.code != DRAFT_OK)
        return draft_fail(err, loader.error.code, "%s", loader.error.message);
    return measure(a, spec->path, err);
}

static struct draft_reward *open_aesthetic(const struct draft_reward_spec *spec, struct draft_arena *arena,
                                           struct draft_error *err)
{
    struct aesthetic *a = calloc(1, sizeof *a);
    if (a == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory for the reward aesthetic");
        return NULL;
    }
    a->clip.reward.kind = &draft_reward_aesthetic;
    if (spec->path[0] == '\0')
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "aesthetic: the reward needs a folder: aesthetic:PATH");
    else if (draft_clip_folder_load_image(&a->clip, spec->path, arena, err) && load_head(a, spec, arena, err))
        return &a->clip.reward;
    draft_clip_folder_close(&a->clip.reward);
    return NULL;
}

/* The weight, once for each picture: [n, width] */
static struct draft_tensor *repeat_weight(struct draft_reward *reward, struct draft_graph *g,
                                          const char *const *prompts, int64_t n)
{
    const struct draft_tensor *weight = ((struct aesthetic *)reward)->head.weight;
    (void)prompts;
    int64_t width = weight->dim[1];
    struct draft_tensor *rows = draft_new(g, DRAFT_F32, 2, (int64_t[]){n, width});
    float *values = draft_write(g, rows);
    for (int64_t i = 0; values != NULL && i < n; i++)
        memcpy(values + i * width, weight->data, (size_t)width * sizeof(float));
    return values != NULL && draft_written(g, rows, values) ? rows : NULL;
}

static struct draft_tensor *score(struct draft_reward *reward, struct draft_graph *g, struct draft_tensor *images,
                                  struct draft_tensor *weight)
{
    struct aesthetic *a = (struct aesthetic *)reward;
    if (!draft_graph_ok(g))
        return NULL;
    assert(images->rank == 4 && images->dim[3] == 3);
    struct draft_tensor *pixels = draft_picture_cut(g, &a->clip.form, images);
    struct draft_tensor *e = draft_clip_image_embed(g, a->clip.clip, pixels, NULL); /* [n, width] */
    struct draft_tensor *cosine = draft_cosine(g, e, weight);                       /* [n] */
    return cosine != NULL ? draft_scale_clamp(g, cosine, a->size, *draft_f32(a->head.bias), -INFINITY, INFINITY) : NULL;
}

const struct draft_reward_kind draft_reward_aesthetic = {
    .name = "aesthetic",
    .takes_path = true,
    .open = open_aesthetic,
    .read = repeat_weight,
    .score = score,
    .close = draft_clip_folder_close,
};
