/* config.json of CLIPTextModel and CLIPModel folders, with the defaults of transformers' CLIP configurations. */
#include <string.h>

#include "models/clip_parts.h"

/* transformers' PreTrainedConfig writes these into every config: names, training, generation, output formats. Folders
 * of 2021 and 2022 hold them all. */
static const char *const INERT[] = {
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "architectures",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "is_composition",
    "label2id",
    "length_penalty",
    "logit_scale_init_value",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
    NULL,
};

struct reader {
    struct draft_json *json;
    const char *path;
    const char *part; /* "" or "text_config: " */
    struct draft_error *err;
};

static int64_t integer(const struct reader *r, const char *key, int64_t max, int64_t fallback)
{
    int64_t value = fallback;
    draft_json_int(r->json, key, 1, max, fallback, &value, r->err);
    return value;
}

static void read_tower(const struct reader *r, struct clip_tower_config *c, int64_t width, int64_t wide, int64_t heads)
{
    c->width = integer(r, "hidden_size", 1 << 16, width);
    c->wide = integer(r, "intermediate_size", 1 << 18, wide);
    c->layers = (int)integer(r, "num_hidden_layers", 512, 12);
    c->heads = (int)integer(r, "num_attention_heads", 1024, heads);
    if (c->width % c->heads != 0)
        draft_fail(r->err, DRAFT_INVALID_ARGUMENT,
                   "%s: %s\"hidden_size\" is %d, expected a multiple of num_attention_heads (%d)", r->path, r->part,
                   (int)c->width, c->heads);
    const char *name = "";
    draft_json_string(r->json, "hidden_act", "quick_gelu", &name, r->err);
    c->activation = strcmp(name, "gelu") == 0 ? DRAFT_GELU : DRAFT_QUICK_GELU;
    if (strcmp(name, "gelu") != 0 && strcmp(name, "quick_gelu") != 0)
        draft_fail(r->err, DRAFT_INVALID_ARGUMENT,
                   "%s: %s\"hidden_act\" is \"%s\", expected \"quick_gelu\" or \"gelu\"", r->path, r->part, name);
    double eps = 1e-5;
    draft_json_double(r->json, "layer_norm_eps", 1e-5, &eps, r->err);
    c->eps = (float)eps;
    draft_json_require(r->json, "attention_dropout", "0.0", r->err);
    draft_json_require(r->json, "dropout", "0.0", r->err);
    draft_json_require(r->json, "pruned_heads", "{}", r->err);
    draft_json_require(r->json, "is_decoder", "false", r->err);
    draft_json_require(r->json, "is_encoder_decoder", "false", r->err);
    draft_json_require(r->json, "add_cross_attention", "false", r->err);
    draft_json_ignore(r->json, INERT);
}

static void read_text(const struct reader *r, struct clip_text_config *c)
{
    read_tower(r, &c->tower, 512, 2048, 8);
    c->vocabulary = integer(r, "vocab_size", 1 << 24, 49408);
    c->positions = integer(r, "max_position_embeddings", 1 << 16, 77);
    draft_json_int(r->json, "eos_token_id", 0, INT32_MAX, 49407, &c->end_token, r->err);
    draft_json_require(r->json, "model_type", "\"clip_text_model\"", r->err);
    draft_json_ignore(r->json, (const char *const[]){"projection_dim", NULL}); /* the whole model's counts */
}

static void read_vision(const struct reader *r, struct clip_vision_config *c)
{
    read_tower(r, &c->tower, 768, 3072, 12);
    c->size = integer(r, "image_size", 1 << 14, 224);
    c->patch = integer(r, "patch_size", 1 << 10, 32);
    c->channels = integer(r, "num_channels", 64, 3);
    if (c->patch > c->size)
        draft_fail(r->err, DRAFT_INVALID_ARGUMENT, "%s: %s\"patch_size\" is %d, expected at most image_size (%d)",
                   r->path, r->part, (int)c->patch, (int)c->size);
    draft_json_require(r->json, "model_type", "\"clip_vision_model\"", r->err);
    draft_json_ignore(r->json, (const char *const[]){"projection_dim", "eos_token_id", NULL});
}

/* text_config, or text_config_dict in its place: transformers lets that one, completed by the class defaults, override
 * every value of the other. NULL when neither is there (the class defaults then hold). */
static struct draft_json *part(struct draft_json *json, const char *key, const char *key_dict, struct draft_error *err)
{
    draft_json_ignore(json, (const char *const[]){key, key_dict, NULL});
    return draft_json_child(json, draft_json_has(json, key_dict) ? key_dict : key, err);
}

static bool done(struct draft_json *json, const struct draft_error *error, struct draft_error *err)
{
    draft_json_close(json);
    return error->code == DRAFT_OK || draft_fail(err, error->code, "%s", error->message);
}

static bool read_text_file(struct clip_text_config *config, struct draft_json *json, const char *path,
                           struct draft_error *error, struct draft_error *err)
{
    *config = (struct clip_text_config){0};
    if (json != NULL) {
        read_text(&(struct reader){json, path, "", error}, config);
        if (error->code == DRAFT_OK)
            draft_json_finish(json, error);
    }
    return done(json, error, err);
}

bool draft_clip_text_config_read(struct clip_text_config *config, const char *path, struct draft_error *err)
{
    struct draft_error error = {0};
    struct draft_json *json = draft_json_open(path, &error);
    return read_text_file(config, json, path, &error, err);
}

bool draft_clip_text_config_parse(struct clip_text_config *config, const char *text, const char *shown,
                                  struct draft_error *err)
{
    struct draft_error error = {0};
    struct draft_json *json = draft_json_parse(text, strlen(text), shown, &error);
    return read_text_file(config, json, shown, &error, err);
}

bool draft_clip_config_read(struct clip_config *config, const char *path, struct draft_error *err)
{
    struct draft_error error = {0};
    struct draft_json *json = draft_json_open(path, &error);
    *config = (struct clip_config){0};
    if (json == NULL)
        return done(json, &error, err);
    draft_json_require(json, "model_type", "\"clip\"", &error);
    draft_json_ignore(json, INERT);
    draft_json_int(json, "projection_dim", 1, 1 << 16, 512, &config->projection, &error);
    struct draft_json *text = part(json, "text_config", "text_config_dict", &error);
    struct draft_json *vision = part(json, "vision_config", "vision_config_dict", &error);
    if (error.code == DRAFT_OK && (text == NULL || vision == NULL))
        draft_fail(&error, DRAFT_INVALID_ARGUMENT, "%s: no \"%s\", expected the config of a CLIPModel", path,
                   text == NULL ? "text_config" : "vision_config");
    if (error.code == DRAFT_OK)
        read_text(&(struct reader){text, path, "text_config: ", &error}, &config->text);
    if (error.code == DRAFT_OK)
        read_vision(&(struct reader){vision, path, "vision_config: ", &error}, &config->vision);
    if (error.code == DRAFT_OK && draft_json_finish(text, &error) && draft_json_finish(vision, &error))
        draft_json_finish(json, &error);
    return done(json, &error, err);
}
