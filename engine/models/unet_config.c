/*
 * unet/config.json. Defaults are those of diffusers' UNet2DConditionModel, which a folder written by an older version
 * leaves out; a key that would change the result in a way not implemented here is refused by name.
 */
#include <string.h>

#include "base/json.h"
#include "models/unet_parts.h"

/* Change nothing, or belong to features that the required keys keep off. */
static const char *const INERT[] = {
    "_class_name",
    "_diffusers_version",
    "_name_or_path",
    "_commit_hash",
    "addition_embed_type_num_heads",  /* addition_embed_type is null */
    "mid_block_only_cross_attention", /* UNetMidBlock2DSimpleCrossAttn only */
    "upcast_attention",               /* everything is computed in fp32 */
    /* Left by diffusers' EMAModel in the config of the weights it averaged */
    "decay",
    "inv_gamma",
    "min_decay",
    "optimization_step",
    "power",
    "update_after_step",
    "use_ema_warmup",
    NULL,
};

static const struct {
    const char *key, *value;
} REQUIRED[] = {
    {"act_fn", "\"silu\""},
    {"addition_embed_type", "null"},
    {"addition_time_embed_dim", "null"},
    {"attention_type", "\"default\""},
    {"center_input_sample", "false"},
    {"class_embed_type", "null"},
    {"class_embeddings_concat", "false"},
    {"cross_attention_norm", "null"},
    {"downsample_padding", "1"},
    {"dropout", "0.0"},
    {"dual_cross_attention", "false"},
    {"encoder_hid_dim", "null"},
    {"encoder_hid_dim_type", "null"},
    {"mid_block_scale_factor", "1"},
    {"num_attention_heads", "null"},
    {"num_class_embeds", "null"},
    {"only_cross_attention", "false"},
    {"projection_class_embeddings_input_dim", "null"},
    {"resnet_out_scale_factor", "1.0"},
    {"resnet_skip_time_act", "false"},
    {"resnet_time_scale_shift", "\"default\""},
    {"reverse_transformer_layers_per_block", "null"},
    {"time_cond_proj_dim", "null"},
    {"time_embedding_act_fn", "null"},
    {"time_embedding_type", "\"positional\""},
    {"timestep_post_act", "null"},
};

/* Keys whose null means something else than their absence in diffusers. mid_block_type is the one that is implemented.
 */
static const char *const NOT_NULL[] = {"norm_num_groups",    "flip_sin_to_cos",    "down_block_types",
                                       "up_block_types",     "block_out_channels", "attention_head_dim",
                                       "cross_attention_dim"};

struct reader {
    struct draft_json *json;
    const char *path;
    struct draft_error *err; /* sticky: the first failure wins */
};

/* One integer for all levels, or one for each. */
static void per_level(const struct reader *r, const char *key, int64_t max, int64_t fallback, int levels, int *out)
{
    int64_t value[UNET_MAX_LEVELS] = {fallback};
    int count;
    if (!draft_json_ints(r->json, key, 1, max, value, UNET_MAX_LEVELS, &count, r->err))
        return;
    if (count > 0 && count != levels) {
        draft_fail(r->err, DRAFT_INVALID_ARGUMENT,
                   "%s: \"%s\" has %d entries, expected %d, one for each of block_out_channels", r->path, key, count,
                   levels);
        return;
    }
    for (int i = 0; i < levels; i++)
        out[i] = (int)value[count > 0 ? i : 0];
}

static void read_block_types(const struct reader *r, const char *key, const char *with, const char *without,
                             const char *const *fallback, int levels, bool *attends)
{
    const char *type[UNET_MAX_LEVELS];
    int count;
    if (!draft_json_strings(r->json, key, type, UNET_MAX_LEVELS, &count, r->err))
        return;
    if (count == 0) {
        memcpy(type, fallback, 4 * sizeof *type);
        count = 4;
    }
    if (count != levels) {
        draft_fail(r->err, DRAFT_INVALID_ARGUMENT,
                   "%s: \"%s\" has %d entries, expected %d, one for each of block_out_channels", r->path, key, count,
                   levels);
        return;
    }
    for (int i = 0; i < levels; i++) {
        attends[i] = strcmp(type[i], with) == 0;
        if (!attends[i] && strcmp(type[i], without) != 0)
            draft_fail(r->err, DRAFT_INVALID_ARGUMENT, "%s: \"%s\" names \"%s\", expected \"%s\" or \"%s\"", r->path,
                       key, type[i], with, without);
    }
}

static void read_levels(const struct reader *r, struct unet_config *c)
{
    static const char *const DOWN[] = {"CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D",
                                       "DownBlock2D"};
    static const char *const UP[] = {"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"};
    static const int64_t CHANNELS[] = {320, 640, 1280, 1280};
    if (!draft_json_ints(r->json, "block_out_channels", 1, 1 << 16, c->channels, UNET_MAX_LEVELS, &c->levels, r->err))
        return;
    if (c->levels == 0) {
        memcpy(c->channels, CHANNELS, sizeof CHANNELS);
        c->levels = 4;
    }
    if (c->levels < 0) {
        draft_fail(r->err, DRAFT_INVALID_ARGUMENT, "%s: \"block_out_channels\" is a number, expected a list", r->path);
        return;
    }
    bool up[UNET_MAX_LEVELS] = {false};
    read_block_types(r, "down_block_types", "CrossAttnDownBlock2D", "DownBlock2D", DOWN, c->levels, c->down_attends);
    read_block_types(r, "up_block_types", "CrossAttnUpBlock2D", "UpBlock2D", UP, c->levels, up);
    for (int i = 0; i < c->levels; i++)
        c->up_attends[i] = up[c->levels - 1 - i];
    per_level(r, "layers_per_block", UNET_MAX_LAYERS, 2, c->levels, c->layers);
    per_level(r, "attention_head_dim", 1024, 8, c->levels, c->heads);
    per_level(r, "transformer_layers_per_block", 64, 1, c->levels, c->transformer_layers);
    int width[UNET_MAX_LEVELS] = {0};
    per_level(r, "cross_attention_dim", 1 << 16, 1280, c->levels, width);
    c->context_width = width[0];
    for (int i = 1; i < c->levels; i++)
        if (width[i] != width[0])
            draft_fail(r->err, DRAFT_INVALID_ARGUMENT,
                       "%s: \"cross_attention_dim\" has %d and %d, expected one width: there is one text encoder",
                       r->path, width[0], width[i]);
}

static void read_middle(const struct reader *r, struct unet_config *c)
{
    const char *type = "";
    c->has_middle = !draft_json_null(r->json, "mid_block_type");
    draft_json_string(r->json, "mid_block_type", "UNetMidBlock2DCrossAttn", &type, r->err);
    c->middle_attends = strcmp(type, "UNetMidBlock2DCrossAttn") == 0;
    if (!c->middle_attends && strcmp(type, "UNetMidBlock2D") != 0)
        draft_fail(r->err, DRAFT_INVALID_ARGUMENT,
                   "%s: \"mid_block_type\" is \"%s\", expected \"UNetMidBlock2DCrossAttn\", \"UNetMidBlock2D\" or null",
                   r->path, type);
}

static int odd_kernel(const struct reader *r, const char *key)
{
    int64_t kernel = 3;
    draft_json_int(r->json, key, 1, 15, 3, &kernel, r->err);
    if (kernel % 2 == 0)
        draft_fail(r->err, DRAFT_INVALID_ARGUMENT, "%s: \"%s\" is %d, expected an odd number", r->path, key,
                   (int)kernel);
    return (int)kernel;
}

static void read_scalars(const struct reader *r, struct unet_config *c)
{
    draft_json_int(r->json, "in_channels", 1, 1 << 10, 4, &c->in_channels, r->err);
    draft_json_int(r->json, "out_channels", 1, 1 << 10, 4, &c->out_channels, r->err);
    int64_t sample[2] = {64, 64}, groups = 32;
    int count = 0;
    draft_json_ints(r->json, "sample_size", 1, 1 << 14, sample, 2, &count, r->err);
    if (count == 1)
        draft_fail(r->err, DRAFT_INVALID_ARGUMENT,
                   "%s: \"sample_size\" has one entry, expected a number or [height, width]", r->path);
    c->sample_height = sample[0];
    c->sample_width = count == 2 ? sample[1] : sample[0];
    draft_json_int(r->json, "norm_num_groups", 1, 1 << 16, 32, &groups, r->err);
    c->groups = (int)groups;
    double eps = 1e-5;
    draft_json_double(r->json, "norm_eps", 1e-5, &eps, r->err);
    c->eps = (float)eps;
    draft_json_bool(r->json, "use_linear_projection", false, &c->linear_projection, r->err);
    draft_json_bool(r->json, "flip_sin_to_cos", true, &c->flip_sin_to_cos, r->err);
    draft_json_double(r->json, "freq_shift", 0, &c->freq_shift, r->err);
    draft_json_int(r->json, "time_embedding_dim", 1, 1 << 20, 4 * c->channels[0], &c->time_width, r->err);
    c->conv_in_kernel = odd_kernel(r, "conv_in_kernel");
    c->conv_out_kernel = odd_kernel(r, "conv_out_kernel");
}

static void check_channels(const struct reader *r, const struct unet_config *c)
{
    for (int i = 0; i < c->levels && r->err->code == DRAFT_OK; i++) {
        if (c->channels[i] % c->groups != 0)
            draft_fail(r->err, DRAFT_INVALID_ARGUMENT,
                       "%s: \"block_out_channels\" has %d, expected multiples of norm_num_groups (%d)", r->path,
                       (int)c->channels[i], c->groups);
        if (c->channels[i] < c->heads[i])
            draft_fail(r->err, DRAFT_INVALID_ARGUMENT,
                       "%s: \"attention_head_dim\" (the number of heads) is %d, more than the level's %d channels",
                       r->path, c->heads[i], (int)c->channels[i]);
    }
}

/* Takes `json`, which may be NULL with `error` set. */
static bool read_all(struct unet_config *config, struct draft_json *json, const char *path, struct draft_error *failed,
                     struct draft_error *err)
{
    struct draft_error error = *failed;
    if (json != NULL) {
        struct reader r = {json, path, &error};
        *config = (struct unet_config){0};
        draft_json_require(json, "_class_name", "\"UNet2DConditionModel\"", &error);
        for (size_t i = 0; i < sizeof NOT_NULL / sizeof *NOT_NULL; i++)
            if (draft_json_null(json, NOT_NULL[i]))
                draft_fail(&error, DRAFT_INVALID_ARGUMENT, "%s: \"%s\" is null, expected a value", path, NOT_NULL[i]);
        for (size_t i = 0; i < sizeof REQUIRED / sizeof *REQUIRED; i++)
            draft_json_require(json, REQUIRED[i].key, REQUIRED[i].value, &error);
        draft_json_ignore(json, INERT);
        if (error.code == DRAFT_OK)
            read_levels(&r, config);
        if (error.code == DRAFT_OK)
            read_scalars(&r, config);
        read_middle(&r, config);
        if (error.code == DRAFT_OK)
            check_channels(&r, config);
        if (error.code == DRAFT_OK)
            draft_json_finish(json, &error);
    }
    draft_json_close(json);
    if (error.code != DRAFT_OK)
        return draft_fail(err, error.code, "%s", error.message);
    return true;
}

bool draft_unet_config_read(struct unet_config *config, const char *path, struct draft_error *err)
{
    struct draft_error error = {0};
    struct draft_json *json = draft_json_open(path, &error);
    return read_all(config, json, path, &error, err);
}

bool draft_unet_config_parse(struct unet_config *config, const char *text, const char *shown, struct draft_error *err)
{
    struct draft_error error = {0};
    struct draft_json *json = draft_json_parse(text, strlen(text), shown, &error);
    return read_all(config, json, shown, &error, err);
}
