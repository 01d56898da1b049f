#include "train/merged.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "engine.h"
#include "models/part.h"
#include "tensor/lora_file.h"
#include "train/merged_copy.h"
#include "train/model_files.h"

enum { PARTS = 3, FILES = DRAFT_MAX_BASE_LORAS + 1 };

static const char *const FOLDER[PARTS] = {"unet", "vae", "text_encoder"}; /* by enum draft_ldm_part */
static const char *const STEM[PARTS] = {"diffusion_pytorch_model", "diffusion_pytorch_model", "model"};

struct merged {
    const struct draft_merged_options *options;
    struct draft_model_files files;
    struct draft_weights *weights[PARTS];
    struct draft_lora_file *lora[FILES];
    double weight[FILES];
    int loras;
    bool changes_text;
};

/* One tensor to be written. */
struct output {
    const struct draft_safetensors_entry *from;
    bool text, unet; /* whose LoRA pairs apply */
    char name[DRAFT_LDM_NAME];
};

struct outputs {
    const struct merged *merged;
    struct output *output;
    struct draft_safetensors_item *item;
    int count;
};

/* --- Opening ------------------------------------------------------------------------------------------------------ */

static const char *part_path(const struct merged *m, int part)
{
    return part == DRAFT_LDM_UNET ? m->files.unet : part == DRAFT_LDM_VAE ? m->files.vae : m->files.text;
}

static bool add_lora(struct merged *m, const char *path, double weight, struct draft_error *err)
{
    struct draft_lora_file *file = draft_lora_file_open(path, err);
    if (!file)
        return false;
    for (int i = 0; i < draft_lora_file_count(file); i++)
        m->changes_text |= draft_lora_file_at(file, i)->text;
    m->lora[m->loras] = file;
    m->weight[m->loras++] = weight;
    return true;
}

static void close_all(struct merged *m)
{
    for (int i = 0; i < PARTS; i++)
        draft_weights_close(m->weights[i]);
    for (int i = 0; i < m->loras; i++)
        draft_lora_file_close(m->lora[i]);
}

/* The adapter goes by way of a LoRA file of 32-bit numbers beside the output, gone again when this returns: the open
 * file is enough. */
static bool open_all(struct merged *m, const struct draft_merged_options *options, const char *path,
                     struct draft_error *err)
{
    const struct draft_job_config *c = options->config;
    *m = (struct merged){.options = options};
    char adapter[DRAFT_MODEL_PATH];
    if (snprintf(adapter, sizeof adapter, "%s.adapter-%d", path, (int)getpid()) >= (int)sizeof adapter)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the path %.200s is too long", path);
    bool ok = draft_model_locate(&m->files, c->model, err);
    for (int i = 0; ok && i < PARTS; i++)
        ok = (m->weights[i] = draft_part_weights(part_path(m, i), STEM[i], (enum draft_ldm_part)i, NULL, err)) != NULL;
    for (int i = 0; ok && i < c->base_lora_count; i++)
        ok = add_lora(m, c->base_lora[i].path, c->base_lora[i].weight, err);
    struct draft_export_options lora = {.format = DRAFT_EXPORT_KOHYA, .f32 = true};
    ok = ok && draft_export_lora(options->checkpoint, adapter, &lora, err);
    if (ok) {
        ok = add_lora(m, adapter, 1, err);
        unlink(adapter);
    }
    if (!ok)
        close_all(m);
    return ok;
}

/* --- Tensors ------------------------------------------------------------------------------------------------------ */

static int64_t count_of(const struct draft_safetensors_entry *e)
{
    int64_t n = 1;
    for (int i = 0; i < e->rank; i++)
        n *= e->dim[i];
    return n;
}

/* values += weight * scale * up x down, in the file's order [out, in, kh, kw]. */
static bool add_pair(const struct draft_lora_pair *pair, double weight, const struct draft_safetensors_entry *to,
                     float *values, struct draft_error *err)
{
    int64_t out = to->dim[0], row = count_of(to) / (out > 0 ? out : 1);
    if (to->rank < 2 || pair->up->dim[0] != out || count_of(pair->down) != pair->rank * row)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: %.200s does not fit the layer's weight",
                          draft_safetensors_path(pair->down->file), pair->down->name);
    float *down, *up;
    if (!draft_lora_pair_read(pair, &down, &up, err))
        return false;
    double *sum = malloc((size_t)row * sizeof *sum);
    for (int64_t o = 0; sum && o < out; o++) {
        memset(sum, 0, (size_t)row * sizeof *sum);
        for (int64_t r = 0; r < pair->rank; r++) {
            double factor = weight * pair->scale * up[o * pair->rank + r];
            for (int64_t i = 0; i < row; i++)
                sum[i] += factor * down[r * row + i];
        }
        for (int64_t i = 0; i < row; i++)
            values[o * row + i] = (float)(values[o * row + i] + sum[i]);
    }
    bool ok = sum || draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory to merge %s", pair->module);
    free(sum);
    free(down);
    free(up);
    return ok;
}

/* "text_model.x.weight" -> "text_model_x"; false for what no LoRA changes. */
static bool module_of(const char *name, bool text, char out[DRAFT_LORA_MODULE])
{
    size_t length = strlen(name);
    if (length < 8 || strcmp(name + length - 7, ".weight") != 0)
        return false;
    char full[DRAFT_LORA_MODULE];
    bool bare = text && strncmp(name, "text_model.", 11) != 0; /* as transformers 5 writes it */
    snprintf(full, sizeof full, "%s%.*s", bare ? "text_model." : "", (int)(length - 7), name);
    draft_lora_mangle(out, full, (int)strlen(full));
    return true;
}

static bool load(void *context, int index, float *out, struct draft_error *err)
{
    const struct outputs *o = context;
    const struct output *output = &o->output[index];
    const struct merged *m = o->merged;
    const struct draft_safetensors_entry *e = output->from;
    char module[DRAFT_LORA_MODULE];
    if (!draft_safetensors_to_f32(e, out, err))
        return false;
    if ((!output->text && !output->unet) || !module_of(e->name, output->text, module))
        return true;
    for (int f = 0; f < m->loras; f++)
        for (int i = 0; i < draft_lora_file_count(m->lora[f]); i++) {
            const struct draft_lora_pair *pair = draft_lora_file_at(m->lora[f], i);
            if (pair->text == output->text && strcmp(pair->module, module) == 0 &&
                !add_pair(pair, m->weight[f], e, out, err))
                return false;
        }
    return true;
}

static void append(struct outputs *o, const struct draft_safetensors_entry *e, int part, const char *name)
{
    struct output *output = &o->output[o->count];
    struct draft_safetensors_item *item = &o->item[o->count++];
    *output = (struct output){.from = e, .text = part == DRAFT_LDM_TEXT, .unet = part == DRAFT_LDM_UNET};
    snprintf(output->name, sizeof output->name, "%s", name);
    *item = (struct draft_safetensors_item){.dtype = o->merged->options->f32 ? DRAFT_F32 : DRAFT_F16, .rank = e->rank};
    memcpy(item->dim, e->dim, sizeof item->dim);
}

static bool make_outputs(struct outputs *o, const struct merged *m, int capacity, struct draft_error *err)
{
    *o = (struct outputs){.merged = m};
    o->output = calloc((size_t)capacity + 1, sizeof *o->output);
    o->item = calloc((size_t)capacity + 1, sizeof *o->item);
    return (o->output && o->item) || draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the table of a merged model");
}

static bool write_outputs(struct outputs *o, const char *path, const char *const *metadata, struct draft_error *err)
{
    struct draft_safetensors_source source = {load, o};
    for (int i = 0; i < o->count; i++)
        o->item[i].name = o->output[i].name;
    return draft_safetensors_write_from(path, o->item, o->count, metadata, &source, err);
}

static void free_outputs(struct outputs *o)
{
    free(o->output);
    free(o->item);
}

/* --- A folder ----------------------------------------------------------------------------------------------------- */

static bool is_inert(const struct draft_safetensors_entry *e)
{
    return e->dtype == DRAFT_I64 || e->dtype == DRAFT_I32; /* position_ids, which are 0, 1, 2 ... */
}

static bool write_part(const struct merged *m, int part, const char *folder, struct draft_error *err)
{
    static const char *const metadata[] = {"format", "pt", NULL};
    char path[DRAFT_MODEL_PATH + 64];
    struct outputs o;
    bool ok = make_outputs(&o, m, draft_weights_count(m->weights[part]), err);
    for (int i = 0; ok && i < draft_weights_count(m->weights[part]); i++) {
        const struct draft_safetensors_entry *e = draft_weights_at(m->weights[part], i);
        if (!is_inert(e))
            append(&o, e, part, e->name);
    }
    snprintf(path, sizeof path, "%s/%s/%s.safetensors", folder, FOLDER[part], STEM[part]);
    ok = ok && write_outputs(&o, path, metadata, err);
    free_outputs(&o);
    return ok;
}

/* Every pair's layer is there: a pair that changed nothing would go unnoticed. */
static bool layers_exist(const struct merged *m, struct draft_error *err)
{
    for (int f = 0; f < m->loras; f++)
        for (int i = 0; i < draft_lora_file_count(m->lora[f]); i++) {
            const struct draft_lora_pair *pair = draft_lora_file_at(m->lora[f], i);
            const struct draft_weights *w = m->weights[pair->text ? DRAFT_LDM_TEXT : DRAFT_LDM_UNET];
            bool found = false;
            char module[DRAFT_LORA_MODULE];
            for (int k = 0; !found && k < draft_weights_count(w); k++)
                found =
                    module_of(draft_weights_at(w, k)->name, pair->text, module) && strcmp(module, pair->module) == 0;
            if (!found)
                return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s changes %s, which the model %s does not have",
                                  draft_safetensors_path(pair->down->file), pair->module, m->options->config->model);
        }
    return true;
}

/* Of a single file: what a folder has beside the weights. */
static bool write_configs(const struct merged *m, const char *folder, struct draft_error *err)
{
    bool ok = true;
    char path[DRAFT_MODEL_PATH + 64];
    for (int part = 0; ok && part < PARTS; part++) {
        char *text = draft_part_config(m->weights[part], (enum draft_ldm_part)part, err);
        snprintf(path, sizeof path, "%s/%s/config.json", folder, FOLDER[part]);
        ok = text && draft_atomic_write_file(path, text, strlen(text), err);
        free(text);
    }
    snprintf(path, sizeof path, "%s/scheduler/scheduler_config.json", folder);
    if (ok && m->files.scheduler[0])
        return draft_copy_file(m->files.scheduler, path, err);
    char *text = ok ? draft_single_file_scheduler(draft_weights_file(m->weights[0])) : NULL;
    ok = ok && (text || draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for a scheduler")) &&
         draft_atomic_write_file(path, text, strlen(text), err);
    free(text);
    return ok;
}

static bool fill_from_single(const struct merged *m, const char *folder, struct draft_error *err)
{
    static const char index[] = "{\n  \"_class_name\": \"StableDiffusionPipeline\",\n"
                                "  \"feature_extractor\": [null, null],\n  \"safety_checker\": [null, null],\n"
                                "  \"scheduler\": [\"diffusers\", \"DDIMScheduler\"],\n"
                                "  \"text_encoder\": [\"transformers\", \"CLIPTextModel\"],\n"
                                "  \"tokenizer\": [\"transformers\", \"CLIPTokenizer\"],\n"
                                "  \"unet\": [\"diffusers\", \"UNet2DConditionModel\"],\n"
                                "  \"vae\": [\"diffusers\", \"AutoencoderKL\"]\n}\n";
    static const char *const made[] = {"unet", "vae", "text_encoder", "scheduler", "tokenizer"};
    static const char *const vocabulary[] = {"vocab.json", "merges.txt", "tokenizer_config.json",
                                             "special_tokens_map.json"};
    char path[DRAFT_MODEL_PATH + 64], from[DRAFT_MODEL_PATH + 64];
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, made[i]);
        if (mkdir(path, 0777) != 0)
            return draft_fail_errno(err, "cannot make the folder %s", path);
    }
    for (size_t i = 0; i < sizeof vocabulary / sizeof *vocabulary; i++) {
        snprintf(from, sizeof from, "%s/%s", m->files.tokenizer, vocabulary[i]);
        snprintf(path, sizeof path, "%s/tokenizer/%s", folder, vocabulary[i]);
        if (access(from, F_OK) == 0 && !draft_copy_file(from, path, err))
            return false;
    }
    if (m->files.open_clip_padding) {
        static const char pad[] =
            "{\"pad_token\": \"!\", \"model_max_length\": 77, \"tokenizer_class\": \"CLIPTokenizer\"}\n";
        snprintf(path, sizeof path, "%s/tokenizer/tokenizer_config.json", folder);
        if (!draft_atomic_write_file(path, pad, strlen(pad), err))
            return false;
    }
    snprintf(path, sizeof path, "%s/model_index.json", folder);
    return draft_atomic_write_file(path, index, strlen(index), err) && write_configs(m, folder, err) &&
           write_part(m, DRAFT_LDM_UNET, folder, err) && write_part(m, DRAFT_LDM_VAE, folder, err) &&
           write_part(m, DRAFT_LDM_TEXT, folder, err);
}

/* Weights that are written anew are not copied. */
static bool keep(void *context, const char *part, const char *name)
{
    const struct merged *m = context;
    size_t length = strlen(name);
    bool weights =
        strstr(name, ".safetensors") || strstr(name, ".bin") || strstr(name, ".ckpt") || strstr(name, ".msgpack");
    if (strcmp(part, "unet") == 0 || (strcmp(part, "text_encoder") == 0 && m->changes_text))
        return !weights;
    return length < 4 || strcmp(name + length - 4, ".bin") != 0; /* pickles are no part of what was opened */
}

bool draft_export_merged_folder(const char *path, const struct draft_merged_options *options, struct draft_error *err)
{
    struct merged m;
    char making[DRAFT_MODEL_PATH];
    if (access(path, F_OK) == 0)
        return draft_fail(err, DRAFT_ALREADY_EXISTS, "%s is there already; name a folder that is not", path);
    if (snprintf(making, sizeof making, "%s.making-%d", path, (int)getpid()) >= (int)sizeof making)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the path %.200s is too long", path);
    if (!open_all(&m, options, path, err))
        return false;
    bool ok = layers_exist(&m, err) && (mkdir(making, 0777) == 0 || draft_fail_errno(err, "cannot make %s", making));
    if (ok && m.files.single)
        ok = fill_from_single(&m, making, err);
    else if (ok)
        ok = draft_copy_parts(options->config->model, making, keep, &m, err) &&
             write_part(&m, DRAFT_LDM_UNET, making, err) &&
             (!m.changes_text || write_part(&m, DRAFT_LDM_TEXT, making, err));
    if (ok && rename(making, path) != 0)
        ok = draft_fail_errno(err, "cannot rename %s to %s", making, path);
    close_all(&m);
    if (!ok)
        draft_remove_parts(making);
    return ok;
}
