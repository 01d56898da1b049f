/* A checkpoint's adapter as the LoRA file that other tools load: kohya's names (diffusers, ComfyUI, A1111,
 * stable-diffusion.cpp) or diffusers' own. No time stamps: equal checkpoints give equal bytes. */
#include "engine.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "train/checkpoint.h"

enum { MAX_NAME = 512, MAX_PAIRS = 32, TEXT = 640 };

/* Where a tensor's values come from. */
struct source {
    const struct draft_safetensors_entry *from; /* NULL: alpha */
    double scale;
};

struct lora_file {
    struct draft_safetensors_item *item;
    char (*name)[MAX_NAME];
    struct source *source;
    int count;
    float alpha;
};

static bool file_alloc(struct lora_file *f, int capacity, struct draft_error *err)
{
    f->item = calloc((size_t)capacity, sizeof *f->item);
    f->name = calloc((size_t)capacity, sizeof *f->name);
    f->source = calloc((size_t)capacity, sizeof *f->source);
    if (f->item && f->name && f->source)
        return true;
    return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for a LoRA file of %d tensors", capacity);
}

static void file_free(struct lora_file *f)
{
    free(f->source);
    free(f->name);
    free(f->item);
}

static bool load(void *context, int index, float *out, struct draft_error *err)
{
    const struct lora_file *f = context;
    const struct source *source = &f->source[index];
    if (!source->from) {
        *out = f->alpha;
        return true;
    }
    if (!draft_safetensors_to_f32(source->from, out, err))
        return false;
    int64_t n = source->from->dim[0] * source->from->dim[1];
    for (int64_t i = 0; source->scale != 1 && i < n; i++)
        out[i] = (float)(out[i] * source->scale);
    return true;
}

static char *next_item(struct lora_file *f, bool f32, const struct source *source)
{
    int i = f->count++;
    f->item[i] = (struct draft_safetensors_item){.name = f->name[i], .dtype = f32 ? DRAFT_F32 : DRAFT_F16};
    f->source[i] = *source;
    if (source->from) {
        f->item[i].rank = 2;
        memcpy(f->item[i].dim, source->from->dim, 2 * sizeof *f->item[i].dim);
    }
    return f->name[i];
}

/* "down_blocks.0.attn1.to_q" -> "lora_unet_down_blocks_0_attn1_to_q" */
static void kohya_module(char *out, const char *module, int length)
{
    snprintf(out, MAX_NAME, "lora_unet_%.*s", length, module);
    for (char *c = out; *c; c++)
        if (*c == '.')
            *c = '_';
}

/* One matrix. `module` is the part of its name between the group and ".down" or ".up". */
static bool add_matrix(struct lora_file *f, const struct draft_safetensors_entry *e, const char *module, int length,
                       bool up, const struct draft_export_options *options, double scale, struct draft_error *err)
{
    if (e->rank != 2)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s is not a matrix", e->name);
    /* diffusers' own format has no alpha: loaders take 1 */
    bool kohya = options->format == DRAFT_EXPORT_KOHYA;
    char *name = next_item(f, options->f32, &(struct source){e, up && !kohya ? scale : 1});
    if (kohya) {
        kohya_module(name, module, length);
        strcat(name, up ? ".lora_up.weight" : ".lora_down.weight");
    } else {
        snprintf(name, MAX_NAME, "unet.%.*s.lora.%s.weight", length, module, up ? "up" : "down");
    }
    return true;
}

static void add_alpha(struct lora_file *f, const char *module, int length, bool f32)
{
    char *name = next_item(f, f32, &(struct source){0});
    kohya_module(name, module, length);
    strcat(name, ".alpha");
}

static bool collect(struct lora_file *f, const struct draft_checkpoint *checkpoint,
                    const struct draft_export_options *options, struct draft_error *err)
{
    double scale = checkpoint->info.alpha / checkpoint->info.rank;
    const char *group = options->ema ? "ema/" : "lora/";
    size_t skip = strlen(group);
    for (int i = 0; i < draft_safetensors_count(checkpoint->file); i++) {
        const struct draft_safetensors_entry *e = draft_safetensors_at(checkpoint->file, i);
        size_t length = strlen(e->name);
        if (strncmp(e->name, group, skip) != 0)
            continue;
        const char *module = e->name + skip;
        bool down = length > skip + 5 && strcmp(e->name + length - 5, ".down") == 0;
        bool up = length > skip + 3 && strcmp(e->name + length - 3, ".up") == 0;
        if ((!down && !up) || length > MAX_NAME - 64)
            return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the checkpoint holds the unknown tensor %.100s", e->name);
        int module_length = (int)(length - skip - (up ? 3 : 5));
        if (!add_matrix(f, e, module, module_length, up, options, scale, err))
            return false;
        if (down && options->format == DRAFT_EXPORT_KOHYA)
            add_alpha(f, module, module_length, options->f32);
    }
    return f->count > 0 || draft_fail(err, DRAFT_INVALID_ARGUMENT, "the checkpoint holds no adapter");
}

/* Key and value pairs, values formatted into storage of their own. */
struct pairs {
    const char *list[2 * MAX_PAIRS + 1];
    char text[MAX_PAIRS][TEXT];
    int count;
};

static void add_pair(struct pairs *p, const char *key, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void add_pair(struct pairs *p, const char *key, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = p->text[p->count];
    vsnprintf(text, TEXT, format, args);
    va_end(args);
    size_t bad;
    if (!draft_utf8_valid(text, strlen(text), &bad))
        text[bad] = 0; /* cut inside a character */
    p->list[2 * p->count] = key;
    p->list[2 * p->count + 1] = p->text[p->count];
    p->count++;
}

static void describe(struct pairs *p, const struct draft_checkpoint_info *info,
                     const struct draft_export_options *options)
{
    bool v2 = strncmp(info->architecture, "stable-diffusion-v2", 19) == 0, v = strcmp(info->prediction, "v") == 0;
    const char *architecture = !v2 ? info->architecture : v ? "stable-diffusion-v2-768-v" : "stable-diffusion-v2-512";
    add_pair(p, "ss_v2", "%s", v2 ? "True" : "False");
    add_pair(p, "ss_base_model_version", "%s%s", v2 ? "sd_v2" : "sd_v1", v ? "_v" : "");
    add_pair(p, "ss_network_module", "networks.lora");
    add_pair(p, "ss_network_dim", "%d", info->rank);
    add_pair(p, "ss_network_alpha", "%g", info->alpha);
    add_pair(p, "modelspec.sai_model_spec", "1.0.0");
    add_pair(p, "modelspec.architecture", "%s/lora", architecture);
    add_pair(p, "modelspec.implementation", "diffusers");
    add_pair(p, "modelspec.prediction_type", "%s", info->prediction);
    if (options->job && options->job[0]) {
        add_pair(p, "modelspec.title", "%s", options->job);
        add_pair(p, "draftd.job", "%s", options->job);
    }
    if (options->reward && options->reward[0])
        add_pair(p, "draftd.reward", "%s", options->reward);
    add_pair(p, "draftd.kl_coeff", "%g", options->kl_coeff);
    add_pair(p, "draftd.step", "%" PRId64, info->step);
    if (options->ema)
        add_pair(p, "draftd.weights", "average");
}

bool draft_export_lora(const char *checkpoint, const char *path, const struct draft_export_options *options,
                       struct draft_error *err)
{
    struct draft_checkpoint in;
    if (!draft_checkpoint_open(&in, checkpoint, err))
        return false;
    struct lora_file file = {.alpha = (float)in.info.alpha};
    struct draft_safetensors_source source = {load, &file};
    struct pairs pairs = {0};
    describe(&pairs, &in.info, options);
    bool ok = in.info.rank > 0 ||
              draft_fail(err, DRAFT_FAILED_PRECONDITION,
                         "the job trained every weight of the UNet and has no LoRA; export the whole model instead: "
                         "format merged (a diffusers folder) or merged-single (one file)");
    ok = ok && (!options->ema || draft_checkpoint_has_average(&in, err)) &&
         file_alloc(&file, 2 * draft_safetensors_count(in.file) + 1, err) && collect(&file, &in, options, err) &&
         draft_safetensors_write_from(path, file.item, file.count, pairs.list, &source, err);
    file_free(&file);
    draft_checkpoint_close(&in);
    return ok;
}
