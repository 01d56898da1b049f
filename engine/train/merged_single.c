/* A merged model as one file with the original names. */
#include "train/merged.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "train/merged_tensors.h"

enum { TEXT = 96 };

/* --- What the names depend on ------------------------------------------------------------------------------------- */

static bool has(const struct draft_merged *m, int part, const char *format, ...) __attribute__((format(printf, 3, 4)));
static bool has(const struct draft_merged *m, int part, const char *format, ...)
{
    char name[DRAFT_LDM_NAME];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    return draft_weights_has(m->weights[part], name);
}

static void config_path(const struct draft_merged *m, int part, char path[DRAFT_MODEL_PATH + 64])
{
    snprintf(path, DRAFT_MODEL_PATH + 64, "%s/%s/config.json", m->options->config->model, draft_merged_folder_of[part]);
}

/* SD 2.x's text encoder is open_clip's, whose files have names of their own; its activation tells it apart. */
static bool is_open_clip(const struct draft_merged *m, bool *open_clip, struct draft_error *err)
{
    char path[DRAFT_MODEL_PATH + 64];
    const char *activation = "";
    if (m->files.single) {
        *open_clip = draft_ldm_shape_of(draft_weights_file(m->weights[DRAFT_LDM_TEXT])).open_clip;
        return true;
    }
    config_path(m, DRAFT_LDM_TEXT, path);
    struct draft_json *config = draft_json_open(path, err);
    bool ok = config && draft_json_string(config, "hidden_act", "quick_gelu", &activation, err);
    *open_clip = ok && strcmp(activation, "gelu") == 0;
    draft_json_close(config);
    return ok;
}

static bool shape_of(const struct draft_merged *m, struct draft_ldm_shape *s, struct draft_error *err)
{
    *s = (struct draft_ldm_shape){0};
    while (s->levels < DRAFT_LDM_LEVELS && has(m, DRAFT_LDM_UNET, "down_blocks.%d.resnets.0.conv1.weight", s->levels)) {
        s->up_attends[s->levels] = has(m, DRAFT_LDM_UNET, "up_blocks.%d.attentions.0.norm.weight", s->levels);
        s->levels++;
    }
    while (has(m, DRAFT_LDM_UNET, "down_blocks.0.resnets.%d.conv1.weight", s->layers))
        s->layers++;
    while (s->vae_levels < DRAFT_LDM_LEVELS &&
           has(m, DRAFT_LDM_VAE, "decoder.up_blocks.%d.resnets.0.conv1.weight", s->vae_levels))
        s->vae_levels++;
    while (has(m, DRAFT_LDM_TEXT, "text_model.encoder.layers.%d.layer_norm1.weight", s->text_layers))
        s->text_layers++;
    return is_open_clip(m, &s->open_clip, err);
}

/* --- What no single file can say ---------------------------------------------------------------------------------- */

struct setting {
    int part;
    const char *key;
    double number;    /* the class default */
    const char *text; /* the class default of a text; NULL: a number */
};

/* Refused: the model's configuration says otherwise than readers infer. */
static bool differs(const struct draft_merged *m, const struct setting *s, const char *says, const char *read,
                    struct draft_error *err)
{
    return draft_fail(
        err, DRAFT_FAILED_PRECONDITION,
        "%s/%s/config.json has %s %s, but a single file holds no configuration and programs would read it "
        "with %s; export the model as a folder instead (format merged)",
        m->options->config->model, draft_merged_folder_of[s->part], s->key, says, read);
}

static bool same_setting(const struct draft_merged *m, const struct setting *s, struct draft_json *ours,
                         struct draft_json *read, struct draft_error *err)
{
    char a[TEXT], b[TEXT];
    if (s->text) {
        const char *x, *y;
        if (!draft_json_string(ours, s->key, s->text, &x, err) || !draft_json_string(read, s->key, s->text, &y, err))
            return false;
        return strcmp(x, y) == 0 || differs(m, s, x, y, err);
    }
    double x, y;
    if (!draft_json_double(ours, s->key, s->number, &x, err) || !draft_json_double(read, s->key, s->number, &y, err))
        return false;
    snprintf(a, sizeof a, "%g", x);
    snprintf(b, sizeof b, "%g", y);
    return fabs(x - y) <= 1e-6 * fabs(y) || differs(m, s, a, b, err);
}

/* One number for all levels, or one each. */
static bool same_heads(const struct draft_merged *m, struct draft_json *ours, struct draft_json *read, int levels,
                       struct draft_error *err)
{
    const struct setting heads = {.part = DRAFT_LDM_UNET, .key = "attention_head_dim"};
    int64_t x[DRAFT_LDM_LEVELS] = {8}, y[DRAFT_LDM_LEVELS] = {8};
    int count_x, count_y;
    if (!draft_json_ints(ours, heads.key, 1, 4096, x, DRAFT_LDM_LEVELS, &count_x, err) ||
        !draft_json_ints(read, heads.key, 1, 4096, y, DRAFT_LDM_LEVELS, &count_y, err))
        return false;
    for (int i = 0; i < levels; i++) {
        long long a = (long long)x[count_x > i ? i : 0], b = (long long)y[count_y > i ? i : 0];
        char says[TEXT], other[TEXT];
        snprintf(says, sizeof says, "%lld at level %d", a, i);
        snprintf(other, sizeof other, "%lld", b);
        if (a != b)
            return differs(m, &heads, says, other, err);
    }
    return true;
}

static bool can_be_single(const struct draft_merged *m, const struct draft_ldm_shape *shape, struct draft_error *err)
{
    static const struct setting setting[] = {
        {DRAFT_LDM_UNET, "norm_num_groups", 32, NULL},     {DRAFT_LDM_UNET, "norm_eps", 1e-5, NULL},
        {DRAFT_LDM_VAE, "norm_num_groups", 32, NULL},      {DRAFT_LDM_VAE, "scaling_factor", 0.18215, NULL},
        {DRAFT_LDM_TEXT, "num_attention_heads", 12, NULL}, {DRAFT_LDM_TEXT, "hidden_act", 0, "quick_gelu"},
    };
    bool ok = true;
    for (int part = 0; ok && !m->files.single && part < DRAFT_MERGED_PARTS; part++) {
        char path[DRAFT_MODEL_PATH + 64];
        config_path(m, part, path);
        char *inferred = draft_part_config(m->weights[part], (enum draft_ldm_part)part, err);
        struct draft_json *ours = inferred ? draft_json_open(path, err) : NULL;
        struct draft_json *read = ours ? draft_json_parse(inferred, strlen(inferred), "what is inferred", err) : NULL;
        ok = read != NULL;
        for (size_t i = 0; ok && i < sizeof setting / sizeof *setting; i++)
            ok = setting[i].part != part || (setting[i].text && shape->open_clip) || /* whose names say it */
                 same_setting(m, &setting[i], ours, read, err);
        ok = ok && (part != DRAFT_LDM_UNET || same_heads(m, ours, read, shape->levels, err));
        draft_json_close(read);
        draft_json_close(ours);
        free(inferred);
    }
    return ok;
}

/* Programs give a single file the noise levels that Stable Diffusion was trained on, and read of it what it predicts.
 */
static bool same_noise(const struct draft_merged *m, struct draft_error *err)
{
    static const char taken[] = "{\"beta_start\": 0.00085, \"beta_end\": 0.012, \"beta_schedule\": \"scaled_linear\"}";
    struct draft_scheduler ours = {0}, read = {0};
    bool ok = draft_model_scheduler(&m->files, &ours, err) && draft_scheduler_parse(&read, taken, err);
    bool same = ok && ours.train_timesteps == read.train_timesteps && ours.prediction != DRAFT_PREDICT_SAMPLE;
    for (int i = 0; same && i < read.train_timesteps; i++)
        same = fabs(ours.alphas_cumprod[i] - read.alphas_cumprod[i]) <= 1e-6;
    draft_scheduler_close(&ours);
    draft_scheduler_close(&read);
    return same ||
           (ok && draft_fail(err, DRAFT_FAILED_PRECONDITION,
                             "the scheduler of %s has other noise levels than programs take for a single file "
                             "(betas from 0.00085 to 0.012, scaled_linear, 1000 of them), or predicts the sample; "
                             "export the model as a folder instead (format merged)",
                             m->options->config->model));
}

/* --- Tensors ------------------------------------------------------------------------------------------------------ */

/* diffusers' name of today: transformers 5 leaves "text_model." away, diffusers before 0.15 had other names in the
 * VAE's attention. */
static void modern_name(const char *name, int part, char out[DRAFT_LDM_NAME])
{
    static const char *const old[][2] = {
        {".query.", ".to_q."}, {".key.", ".to_k."}, {".value.", ".to_v."}, {".proj_attn.", ".to_out.0."}};
    bool bare = part == DRAFT_LDM_TEXT && strncmp(name, "text_model.", 11) != 0;
    snprintf(out, DRAFT_LDM_NAME, "%s%s", bare ? "text_model." : "", name);
    for (size_t i = 0; part == DRAFT_LDM_VAE && i < sizeof old / sizeof *old; i++) {
        const char *at = strstr(name, old[i][0]);
        if (at)
            snprintf(out, DRAFT_LDM_NAME, "%.*s%s%s", (int)(at - name), name, old[i][1], at + strlen(old[i][0]));
    }
}

/* open_clip's in_proj: the query's entry makes the tensor and takes key and value along. 1: done; 0: another tensor;
 * -1: key or value is missing. */
static int fuse(struct draft_merged_outputs *o, const struct draft_merged *m, const struct draft_safetensors_entry *e,
                const char *original)
{
    static const char *const kind[] = {".q_proj.", ".k_proj.", ".v_proj."};
    const char *at = strstr(original, "self_attn.");
    char name[DRAFT_LDM_NAME];
    for (int k = 0; at && k < 3; k++) {
        if (!strstr(at, kind[k]))
            continue;
        if (k > 0)
            return 1;
        const char *tail = strstr(at, kind[0]) + strlen(kind[0]); /* "weight" or "bias" */
        snprintf(name, sizeof name, "%.*sattn.in_proj_%s", (int)(at - original), original, tail);
        struct draft_safetensors_item *item = draft_merged_append(o, e, DRAFT_LDM_TEXT, name);
        struct draft_merged_output *output = &o->output[o->count - 1];
        const char *own = strstr(e->name, kind[0]);
        for (int i = 1; i < 3; i++) {
            snprintf(name, sizeof name, "%.*s%s%s", (int)(own - e->name), e->name, kind[i], own + strlen(kind[0]));
            for (int w = 0; w < draft_weights_count(m->weights[DRAFT_LDM_TEXT]) && !output->from[i]; w++)
                if (strcmp(draft_weights_at(m->weights[DRAFT_LDM_TEXT], w)->name, name) == 0)
                    output->from[i] = draft_weights_at(m->weights[DRAFT_LDM_TEXT], w);
            if (!output->from[i])
                return -1;
        }
        output->parts = 3;
        item->dim[0] *= 3;
        return 1;
    }
    return 0;
}

static bool add_part(struct draft_merged_outputs *o, const struct draft_merged *m, int part,
                     const struct draft_ldm_map *map, const struct draft_ldm_shape *shape, struct draft_error *err)
{
    const struct draft_weights *weights = m->weights[part];
    for (int i = 0; i < draft_weights_count(weights); i++) {
        const struct draft_safetensors_entry *e = draft_weights_at(weights, i);
        char name[DRAFT_LDM_NAME], original[DRAFT_LDM_NAME];
        if (draft_merged_is_inert(e) || (part == DRAFT_LDM_TEXT && strncmp(e->name, "text_projection", 15) == 0))
            continue; /* of no use to a diffusion model */
        modern_name(e->name, part, name);
        if (!draft_ldm_from_diffusers(map, name, original))
            return draft_fail(err, DRAFT_FAILED_PRECONDITION,
                              "the %s's tensor %s has no name in a single file; export the model as a folder instead "
                              "(format merged)",
                              draft_merged_folder_of[part], e->name);
        int fused = part == DRAFT_LDM_TEXT && shape->open_clip ? fuse(o, m, e, original) : 0;
        if (fused < 0)
            return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the text encoder has %s without its key or value", e->name);
        if (fused > 0)
            continue;
        struct draft_safetensors_item *item = draft_merged_append(o, e, part, original);
        if (part == DRAFT_LDM_VAE && e->rank == 2 && strstr(name, "mid_block.attentions.0.to_")) {
            item->rank = 4; /* a 1x1 convolution there */
            item->dim[2] = item->dim[3] = 1;
        }
    }
    return true;
}

static bool add_parts(struct draft_merged_outputs *o, const struct draft_merged *m, const struct draft_ldm_shape *shape,
                      struct draft_error *err)
{
    bool ok = true;
    for (int part = 0; ok && part < DRAFT_MERGED_PARTS; part++) {
        struct draft_ldm_map *map = draft_ldm_map((enum draft_ldm_part)part, shape);
        ok = map ? add_part(o, m, part, map, shape, err)
                 : draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the names of a single file");
        draft_ldm_map_free(map);
    }
    return ok;
}

/* --- The file ----------------------------------------------------------------------------------------------------- */

/* What readers ask the file itself (modelspec), among them our own. */
static bool write_file(struct draft_merged_outputs *o, const struct draft_merged *m, const char *path,
                       const struct draft_ldm_shape *shape, struct draft_error *err)
{
    struct draft_safetensors *checkpoint = draft_safetensors_open(m->options->checkpoint, err);
    if (!checkpoint)
        return false;
    const char *prediction = draft_safetensors_metadata(checkpoint, "draftd.prediction");
    bool v = prediction && strcmp(prediction, "v") == 0;
    const char *const metadata[] = {"modelspec.sai_model_spec",
                                    "1.0.0",
                                    "modelspec.architecture",
                                    !shape->open_clip ? "stable-diffusion-v1"
                                    : v               ? "stable-diffusion-v2-768-v"
                                                      : "stable-diffusion-v2-512",
                                    "modelspec.implementation",
                                    "sgm",
                                    "modelspec.prediction_type",
                                    v ? "v" : "epsilon",
                                    NULL};
    bool ok = draft_merged_write(o, path, metadata, err);
    draft_safetensors_close(checkpoint);
    return ok;
}

bool draft_export_merged_single(const char *path, const struct draft_merged_options *options, struct draft_error *err)
{
    struct draft_merged m;
    if (access(path, F_OK) == 0)
        return draft_fail(err, DRAFT_ALREADY_EXISTS, "%s is there already; name a file that is not", path);
    if (!draft_merged_open(&m, options, path, err))
        return false;
    int capacity = 0;
    for (int part = 0; part < DRAFT_MERGED_PARTS; part++)
        capacity += draft_weights_count(m.weights[part]);
    struct draft_ldm_shape shape;
    struct draft_merged_outputs o;
    bool ok = draft_merged_outputs_make(&o, &m, capacity, err) && shape_of(&m, &shape, err) &&
              can_be_single(&m, &shape, err) && same_noise(&m, err) && add_parts(&o, &m, &shape, err) &&
              write_file(&o, &m, path, &shape, err);
    draft_merged_outputs_free(&o);
    draft_merged_close(&m);
    return ok;
}
