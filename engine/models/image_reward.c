/* THUDM/ImageReward's ImageReward.py */
#include "models/image_reward.h"

#include <stdio.h>
#include <string.h>

#include "models/affine_head.h"
#include "models/bert.h"
#include "models/blip_vit.h"

struct draft_image_reward {
    struct blip_vit vit;
    struct bert bert;
    struct draft_affine_head head;
};

/* Of the scores over ImageReward's validation prompts: the published score is (r - MEAN) / STD. */
static const double MEAN = 0.16717362830052426, STD = 1.0333394966054072;

/* BLIP's pretraining has projections that the score does not use. */
static void leave_unused(struct draft_weights *weights)
{
    draft_weights_leave(weights, "blip.vision_proj.");
    draft_weights_leave(weights, "blip.text_proj.");
}

struct draft_image_reward *draft_image_reward_open(const char *folder, const char *stem, struct draft_arena *arena,
                                                   struct draft_error *err)
{
    char path[4096];
    struct bert_config config = {0};
    if (snprintf(path, sizeof path, "%s/med_config.json", folder) >= (int)sizeof path) {
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "the ImageReward folder has too long a name");
        return NULL;
    }
    struct draft_weights *weights =
        draft_bert_config_read(&config, path, err) ? draft_weights_open(folder, stem, arena, err) : NULL;
    if (weights == NULL)
        return NULL;
    struct draft_loader loader;
    draft_loader_init(&loader, weights, arena, NULL);
    struct draft_image_reward *model = draft_load_alloc(&loader, sizeof *model);
    if (model != NULL) {
        draft_blip_vit_load(&loader, &model->vit, "blip.visual_encoder.");
        draft_bert_load(&loader, &model->bert, &config, model->vit.width, "blip.text_encoder.");
        draft_load_affine_head(&loader, &model->head, config.width, "mlp.", 1 / STD, -MEAN / STD);
        leave_unused(weights);
    }
    if (loader.error.code == DRAFT_OK)
        draft_weights_finish(weights, (const char *const[]){"position_ids", NULL}, &loader.error);
    draft_weights_close(weights);
    if (loader.error.code != DRAFT_OK) {
        draft_fail(err, loader.error.code, "%s", loader.error.message);
        return NULL;
    }
    return model;
}

int64_t draft_image_reward_size(const struct draft_image_reward *model)
{
    return model->vit.size;
}

int64_t draft_image_reward_vocabulary(const struct draft_image_reward *model)
{
    return model->bert.config.vocabulary;
}

int64_t draft_image_reward_positions(const struct draft_image_reward *model)
{
    return model->bert.config.positions;
}

struct draft_tensor *draft_image_reward_look(struct draft_graph *g, const struct draft_image_reward *model,
                                             struct draft_tensor *pixels)
{
    return draft_blip_vit_forward(g, &model->vit, pixels);
}

int64_t draft_image_reward_text_width(const struct draft_image_reward *model)
{
    return model->bert.config.width;
}

/* [1, width], zeros behind the number. */
static struct draft_tensor *row_of(struct draft_graph *g, int64_t width, int number)
{
    struct draft_tensor *row = draft_new(g, DRAFT_F32, 2, (int64_t[]){1, width});
    float *values = row != NULL ? draft_write(g, row) : NULL;
    if (values == NULL)
        return NULL;
    memset(values, 0, (size_t)width * sizeof *values);
    values[0] = (float)number;
    return draft_written(g, row, values) ? row : NULL;
}

struct draft_tensor *draft_image_reward_read(struct draft_graph *g, const struct draft_image_reward *model,
                                             struct draft_tensor *ids, int count)
{
    const int64_t width = model->bert.config.width;
    struct draft_tensor *x = leave(g, draft_bert_embed(g, &model->bert, ids)); /* [1, s, width] */
    struct draft_tensor *row = draft_graph_ok(g) ? row_of(g, width, count) : NULL;
    return draft_graph_ok(g) ? draft_concat_batch(g, draft_reshape(g, x, 2, (int64_t[]){ids->dim[1], width}), row)
                             : NULL;
}

struct draft_tensor *draft_image_reward_judge(struct draft_graph *g, const struct draft_image_reward *model,
                                              struct draft_tensor *tokens, struct draft_tensor *text)
{
    if (!draft_graph_ok(g))
        return NULL;
    const int64_t n = text->dim[0], numbers = text->dim[1] * text->dim[2], last = numbers - text->dim[2];
    struct draft_mark mark = draft_scope_begin(g);
    struct draft_tensor *lengths = draft_reshape(g, text, 2, (int64_t[]){n, numbers});
    lengths = draft_reshape(g, draft_slice_channels(g, lengths, last, 1), 1, &n);
    struct draft_tensor *x =
        draft_bert_forward(g, &model->bert, enter(g, text), lengths, tokens); /* [n, s + 1, width] */
    x = leave(g, draft_select_token(g, x, NULL));                             /* [CLS], [n, width] */
    x = draft_linear(g, x, model->head.weight, model->head.bias, NULL);       /* [n, 1] */
    return draft_scope_end(g, mark, draft_graph_ok(g) ? draft_reshape(g, x, 1, &n) : NULL);
}
