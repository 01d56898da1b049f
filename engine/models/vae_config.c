/* vae/config.json, with the defaults of diffusers' AutoencoderKL. */
#include <string.h>

#include "base/json.h"
#include "models/vae_parts.h"

static const char *const INERT[] = {
    "_class_name",  "_diffusers_version", "_name_or_path",
    "_commit_hash", "force_upcast", /* everything is computed in fp32 */
    "sample_size",                  /* tiling only, which the pipeline leaves off */
    NULL,
};

static void read_types(struct draft_json *json, const char *path, const char *key, const char *expected, int levels,
                       struct draft_error *err)
{
    const char *type[VAE_MAX_LEVELS] = {expected};
    int count;
    if (!draft_json_strings(json, key, type, VAE_MAX_LEVELS, &count, err))
        return;
    if (count == 0)
        count = 1; /* the class default is one block */
    if (count != levels) {
        draft_fail(err, DRAFT_INVALID_ARGUMENT,
                   "%s: \"%s\" has %d entries, expected %d, one for each of block_out_channels", path, key, count,
                   levels);
        return;
    }
    for (int i = 0; i < count; i++)
        if (strcmp(type[i], expected) != 0)
            draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: \"%s\" names \"%s\", expected \"%s\"", path, key, type[i],
                       expected);
}

static void read_levels(struct draft_json *json, const char *path, struct vae_config *c, struct draft_error *err)
{
    if (!draft_json_ints(json, "block_out_channels", 1, 1 << 16, c->channels, VAE_MAX_LEVELS, &c->levels, err))
        return;
    if (c->levels < 0) {
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: \"block_out_channels\" is a number, expected a list", path);
        return;
    }
    if (c->levels == 0) {
        c->levels = 1;
        c->channels[0] = 64;
    }
    read_types(json, path, "down_block_types", "DownEncoderBlock2D", c->levels, err);
    read_types(json, path, "up_block_types", "UpDecoderBlock2D", c->levels, err);
    for (int i = 0; i < c->levels; i++)
        if (c->channels[i] % c->groups != 0)
            draft_fail(err, DRAFT_INVALID_ARGUMENT,
                       "%s: \"block_out_channels\" has %d, expected multiples of norm_num_groups (%d)", path,
                       (int)c->channels[i], c->groups);
}

static void read_scalars(struct draft_json *json, const char *path, struct vae_config *c, struct draft_error *err)
{
    int64_t layers = 1, groups = 32;
    draft_json_int(json, "in_channels", 1, 64, 3, &c->in_channels, err);
    draft_json_int(json, "out_channels", 1, 64, 3, &c->out_channels, err);
    draft_json_int(json, "latent_channels", 1, 1 << 10, 4, &c->latent_channels, err);
    draft_json_int(json, "layers_per_block", 1, VAE_MAX_LAYERS - 1, 1, &layers, err);
    draft_json_int(json, "norm_num_groups", 1, 1 << 16, 32, &groups, err);
    c->layers = (int)layers;
    c->groups = (int)groups;
    draft_json_double(json, "scaling_factor", 0.18215, &c->scaling_factor, err);
    if (c->scaling_factor <= 0 && err->code == DRAFT_OK)
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: \"scaling_factor\" is %g, expected a number above 0", path,
                   c->scaling_factor);
    draft_json_bool(json, "use_quant_conv", true, &c->use_quant_conv, err);
    draft_json_bool(json, "use_post_quant_conv", true, &c->use_post_quant_conv, err);
    draft_json_bool(json, "mid_block_add_attention", true, &c->middle_attends, err);
}

/* Takes `json`, which may be NULL with `error` set. */
static bool read_all(struct vae_config *config, struct draft_json *json, const char *path, struct draft_error *failed,
                     struct draft_error *err)
{
    static const char *const NOT_NULL[] = {"norm_num_groups", "use_quant_conv", "use_post_quant_conv", "scaling_factor",
                                           "mid_block_add_attention"};
    struct draft_error error = *failed;
    if (json != NULL) {
        *config = (struct vae_config){0};
        draft_json_require(json, "_class_name", "\"AutoencoderKL\"", &error);
        draft_json_require(json, "act_fn", "\"silu\"", &error);
        draft_json_require(json, "shift_factor", "null", &error);
        draft_json_require(json, "latents_mean", "null", &error);
        draft_json_require(json, "latents_std", "null", &error);
        for (size_t i = 0; i < sizeof NOT_NULL / sizeof *NOT_NULL; i++)
            if (draft_json_null(json, NOT_NULL[i]))
                draft_fail(&error, DRAFT_INVALID_ARGUMENT, "%s: \"%s\" is null, expected a value", path, NOT_NULL[i]);
        draft_json_ignore(json, INERT);
        if (error.code == DRAFT_OK)
            read_scalars(json, path, config, &error);
        if (error.code == DRAFT_OK)
            read_levels(json, path, config, &error);
        if (error.code == DRAFT_OK)
            draft_json_finish(json, &error);
    }
    draft_json_close(json);
    if (error.code != DRAFT_OK)
        return draft_fail(err, error.code, "%s", error.message);
    return true;
}

bool draft_vae_config_read(struct vae_config *config, const char *path, struct draft_error *err)
{
    struct draft_error error = {0};
    struct draft_json *json = draft_json_open(path, &error);
    return read_all(config, json, path, &error, err);
}

bool draft_vae_config_parse(struct vae_config *config, const char *text, const char *shown, struct draft_error *err)
{
    struct draft_error error = {0};
    struct draft_json *json = draft_json_parse(text, strlen(text), shown, &error);
    return read_all(config, json, shown, &error, err);
}
