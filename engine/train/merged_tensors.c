#include "train/merged_tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const draft_merged_folder_of[] = {"unet", "vae", "text_encoder"}; /* by enum draft_ldm_part */
const char *const draft_merged_stem_of[] = {"diffusion_pytorch_model", "diffusion_pytorch_model", "model"};

/* --- Opening ------------------------------------------------------------------------------------------------------ */

static const char *part_path(const struct draft_merged *m, int part)
{
    return part == DRAFT_LDM_UNET ? m->files.unet : part == DRAFT_LDM_VAE ? m->files.vae : m->files.text;
}

static bool add_lora(struct draft_merged *m, const char *path, double weight, struct draft_error *err)
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

void draft_merged_close(struct draft_merged *m)
{
    for (int i = 0; i < DRAFT_MERGED_PARTS; i++)
        draft_weights_close(m->weights[i]);
    for (int i = 0; i < m->loras; i++)
        draft_lora_file_close(m->lora[i]);
    draft_checkpoint_close(&m->full);
}

/* The adapter goes by way of a LoRA file of 32-bit numbers beside the output, gone again when this returns: the open
 * file is enough. */
static bool add_adapter(struct draft_merged *m, const char *path, struct draft_error *err)
{
    char adapter[DRAFT_MODEL_PATH];
    struct draft_export_options lora = {.format = DRAFT_EXPORT_KOHYA, .f32 = true, .ema = m->options->ema};
    if (snprintf(adapter, sizeof adapter, "%s.adapter-%d", path, (int)getpid()) >= (int)sizeof adapter)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the path %.200s is too long", path);
    if (!draft_export_lora(m->options->checkpoint, adapter, &lora, err))
        return false;
    bool ok = add_lora(m, adapter, 1, err);
    unlink(adapter);
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

/* The checkpoint's convolutions are [out, kh, kw, in], the model's [out, in, kh, kw]. */
static void to_file_order(const float *from, const struct draft_safetensors_entry *e, float *out)
{
    int64_t in = e->dim[1], taps = e->dim[2] * e->dim[3];
    for (int64_t o = 0; o < e->dim[0]; o++)
        for (int64_t i = 0; i < in; i++)
            for (int64_t tap = 0; tap < taps; tap++)
                out[(o * in + i) * taps + tap] = from[(o * taps + tap) * in + i];
}

/* A UNet's weight that was itself trained. */
static bool load_trained(const struct draft_merged *m, const struct draft_safetensors_entry *e, float *out,
                         struct draft_error *err)
{
    char name[DRAFT_LDM_NAME + 8];
    snprintf(name, sizeof name, "%s/%s", m->options->ema ? "ema" : "unet", e->name);
    const struct draft_safetensors_entry *trained = draft_safetensors_find(m->full.file, name);
    int64_t n = count_of(e);
    if (!trained || count_of(trained) != n || trained->dim[0] != e->dim[0])
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s has no %s of the model's shape; is it of another model?",
                          draft_safetensors_path(m->full.file), name);
    if (e->rank != 4)
        return draft_safetensors_to_f32(trained, out, err);
    float *values = malloc((size_t)n * sizeof *values);
    bool ok = values || draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for %s", name);
    ok = ok && draft_safetensors_to_f32(trained, values, err);
    if (ok)
        to_file_order(values, e, out);
    free(values);
    return ok;
}

static bool load_part(const struct draft_merged *m, const struct draft_merged_output *output,
                      const struct draft_safetensors_entry *e, float *out, struct draft_error *err)
{
    char module[DRAFT_LORA_MODULE];
    if (output->unet && m->full.file) /* the base LoRAs were in it when training began */
        return load_trained(m, e, out, err);
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

static bool load(void *context, int index, float *out, struct draft_error *err)
{
    const struct draft_merged_outputs *o = context;
    const struct draft_merged_output *output = &o->output[index];
    for (int i = 0; i < output->parts; i++) {
        if (!load_part(o->merged, output, output->from[i], out, err))
            return false;
        out += count_of(output->from[i]);
    }
    return true;
}

struct draft_safetensors_item *draft_merged_append(struct draft_merged_outputs *o,
                                                   const struct draft_safetensors_entry *e, int part, const char *name)
{
    struct draft_merged_output *output = &o->output[o->count];
    struct draft_safetensors_item *item = &o->item[o->count++];
    *output = (struct draft_merged_output){
        .from = {e}, .parts = 1, .text = part == DRAFT_LDM_TEXT, .unet = part == DRAFT_LDM_UNET};
    snprintf(output->name, sizeof output->name, "%s", name);
    *item = (struct draft_safetensors_item){.dtype = o->merged->options->f32 ? DRAFT_F32 : DRAFT_F16, .rank = e->rank};
    memcpy(item->dim, e->dim, sizeof item->dim);
    return item;
}

bool draft_merged_outputs_make(struct draft_merged_outputs *o, const struct draft_merged *m, int capacity,
                               struct draft_error *err)
{
    *o = (struct draft_merged_outputs){.merged = m};
    o->output = calloc((size_t)capacity + 1, sizeof *o->output);
    o->item = calloc((size_t)capacity + 1, sizeof *o->item);
    return (o->output && o->item) || draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the table of a merged model");
}

bool draft_merged_write(struct draft_merged_outputs *o, const char *path, const char *const *metadata,
                        struct draft_error *err)
{
    struct draft_safetensors_source source = {load, o};
    for (int i = 0; i < o->count; i++)
        o->item[i].name = o->output[i].name;
    return draft_safetensors_write_from(path, o->item, o->count, metadata, &source, err);
}

void draft_merged_outputs_free(struct draft_merged_outputs *o)
{
    free(o->output);
    free(o->item);
}

/* --- All of it ---------------------------------------------------------------------------------------------------- */

/* Every pair's layer is there: a pair that changed nothing would go unnoticed. */
static bool layers_exist(const struct draft_merged *m, struct draft_error *err)
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

bool draft_merged_open(struct draft_merged *m, const struct draft_merged_options *options, const char *path,
                       struct draft_error *err)
{
    const struct draft_job_config *c = options->config;
    *m = (struct draft_merged){.options = options};
    bool ok = draft_model_locate(&m->files, c->model, err);
    for (int i = 0; ok && i < DRAFT_MERGED_PARTS; i++)
        ok = (m->weights[i] = draft_part_weights(part_path(m, i), draft_merged_stem_of[i], (enum draft_ldm_part)i, NULL,
                                                 err)) != NULL;
    if (ok)
        draft_weights_alias(m->weights[DRAFT_LDM_TEXT], "text_model.", ""); /* as transformers 5 writes it */
    for (int i = 0; ok && i < c->base_lora_count; i++)
        ok = add_lora(m, c->base_lora[i].path, c->base_lora[i].weight, err);
    if (ok && c->train == DRAFT_TRAIN_FULL)
        ok = draft_checkpoint_open(&m->full, options->checkpoint, err) &&
             (!options->ema || draft_checkpoint_has_average(&m->full, err));
    else
        ok = ok && add_adapter(m, path, err);
    ok = ok && layers_exist(m, err);
    if (!ok)
        draft_merged_close(m);
    return ok;
}
