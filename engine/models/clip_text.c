/* transformers' modeling_clip.py: CLIPTextModel. */
#include <stdio.h>
#include <stdlib.h>

#include "models/clip_parts.h"
#include "models/part.h"

enum { LEGACY_END_TOKEN = 2 }; /* configs before transformers 4.31 say 2 whatever the tokenizer says */

void draft_clip_load_text(struct draft_loader *loader, struct draft_clip_text *text,
                          const struct clip_text_config *config)
{
    const int64_t width = config->tower.width;
    text->config = *config;
    text->token_embedding =
        draft_load_table(loader, "text_model.embeddings.token_embedding.weight", config->vocabulary, width);
    text->position_embedding = draft_load_tensor(loader, "text_model.embeddings.position_embedding.weight", 2,
                                                 (const int64_t[]){config->positions, width});
    draft_clip_load_encoder(loader, &text->encoder, &config->tower, "text_model.");
    draft_load_layer_norm(loader, &text->final_layer_norm, width, config->tower.eps, "text_model.final_layer_norm");
}

static bool read_config(void *config, const char *path, struct draft_error *err)
{
    return draft_clip_text_config_read(config, path, err);
}

static bool parse_config(void *config, const char *text, const char *shown, struct draft_error *err)
{
    return draft_clip_text_config_parse(config, text, shown, err);
}

static const struct draft_part PART = {
    .part = DRAFT_LDM_TEXT, .stem = "model", .title = "the text encoder", .read = read_config, .parse = parse_config};

struct draft_clip_text *draft_clip_text_open(const char *path, struct draft_arena *arena, struct draft_error *err)
{
    static const char *const INERT[] = {"position_ids", NULL};
    struct clip_text_config config;
    struct draft_weights *weights = draft_part_open(path, &PART, &config, arena, err);
    if (weights == NULL)
        return NULL;
    struct draft_loader loader;
    draft_loader_init(&loader, weights, arena, NULL);
    struct draft_clip_text *text = draft_load_alloc(&loader, sizeof *text);
    if (text != NULL) {
        draft_clip_load_text(&loader, text, &config);
        text->weights = loader.first;
    }
    if (loader.error.code == DRAFT_OK)
        draft_weights_finish(weights, INERT, &loader.error);
    draft_weights_close(weights);
    if (loader.error.code != DRAFT_OK) {
        draft_fail(err, loader.error.code, "%s", loader.error.message);
        return NULL;
    }
    return text;
}

struct draft_tensor *draft_clip_text_forward(struct draft_graph *g, const struct draft_clip_text *text,
                                             struct draft_tensor *ids)
{
    struct draft_mark mark = draft_scope_begin(g);
    struct draft_tensor *x = draft_embedding(g, text->token_embedding, ids); /* [n, s, width] */
    x = draft_add_positions(g, x, text->position_embedding);                 /* [n, s, width] */
    x = draft_clip_encoder_forward(g, &text->encoder, x, true);              /* [n, s, width] */
    return draft_scope_end(g, mark, leave(g, layer_norm(g, x, &text->final_layer_norm)));
}

/* Where a row of ids is pooled: the largest id under the legacy rule (the end token has it), else the first end token;
 * 0 when there is none, as argmax over zeros gives. */
static int32_t end_place(const struct draft_clip_text *text, const int32_t *ids, int64_t length)
{
    int64_t place = 0;
    if (text->config.end_token == LEGACY_END_TOKEN) {
        for (int64_t i = 1; i < length; i++)
            if (ids[i] > ids[place])
                place = i;
    } else {
        while (place < length && ids[place] != text->config.end_token)
            place++;
        if (place == length)
            place = 0;
    }
    return (int32_t)place;
}

struct draft_tensor *draft_clip_text_pool(struct draft_graph *g, const struct draft_clip_text *text,
                                          struct draft_tensor *hidden, const struct draft_tensor *ids)
{
    if (!draft_graph_ok(g))
        return NULL;
    int64_t n = ids->dim[0], length = ids->dim[1];
    struct draft_tensor *place = draft_new(g, DRAFT_I32, 1, &n);
    if (place == NULL)
        return NULL;
    int32_t *index = place->data;
    for (int64_t i = 0; i < n; i++)
        index[i] = end_place(text, (const int32_t *)ids->data + i * length, length);
    return draft_select_token(g, hidden, index);
}

void draft_clip_text_each_weight(const struct draft_clip_text *text,
                                 void (*visit)(void *context, struct draft_tensor *weight), void *context)
{
    for (struct draft_weight_link *link = text->weights; link != NULL; link = link->next)
        visit(context, link->weight);
}

int64_t draft_clip_text_width(const struct draft_clip_text *text)
{
    return text->config.tower.width;
}

int64_t draft_clip_text_max_positions(const struct draft_clip_text *text)
{
    return text->config.positions;
}

int64_t draft_clip_text_vocabulary(const struct draft_clip_text *text)
{
    return text->config.vocabulary;
}
