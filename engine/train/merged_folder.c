/* A merged model as a diffusers folder. */
#include "train/merged.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "train/merged_copy.h"
#include "train/merged_tensors.h"

static bool write_part(const struct draft_merged *m, int part, const char *folder, struct draft_error *err)
{
    static const char *const metadata[] = {"format", "pt", NULL};
    char path[DRAFT_MODEL_PATH + 64];
    struct draft_merged_outputs o;
    bool ok = draft_merged_outputs_make(&o, m, draft_weights_count(m->weights[part]), err);
    for (int i = 0; ok && i < draft_weights_count(m->weights[part]); i++) {
        const struct draft_safetensors_entry *e = draft_weights_at(m->weights[part], i);
        if (!draft_merged_is_inert(e))
            draft_merged_append(&o, e, part, e->name);
    }
    snprintf(path, sizeof path, "%s/%s/%s.safetensors", folder, draft_merged_folder_of[part],
             draft_merged_stem_of[part]);
    ok = ok && draft_merged_write(&o, path, metadata, err);
    draft_merged_outputs_free(&o);
    return ok;
}

/* Of a single file: what a folder has beside the weights. */
static bool write_configs(const struct draft_merged *m, const char *folder, struct draft_error *err)
{
    bool ok = true;
    char path[DRAFT_MODEL_PATH + 64];
    for (int part = 0; ok && part < DRAFT_MERGED_PARTS; part++) {
        char *text = draft_part_config(m->weights[part], (enum draft_ldm_part)part, err);
        snprintf(path, sizeof path, "%s/%s/config.json", folder, draft_merged_folder_of[part]);
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

static bool fill_from_single(const struct draft_merged *m, const char *folder, struct draft_error *err)
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
    const struct draft_merged *m = context;
    size_t length = strlen(name);
    bool weights =
        strstr(name, ".safetensors") || strstr(name, ".bin") || strstr(name, ".ckpt") || strstr(name, ".msgpack");
    if (strcmp(part, "unet") == 0 || (strcmp(part, "text_encoder") == 0 && m->changes_text))
        return !weights;
    return length < 4 || strcmp(name + length - 4, ".bin") != 0; /* pickles are no part of what was opened */
}

bool draft_export_merged_folder(const char *path, const struct draft_merged_options *options, struct draft_error *err)
{
    struct draft_merged m;
    char making[DRAFT_MODEL_PATH];
    if (access(path, F_OK) == 0)
        return draft_fail(err, DRAFT_ALREADY_EXISTS, "%s is there already; name a folder that is not", path);
    if (snprintf(making, sizeof making, "%s.making-%d", path, (int)getpid()) >= (int)sizeof making)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the path %.200s is too long", path);
    if (!draft_merged_open(&m, options, path, err))
        return false;
    bool ok = (mkdir(making, 0777) == 0 || draft_fail_errno(err, "cannot make %s", making));
    if (ok && m.files.single)
        ok = fill_from_single(&m, making, err);
    else if (ok)
        ok = draft_copy_parts(options->config->model, making, keep, &m, err) &&
             write_part(&m, DRAFT_LDM_UNET, making, err) &&
             (!m.changes_text || write_part(&m, DRAFT_LDM_TEXT, making, err));
    if (ok && rename(making, path) != 0)
        ok = draft_fail_errno(err, "cannot rename %s to %s", making, path);
    draft_merged_close(&m);
    if (!ok)
        draft_remove_parts(making);
    return ok;
}
