#include "models/part.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { HEAD = 64, HEADS_SD1 = 8, GROUPS = 32, VAE_FACTOR = 8, WIDTH_OPEN_CLIP = 1024 };

bool draft_is_single_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

struct draft_weights *draft_part_weights(const char *path, const char *stem, enum draft_ldm_part part,
                                         struct draft_arena *arena, struct draft_error *err)
{
    return draft_is_single_file(path) ? draft_weights_open_ldm(path, part, arena, err)
                                      : draft_weights_open(path, stem, arena, err);
}

/* Reads dimensions of tensors that must be there; sticky. */
struct shapes {
    const struct draft_weights *weights;
    struct draft_error *err;
    bool failed;
};

static bool has(const struct shapes *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool has(const struct shapes *s, const char *format, ...)
{
    char name[DRAFT_LDM_NAME];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    return draft_weights_has(s->weights, name);
}

static int64_t side(struct shapes *s, int place, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int64_t side(struct shapes *s, int place, const char *format, ...)
{
    char name[DRAFT_LDM_NAME];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    int rank = 0;
    int64_t dim[8] = {0};
    if (draft_weights_shape(s->weights, name, &rank, dim) && place < rank)
        return dim[place];
    if (!s->failed)
        draft_fail(s->err, DRAFT_INVALID_ARGUMENT,
                   "%s: no tensor %s (diffusers' name) of at least %d dimensions, which every Stable Diffusion 1.x and "
                   "2.x checkpoint has",
                   draft_safetensors_path(draft_weights_file(s->weights)), name, place + 1);
    s->failed = true;
    return 0;
}

static void append_text(json_t *list, const char *text)
{
    json_array_append_new(list, json_string(text));
}

static int64_t heads_of(int64_t channels)
{
    return channels < HEAD ? 1 : channels / HEAD;
}

static json_t *unet_config(struct shapes *s)
{
    json_t *channels = json_array(), *heads = json_array(), *down = json_array(), *up = json_array();
    int64_t width = 0;
    int levels = 0, layers = 0, rank = 4;
    for (; levels < DRAFT_LDM_LEVELS && has(s, "down_blocks.%d.resnets.0.conv1.weight", levels); levels++) {
        int64_t c = side(s, 0, "down_blocks.%d.resnets.0.conv1.weight", levels);
        bool attends = has(s, "down_blocks.%d.attentions.0.norm.weight", levels);
        json_array_append_new(channels, json_integer(c));
        json_array_append_new(heads, json_integer(heads_of(c)));
        append_text(down, attends ? "CrossAttnDownBlock2D" : "DownBlock2D");
        append_text(up, has(s, "up_blocks.%d.attentions.0.norm.weight", levels) ? "CrossAttnUpBlock2D" : "UpBlock2D");
        if (attends && width == 0) {
            int64_t dim[8];
            char name[DRAFT_LDM_NAME];
            snprintf(name, sizeof name, "down_blocks.%d.attentions.0.proj_in.weight", levels);
            draft_weights_shape(s->weights, name, &rank, dim);
            width = side(s, 1, "down_blocks.%d.attentions.0.transformer_blocks.0.attn2.to_k.weight", levels);
        }
    }
    while (has(s, "down_blocks.0.resnets.%d.conv1.weight", layers))
        layers++;
    if (width == 0)
        width = side(s, 1, "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight");
    bool linear = rank == 2;
    int64_t in = side(s, 1, "conv_in.weight"), out = side(s, 0, "conv_out.weight");
    int64_t sample = draft_ldm_resolution(draft_weights_file(s->weights)) / VAE_FACTOR;
    json_t *config =
        json_pack("{s:s, s:I, s:I, s:O, s:O, s:O, s:i, s:I, s:b, s:I, s:i, s:f, s:s, s:i, s:b, s:i, s:b, s:i, s:s}",
                  "_class_name", "UNet2DConditionModel", "in_channels", (json_int_t)in, "out_channels", (json_int_t)out,
                  "block_out_channels", channels, "down_block_types", down, "up_block_types", up, "layers_per_block",
                  layers, "cross_attention_dim", (json_int_t)width, "use_linear_projection", (int)linear, "sample_size",
                  (json_int_t)sample, "norm_num_groups", GROUPS, "norm_eps", 1e-5, "act_fn", "silu",
                  "downsample_padding", 1, "flip_sin_to_cos", 1, "freq_shift", 0, "center_input_sample", 0,
                  "mid_block_scale_factor", 1, "mid_block_type", "UNetMidBlock2DCrossAttn");
    if (config != NULL && linear)
        json_object_set(config, "attention_head_dim", heads);
    else if (config != NULL)
        json_object_set_new(config, "attention_head_dim", json_integer(HEADS_SD1));
    json_decref(channels);
    json_decref(heads);
    json_decref(down);
    json_decref(up);
    return config;
}

static json_t *vae_config(struct shapes *s)
{
    json_t *channels = json_array(), *down = json_array(), *up = json_array();
    int levels = 0, layers = 0;
    while (levels < DRAFT_LDM_LEVELS && has(s, "decoder.up_blocks.%d.resnets.0.conv1.weight", levels))
        levels++;
    while (has(s, "decoder.up_blocks.0.resnets.%d.conv1.weight", layers))
        layers++;
    for (int i = 0; i < levels; i++) {
        json_array_append_new(channels,
                              json_integer(side(s, 0, "decoder.up_blocks.%d.resnets.0.conv1.weight", levels - 1 - i)));
        append_text(down, "DownEncoderBlock2D");
        append_text(up, "UpDecoderBlock2D");
    }
    int64_t latent = side(s, 1, "decoder.conv_in.weight"), out = side(s, 0, "decoder.conv_out.weight");
    json_t *config = json_pack(
        "{s:s, s:I, s:I, s:I, s:O, s:O, s:O, s:i, s:i, s:i, s:f, s:s, s:b, s:b}", "_class_name", "AutoencoderKL",
        "in_channels", (json_int_t)out, "out_channels", (json_int_t)out, "latent_channels", (json_int_t)latent,
        "block_out_channels", channels, "down_block_types", down, "up_block_types", up, "layers_per_block", layers - 1,
        "norm_num_groups", GROUPS, "sample_size", draft_ldm_resolution(draft_weights_file(s->weights)),
        "scaling_factor", 0.18215, "act_fn", "silu", "use_quant_conv", (int)has(s, "quant_conv.weight"),
        "use_post_quant_conv", (int)has(s, "post_quant_conv.weight"));
    json_decref(channels);
    json_decref(down);
    json_decref(up);
    return config;
}

static json_t *text_config(struct shapes *s)
{
    int64_t width = side(s, 1, "text_model.embeddings.token_embedding.weight");
    int layers = 0;
    while (has(s, "text_model.encoder.layers.%d.layer_norm1.weight", layers))
        layers++;
    bool open_clip = draft_ldm_shape_of(draft_weights_file(s->weights)).open_clip || width == WIDTH_OPEN_CLIP;
    int64_t vocabulary = side(s, 0, "text_model.embeddings.token_embedding.weight");
    int64_t positions = side(s, 0, "text_model.embeddings.position_embedding.weight");
    int64_t wide = side(s, 0, "text_model.encoder.layers.0.mlp.fc1.weight");
    return json_pack("{s:[s], s:s, s:I, s:I, s:i, s:I, s:I, s:I, s:s, s:f, s:f, s:i, s:i, s:i}", "architectures",
                     "CLIPTextModel", "model_type", "clip_text_model", "hidden_size", (json_int_t)width,
                     "intermediate_size", (json_int_t)wide, "num_hidden_layers", layers, "num_attention_heads",
                     (json_int_t)heads_of(width), "vocab_size", (json_int_t)vocabulary, "max_position_embeddings",
                     (json_int_t)positions, "hidden_act", open_clip ? "gelu" : "quick_gelu", "layer_norm_eps", 1e-5,
                     "attention_dropout", 0.0, "bos_token_id", 0, "eos_token_id", 2, "pad_token_id", 1);
}

char *draft_part_config(const struct draft_weights *weights, enum draft_ldm_part part, struct draft_error *err)
{
    struct shapes shapes = {.weights = weights, .err = err};
    json_t *config = part == DRAFT_LDM_UNET  ? unet_config(&shapes)
                     : part == DRAFT_LDM_VAE ? vae_config(&shapes)
                                             : text_config(&shapes);
    char *text = config != NULL && !shapes.failed ? json_dumps(config, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    json_decref(config);
    if (text == NULL && !shapes.failed)
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for a configuration");
    return text;
}

static struct draft_weights *open_single_file(const char *path, const struct draft_part *part, void *config,
                                              struct draft_arena *arena, struct draft_error *err)
{
    struct draft_weights *weights = draft_weights_open_ldm(path, part->part, arena, err);
    char *text = weights != NULL ? draft_part_config(weights, part->part, err) : NULL;
    bool ok = text != NULL && part->parse(config, text, path, err);
    free(text);
    if (ok)
        return weights;
    draft_weights_close(weights);
    return NULL;
}

struct draft_weights *draft_part_open(const char *path, const struct draft_part *part, void *config,
                                      struct draft_arena *arena, struct draft_error *err)
{
    char name[4096];
    if (draft_is_single_file(path))
        return open_single_file(path, part, config, arena, err);
    if (snprintf(name, sizeof name, "%s/config.json", path) >= (int)sizeof name) {
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s's folder has too long a name", part->title);
        return NULL;
    }
    return part->read(config, name, err) ? draft_weights_open(path, part->stem, arena, err) : NULL;
}

char *draft_single_file_scheduler(const struct draft_safetensors *file)
{
    bool zero_snr = draft_ldm_zero_snr(file); /* such a model is sampled from its last timestep on: trailing */
    json_t *config = json_pack("{s:s, s:f, s:f, s:s, s:i, s:b, s:i, s:b, s:s, s:s, s:b}", "_class_name",
                               "DDIMScheduler", "beta_start", 0.00085, "beta_end", 0.012, "beta_schedule",
                               "scaled_linear", "num_train_timesteps", 1000, "set_alpha_to_one", 0, "steps_offset", 1,
                               "clip_sample", 0, "timestep_spacing", zero_snr ? "trailing" : "leading",
                               "prediction_type", draft_ldm_prediction(file), "rescale_betas_zero_snr", (int)zero_snr);
    char *text = config != NULL ? json_dumps(config, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    json_decref(config);
    return text;
}
