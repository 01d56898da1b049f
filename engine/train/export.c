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

struct lora_file {
    struct draft_safetensors_item *item;
    char (*name)[MAX_NAME];
    float **scaled; /* copies of "up" times alpha / rank, or NULL */
    int count, capacity;
    float alpha;
};

static bool file_alloc(struct lora_file *f, int capacity, struct draft_error *err)
{
    f->capacity = capacity;
    f->item = calloc((size_t)capacity, sizeof *f->item);
    f->name = calloc((size_t)capacity, sizeof *f->name);
    f->scaled = calloc((size_t)capacity, sizeof *f->scaled);
    if (f->item && f->name && f->scaled)
        return true;
    return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for a LoRA file of %d tensors", capacity);
}

static void file_free(struct lora_file *f)
{
    for (int i = 0; f->scaled && i < f->capacity; i++)
        free(f->scaled[i]);
    free(f->scaled);
    free(f->name);
    free(f->item);
}

static struct draft_safetensors_item *next_item(struct lora_file *f, enum draft_dtype dtype, const void *data)
{
    struct draft_safetensors_item *item = &f->item[f->count];
    *item = (struct draft_safetensors_item){.name = f->name[f->count], .dtype = dtype, .data = data};
    f->count++;
    return item;
}

/* "down_blocks.0.attn1.to_q" -> "lora_unet_down_blocks_0_attn1_to_q" */
static void kohya_module(char *out, const char *module, int length)
{
    snprintf(out, MAX_NAME, "lora_unet_%.*s", length, module);
    for (char *c = out; *c; c++)
        if (*c == '.')
            *c = '_';
}

/* One matrix. `module` is the part of its name between "lora/" and ".down" or ".up". */
static bool add_matrix(struct lora_file *f, const struct draft_checkpoint_tensor *e, const char *module, int length,
                       bool up, const struct draft_export_options *options, double scale, struct draft_error *err)
{
    enum draft_dtype dtype = options->f32 ? DRAFT_F32 : DRAFT_F16;
    if (e->rank != 2)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s is not a matrix", e->name);
    size_t bytes = (size_t)(e->dim[0] * e->dim[1]) * sizeof(float);
    const float *data = e->data;
    if (up && scale != 1) { /* diffusers' own format has no alpha: loaders take 1 */
        float *copy = malloc(bytes);
        if (!copy)
            return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for %s", e->name);
        for (size_t i = 0; i < bytes / sizeof *copy; i++)
            copy[i] = (float)(data[i] * scale);
        f->scaled[f->count] = copy;
        data = copy;
    }
    struct draft_safetensors_item *item = next_item(f, dtype, data);
    char *name = f->name[f->count - 1];
    if (options->format == DRAFT_EXPORT_KOHYA) {
        kohya_module(name, module, length);
        strcat(name, up ? ".lora_up.weight" : ".lora_down.weight");
    } else {
        snprintf(name, MAX_NAME, "unet.%.*s.lora.%s.weight", length, module, up ? "up" : "down");
    }
    item->rank = 2;
    item->dim[0] = e->dim[0];
    item->dim[1] = e->dim[1];
    return true;
}

static void add_alpha(struct lora_file *f, const char *module, int length, bool f32)
{
    next_item(f, f32 ? DRAFT_F32 : DRAFT_F16, &f->alpha);
    char *name = f->name[f->count - 1];
    kohya_module(name, module, length);
    strcat(name, ".alpha");
}

static bool collect(struct lora_file *f, const struct draft_checkpoint *checkpoint, double scale,
                    const struct draft_export_options *options, struct draft_error *err)
{
    for (int i = 0; i < checkpoint->count; i++) {
        const struct draft_checkpoint_tensor *e = &checkpoint->tensor[i];
        size_t length = strlen(e->name);
        if (strncmp(e->name, "lora/", 5) != 0)
            continue;
        bool down = length > 10 && strcmp(e->name + length - 5, ".down") == 0;
        bool up = length > 8 && strcmp(e->name + length - 3, ".up") == 0;
        if ((!down && !up) || length > MAX_NAME - 64)
            return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the checkpoint holds the unknown tensor %.100s", e->name);
        const char *module = e->name + 5;
        int module_length = (int)(length - 5 - (up ? 3 : 5));
        if (!add_matrix(f, e, module, module_length, up, options, options->format == DRAFT_EXPORT_DIFFUSERS ? scale : 1,
                        err))
            return false;
        if (down && options->format == DRAFT_EXPORT_KOHYA)
            add_alpha(f, module, module_length, options->f32);
    }
    if (f->count == 0)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the checkpoint holds no adapter");
    return true;
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
}

bool draft_export_lora(const char *checkpoint, const char *path, const struct draft_export_options *options,
                       struct draft_error *err)
{
    struct draft_checkpoint in;
    if (!draft_checkpoint_open(&in, checkpoint, err))
        return false;
    struct lora_file file = {.alpha = (float)in.info.alpha};
    struct pairs pairs = {0};
    describe(&pairs, &in.info, options);
    bool ok = file_alloc(&file, 2 * in.count + 1, err) &&
              collect(&file, &in, in.info.alpha / in.info.rank, options, err) &&
              draft_safetensors_write(path, file.item, file.count, pairs.list, err);
    file_free(&file);
    draft_checkpoint_close(&in);
    return ok;
}
