/*
 * BERT (Devlin et al. 2018) with cross-attention to an image, as BLIP's med.py has it: post-norm layers, no token
 * types. Prompts may be padded: attention does not see what lies behind their lengths. Internal to models/.
 */
#ifndef DRAFT_MODELS_BERT_H
#define DRAFT_MODELS_BERT_H

#include "models/layers.h"

struct bert_config {
    int64_t width, wide, vocabulary,
        positions; /* hidden_size, intermediate_size, vocab_size, max_position_embeddings */
    int layers, heads;
    float eps;
};

/* BLIP's med_config.json. (Its encoder_width is not the one in use: BLIP sets the image tower's.) */
bool draft_bert_config_read(struct bert_config *config, const char *path, struct draft_error *err);

struct bert_attention {
    struct draft_linear_layer query, key, value, dense;
    struct draft_norm_layer norm;
};
struct bert_layer {
    struct bert_attention self, cross;
    struct draft_linear_layer intermediate, output;
    struct draft_norm_layer norm;
};
struct bert {
    struct bert_config config;
    struct draft_tensor *word, *position; /* [vocabulary, width], [positions, width] */
    struct draft_norm_layer norm;
    struct bert_layer *layer;
};

/* image_width: of the tokens that cross-attention reads. "prefix" ends with a dot. */
void draft_bert_load(struct draft_loader *loader, struct bert *bert, const struct bert_config *config,
                     int64_t image_width, const char *prefix);
/* BertEmbeddings: ids I32 [n, s] -> [n, s, width] */
struct draft_tensor *draft_bert_embed(struct draft_graph *g, const struct bert *bert, struct draft_tensor *ids);
/* x [n, s, width] of that, of which the first lengths[i] rows are a prompt's (F32 [n]), image [n, t, image_width] ->
 * last_hidden_state [n, s, width] */
struct draft_tensor *draft_bert_forward(struct draft_graph *g, const struct bert *bert, struct draft_tensor *x,
                                        struct draft_tensor *lengths, struct draft_tensor *image);

#endif
