#include "models/bert.h"

#include <stdio.h>

#include "base/json.h"

/* Of training, of the task, and what BLIP overrides. */
static const char *const INERT[] = {"architectures",
                                    "attention_probs_dropout_prob",
                                    "hidden_dropout_prob",
                                    "initializer_range",
                                    "pad_token_id",
                                    "encoder_width",
                                    "fusion_layer",
                                    "gradient_checkpointing",
                                    "transformers_version",
                                    "use_cache",
                                    NULL};

static bool read_config(struct draft_json *json, struct bert_config *c, const char *path, struct draft_error *err)
{
    int64_t layers, heads;
    double eps;
    draft_json_ignore(json, INERT);
    if (!draft_json_require(json, "model_type", "\"bert\"", err) ||
        !draft_json_require(json, "hidden_act", "\"gelu\"", err) ||
        !draft_json_require(json, "add_type_embeddings", "false", err) ||
        !draft_json_require(json, "add_cross_attention", "true", err) ||
        !draft_json_require(json, "position_embedding_type", "\"absolute\"", err) ||
        !draft_json_int(json, "hidden_size", 1, 1 << 16, 768, &c->width, err) ||
        !draft_json_int(json, "intermediate_size", 1, 1 << 18, 3072, &c->wide, err) ||
        !draft_json_int(json, "vocab_size", 1, 1 << 24, 30522, &c->vocabulary, err) ||
        !draft_json_int(json, "max_position_embeddings", 1, 1 << 16, 512, &c->positions, err) ||
        !draft_json_int(json, "num_hidden_layers", 1, 512, 12, &layers, err) ||
        !draft_json_int(json, "num_attention_heads", 1, 1024, 12, &heads, err) ||
        !draft_json_double(json, "layer_norm_eps", 1e-12, &eps, err))
        return false;
    c->layers = (int)layers;
    c->heads = (int)heads;
    c->eps = (float)eps;
    if (c->width % heads != 0)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "%s: \"hidden_size\" is %lld, expected a multiple of num_attention_heads (%lld)", path,
                          (long long)c->width, (long long)heads);
    return draft_json_finish(json, err);
}

bool draft_bert_config_read(struct bert_config *config, const char *path, struct draft_error *err)
{
    struct draft_json *json = draft_json_open(path, err);
    bool ok = json != NULL && read_config(json, config, path, err);
    draft_json_close(json);
    return ok;
}

/* --- Loading -------------------------------------------------------------------------------------------------------
 */

static void load_attention(struct draft_loader *loader, struct bert_attention *a, const struct bert_config *c,
                           int64_t context, const char *path)
{
    draft_load_linear(loader, &a->query, c->width, c->width, true, "%s.self.query", path);
    draft_load_linear(loader, &a->key, context, c->width, true, "%s.self.key", path);
    draft_load_linear(loader, &a->value, context, c->width, true, "%s.self.value", path);
    draft_load_linear(loader, &a->dense, c->width, c->width, true, "%s.output.dense", path);
    draft_load_layer_norm(loader, &a->norm, c->width, c->eps, "%s.output.LayerNorm", path);
}

void draft_bert_load(struct draft_loader *loader, struct bert *bert, const struct bert_config *config,
                     int64_t image_width, const char *prefix)
{
    char name[160];
    bert->config = *config;
    snprintf(name, sizeof name, "%sembeddings.word_embeddings.weight", prefix);
    bert->word = draft_load_table(loader, name, config->vocabulary, config->width);
    snprintf(name, sizeof name, "%sembeddings.position_embeddings.weight", prefix);
    bert->position = draft_load_tensor(loader, name, 2, (int64_t[]){config->positions, config->width});
    draft_load_layer_norm(loader, &bert->norm, config->width, config->eps, "%sembeddings.LayerNorm", prefix);
    bert->layer = draft_load_alloc(loader, (size_t)config->layers * sizeof *bert->layer);
    for (int i = 0; i < config->layers && bert->layer != NULL; i++) {
        struct bert_layer *l = &bert->layer[i];
        snprintf(name, sizeof name, "%sencoder.layer.%d.attention", prefix, i);
        load_attention(loader, &l->self, config, config->width, name);
        snprintf(name, sizeof name, "%sencoder.layer.%d.crossattention", prefix, i);
        load_attention(loader, &l->cross, config, image_width, name);
        snprintf(name, sizeof name, "%sencoder.layer.%d", prefix, i);
        draft_load_linear(loader, &l->intermediate, config->width, config->wide, true, "%s.intermediate.dense", name);
        draft_load_linear(loader, &l->output, config->wide, config->width, true, "%s.output.dense", name);
        draft_load_layer_norm(loader, &l->norm, config->width, config->eps, "%s.output.LayerNorm", name);
    }
}

/* --- Forward -------------------------------------------------------------------------------------------------------
 */

/* BertSelfAttention and BertSelfOutput: x [n, s, width], context [n, t, .], lengths of it, NULL: all of it */
static struct draft_tensor *attend(struct draft_graph *g, const struct bert_attention *a, int heads,
                                   struct draft_tensor *x, struct draft_tensor *context, struct draft_tensor *lengths)
{
    struct draft_tensor *q = linear(g, x, &a->query), *k = linear(g, context, &a->key);
    struct draft_tensor *v = linear(g, context, &a->value);
    struct draft_tensor *y = linear(g, draft_attention_padded(g, q, k, v, lengths, heads), &a->dense);
    return layer_norm(g, draft_add(g, y, x), &a->norm);
}

static struct draft_tensor *layer_forward(struct draft_graph *g, const struct bert_layer *l, int heads,
                                          struct draft_tensor *x, struct draft_tensor *lengths,
                                          struct draft_tensor *image)
{
    x = attend(g, &l->self, heads, x, x, lengths);
    x = attend(g, &l->cross, heads, x, image, NULL);
    struct draft_tensor *h = draft_activate(g, linear(g, x, &l->intermediate), DRAFT_GELU); /* [n, s, wide] */
    return layer_norm(g, draft_add(g, linear(g, h, &l->output), x), &l->norm);
}

struct draft_tensor *draft_bert_embed(struct draft_graph *g, const struct bert *bert, struct draft_tensor *ids)
{
    struct draft_mark mark = draft_scope_begin(g);
    struct draft_tensor *x = draft_add_positions(g, draft_embedding(g, bert->word, ids), bert->position);
    return draft_scope_end(g, mark, layer_norm(g, x, &bert->norm));
}

struct draft_tensor *draft_bert_forward(struct draft_graph *g, const struct bert *bert, struct draft_tensor *x,
                                        struct draft_tensor *lengths, struct draft_tensor *image)
{
    struct draft_mark mark = draft_scope_begin(g);
    for (int i = 0; i < bert->config.layers && draft_model_continue(g); i++) {
        struct draft_mark inner = draft_scope_begin(g);
        x = draft_scope_end(g, inner, layer_forward(g, &bert->layer[i], bert->config.heads, x, lengths, image));
    }
    return draft_scope_end(g, mark, draft_graph_ok(g) ? x : NULL);
}
