#include "train/model_files.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "models/part.h"
#include "tensor/pickle.h"

static bool put(char *out, const char *folder, const char *name, struct draft_error *err)
{
    const char *slash = name[0] != '\0' ? "/" : "";
    if (snprintf(out, DRAFT_MODEL_PATH, "%s%s%s", folder, slash, name) < DRAFT_MODEL_PATH)
        return true;
    return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the path %.200s/%s is too long", folder, name);
}

static bool is_there(const char *folder, const char *name)
{
    char path[DRAFT_MODEL_PATH];
    return put(path, folder, name, NULL) && access(path, F_OK) == 0;
}

/* Whether any tensor's name begins with `prefix`. */
static bool any(const struct draft_safetensors *file, const char *prefix)
{
    for (int i = 0; i < draft_safetensors_count(file); i++)
        if (strncmp(draft_safetensors_at(file, i)->name, prefix, strlen(prefix)) == 0)
            return true;
    return false;
}

/* What a file is that is no whole Stable Diffusion 1.x or 2.x, as far as names tell. */
static bool is_a_whole_model(const struct draft_safetensors *file, struct draft_error *err)
{
    static const struct {
        const char *prefix, *what;
    } others[] = {
        {"conditioner.", "is an SDXL checkpoint; only Stable Diffusion 1.x and 2.x are implemented"},
        {"model.diffusion_model.joint_blocks.",
         "is a Stable Diffusion 3 checkpoint; only Stable Diffusion 1.x and 2.x are implemented"},
        {"model.diffusion_model.double_blocks.",
         "is a Flux checkpoint; only Stable Diffusion 1.x and 2.x are implemented"},
        {"control_model.", "is a ControlNet, not a model that draws by itself"},
        {"lora_unet_", "is a LoRA, not a model; give the model as model and this file as a base LoRA"},
        {"unet.", "is a LoRA or a part of one, not a whole model"},
        {"down_blocks.", "is the UNet of a diffusers folder; give the folder that unet/ lies in"},
        {"decoder.", "is a VAE, not a whole model"},
        {"text_model.", "is a text encoder, not a whole model"},
    };
    const char *path = draft_safetensors_path(file);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (any(file, others[i].prefix) && (i < 4 || !draft_ldm_is(file)))
            return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s %s", path, others[i].what);
    if (!draft_ldm_is(file))
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "%s is no Stable Diffusion checkpoint: no tensor begins with model.diffusion_model., "
                          "first_stage_model. or cond_stage_model.",
                          path);
    return true;
}

static bool find_vocabulary(struct draft_model_files *files, const char *folder, const char *model,
                            struct draft_error *err)
{
    if (is_there(folder, "tokenizer/vocab.json"))
        return put(files->tokenizer, folder, "tokenizer", err);
    if (is_there(folder, "vocab.json") && is_there(folder, "merges.txt"))
        return put(files->tokenizer, folder, "", err);
    return draft_fail(err, DRAFT_NOT_FOUND,
                      "%s needs CLIP's vocabulary, which no single file holds: put the folder tokenizer/ of any Stable "
                      "Diffusion pipeline, or vocab.json and merges.txt of openai/clip-vit-large-patch14, beside it in "
                      "%s (python3 -c \"from transformers import CLIPTokenizer as T; "
                      "T.from_pretrained('openai/clip-vit-large-patch14').save_pretrained('tokenizer')\")",
                      model, folder);
}

static bool locate_single(struct draft_model_files *files, const char *model, struct draft_error *err)
{
    if (draft_is_pickle(model))
        return draft_refuse_pickle(model, err);
    struct draft_safetensors *file = draft_safetensors_open(model, err);
    if (file == NULL)
        return false;
    bool ok = is_a_whole_model(file, err);
    bool open_clip = draft_ldm_shape_of(file).open_clip;
    draft_safetensors_close(file);
    char folder[DRAFT_MODEL_PATH];
    const char *slash = strrchr(model, '/');
    size_t length = slash == NULL ? 0 : slash == model ? 1 : (size_t)(slash - model);
    ok = ok && put(files->unet, model, "", err) && put(files->vae, model, "", err) &&
         put(files->text, model, "", err) && put(folder, model, "", err);
    if (!ok)
        return false;
    if (length == 0)
        strcpy(folder, ".");
    else
        folder[length] = '\0';
    if (!find_vocabulary(files, folder, model, err))
        return false;
    files->open_clip_padding = open_clip && !is_there(files->tokenizer, "tokenizer_config.json") &&
                               !is_there(files->tokenizer, "special_tokens_map.json");
    if (is_there(folder, "scheduler/scheduler_config.json"))
        return put(files->scheduler, folder, "scheduler/scheduler_config.json", err);
    if (is_there(folder, "scheduler_config.json"))
        return put(files->scheduler, folder, "scheduler_config.json", err);
    return true;
}

/* What a folder says it is, if it says so. The parts' own files decide everything else. */
static bool is_stable_diffusion(const char *folder, struct draft_error *err)
{
    static const char *const pipelines[] = {"StableDiffusionPipeline", "StableDiffusionPipelineSafe",
                                            "StableDiffusionImg2ImgPipeline"};
    char path[DRAFT_MODEL_PATH];
    if (!is_there(folder, "model_index.json"))
        return true;
    if (!put(path, folder, "model_index.json", err))
        return false;
    struct draft_json *index = draft_json_open(path, err);
    const char *name = NULL;
    bool ok = index != NULL && draft_json_string(index, "_class_name", pipelines[0], &name, err), known = false;
    for (size_t i = 0; ok && i < sizeof pipelines / sizeof *pipelines; i++)
        known = known || strcmp(name, pipelines[i]) == 0;
    if (ok && !known)
        draft_fail(err, DRAFT_INVALID_ARGUMENT,
                   "%s says that the model is a %.64s; only Stable Diffusion 1.x and 2.x (StableDiffusionPipeline) are "
                   "implemented",
                   path, name);
    draft_json_close(index);
    return ok && known;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_checkpoint(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return dot != NULL && strcmp(dot, ".safetensors") == 0;
}

/* A folder of something else: what it may have been meant for. */
static bool refuse_folder(const char *folder, struct draft_error *err)
{
    if (is_there(folder, "config.json"))
        return draft_fail(
            err, DRAFT_INVALID_ARGUMENT,
            "%s is one part of a model; give the folder that holds unet/, vae/, text_encoder/, tokenizer/ "
            "and scheduler/",
            folder);
    struct dirent **entry = NULL;
    int count = scandir(folder, &entry, is_checkpoint, by_name);
    if (count > 0)
        draft_fail(err, DRAFT_INVALID_ARGUMENT,
                   "%s has no unet/ and is no diffusers folder; to open the checkpoint in it give the file itself: "
                   "%s/%.200s",
                   folder, folder, entry[0]->d_name);
    else
        draft_fail(
            err, DRAFT_NOT_FOUND,
            "%s holds no model: expected a diffusers folder (unet/, vae/, text_encoder/, tokenizer/, scheduler/) "
            "or a .safetensors file",
            folder);
    for (int i = 0; i < count; i++)
        free(entry[i]);
    free(entry);
    return false;
}

static bool has_every_part(const char *folder, struct draft_error *err)
{
    static const char *const parts[] = {"unet", "vae", "text_encoder", "tokenizer", "scheduler"};
    if (!is_there(folder, "unet"))
        return refuse_folder(folder, err);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!is_there(folder, parts[i]))
            return draft_fail(err, DRAFT_NOT_FOUND, "%s has no %s/, which a Stable Diffusion folder needs", folder,
                              parts[i]);
    return true;
}

bool draft_model_locate(struct draft_model_files *files, const char *model, struct draft_error *err)
{
    *files = (struct draft_model_files){.single = draft_is_single_file(model)};
    if (files->single)
        return locate_single(files, model, err);
    if (access(model, F_OK) != 0)
        return draft_fail_errno(err, "cannot open the model %s", model);
    return is_stable_diffusion(model, err) && has_every_part(model, err) &&
           put(files->tokenizer, model, "tokenizer", err) && put(files->text, model, "text_encoder", err) &&
           put(files->unet, model, "unet", err) && put(files->vae, model, "vae", err) &&
           put(files->scheduler, model, "scheduler/scheduler_config.json", err);
}

bool draft_model_scheduler(const struct draft_model_files *files, struct draft_scheduler *scheduler,
                           struct draft_error *err)
{
    if (files->scheduler[0] != '\0')
        return draft_scheduler_open(scheduler, files->scheduler, err);
    struct draft_safetensors *file = draft_safetensors_open(files->unet, err);
    if (file == NULL)
        return false;
    char *text = draft_single_file_scheduler(file);
    bool ok = text != NULL ? draft_scheduler_parse(scheduler, text, err)
                           : draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for a scheduler");
    if (!ok)
        draft_error_prefix(err, "%s: ", files->unet);
    free(text);
    draft_safetensors_close(file);
    return ok;
}
