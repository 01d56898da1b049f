/* Fingerprints: of the files a job was opened with, and of the settings that decide its numbers. */
#include "fingerprint.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "models/part.h"
#include "train/model_files.h"

static void add_text(struct draft_checksum *sum, const char *text)
{
    draft_checksum_add(sum, text, strlen(text) + 1);
}

/* --- Files -------------------------------------------------------------------------------------------------------- */

static bool ends_with(const char *name, const char *tail)
{
    size_t n = strlen(name), t = strlen(tail);
    return n > t && strcmp(name + n - t, tail) == 0;
}

/* What a model folder can be opened from: weights, configuration, vocabularies. Hidden files are none of it. */
static int wanted(const struct dirent *entry)
{
    const char *name = entry->d_name;
    return name[0] != '.' && (ends_with(name, ".safetensors") || ends_with(name, ".json") || ends_with(name, ".txt"));
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name); /* not alphasort: that follows the locale */
}

static bool add_file(struct draft_checksum *sum, const char *folder, const char *name, struct draft_progress *progress,
                     struct draft_error *err)
{
    char path[4096], hex[DRAFT_CHECKSUM_SIZE];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the path %s/%s is too long", folder, name);
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return true; /* a folder whose name looks like a file's */
    uint64_t bytes;
    if (!draft_checksum_file(path, hex, &bytes, err))
        return false;
    add_text(sum, name);
    add_text(sum, hex);
    if (progress && !draft_progress_keep_going(progress))
        return draft_fail(err, DRAFT_CANCELLED, "reading the weights was stopped on request");
    return true;
}

/* `part` is a folder inside `top`, or "". An absent part adds its name alone: whoever opens it will complain. */
static bool add_folder(struct draft_checksum *sum, const char *top, const char *part, struct draft_progress *progress,
                       struct draft_error *err)
{
    char folder[4096];
    if ((size_t)snprintf(folder, sizeof folder, "%s%s%s", top, part[0] ? "/" : "", part) >= sizeof folder)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the path %s/%s is too long", top, part);
    add_text(sum, part);
    struct dirent **entry;
    int count = scandir(folder, &entry, wanted, by_bytes);
    if (count < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return true;
        return draft_fail_errno(err, "the folder %s cannot be read", folder);
    }
    bool ok = true;
    for (int i = 0; i < count; i++) {
        ok = ok && add_file(sum, folder, entry[i]->d_name, progress, err);
        free(entry[i]);
    }
    free(entry);
    return ok;
}

static bool add_path(struct draft_checksum *sum, const char *path, struct draft_progress *progress,
                     struct draft_error *err)
{
    const char *slash = strrchr(path, '/');
    char folder[4096];
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    return add_file(sum, folder, slash ? slash + 1 : path, progress, err);
}

/* A failure names the request's field. */
static bool add_named(struct draft_checksum *sum, const char *path, const char *field, struct draft_progress *progress,
                      struct draft_error *err)
{
    return add_path(sum, path, progress, err) || draft_error_blame(err, field);
}

/* A single-file checkpoint and what belongs to it beside it: never the other models of the same folder. */
static bool add_single(struct draft_checksum *sum, const char *model, struct draft_progress *progress,
                       struct draft_error *err)
{
    static const char *const vocabulary[] = {"vocab.json", "merges.txt", "tokenizer_config.json",
                                             "special_tokens_map.json"};
    struct draft_model_files files;
    bool ok = draft_model_locate(&files, model, err) && add_path(sum, model, progress, err) &&
              (!files.scheduler[0] || add_path(sum, files.scheduler, progress, err));
    for (size_t i = 0; ok && i < sizeof vocabulary / sizeof *vocabulary; i++) {
        char path[4200];
        snprintf(path, sizeof path, "%s/%s", files.tokenizer, vocabulary[i]);
        if (access(path, F_OK) == 0)
            ok = add_file(sum, files.tokenizer, vocabulary[i], progress, err);
    }
    return ok;
}

bool draft_fingerprint(const struct draft_job_config *config, struct draft_progress *progress,
                       char hex[DRAFT_CHECKSUM_SIZE], struct draft_error *err)
{
    static const char *const parts[] = {"tokenizer", "text_encoder", "unet", "vae", "scheduler"};
    struct draft_checksum *sum = draft_checksum_start();
    if (!sum)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for a checksum");
    bool ok = true;
    if (draft_is_single_file(config->model))
        ok = add_single(sum, config->model, progress, err);
    for (size_t i = 0; ok && i < sizeof parts / sizeof *parts && !draft_is_single_file(config->model); i++)
        ok = add_folder(sum, config->model, parts[i], progress, err);
    for (int i = 0; ok && i < config->reward_count; i++)
        if (config->reward[i].path[0])
            ok = add_folder(sum, config->reward[i].path, "", progress, err);
    if (ok && config->evaluation.lpips)
        ok = add_folder(sum, config->evaluation.lpips, "", progress, err);
    for (int i = 0; ok && i < config->base_lora_count; i++) {
        char field[64];
        snprintf(field, sizeof field, "spec.base_loras[%d].path", i);
        ok = add_named(sum, config->base_lora[i].path, field, progress, err);
    }
    if (ok && config->continue_from && config->continue_from[0])
        ok = add_named(sum, config->continue_from, "spec.lora.continue_from", progress, err);
    draft_checksum_finish(sum, hex);
    return ok;
}

bool draft_inspect_files(const struct draft_job_config *config, const struct draft_watch *watch, char fingerprint[40],
                         struct draft_error *err)
{
    struct draft_job_config resolved = *config;
    struct draft_progress progress = {.watch = watch};
    return draft_job_config_resolve(&resolved, err) && draft_fingerprint(&resolved, &progress, fingerprint, err);
}

/* --- Settings ----------------------------------------------------------------------------------------------------- */

static void add_number(struct draft_checksum *sum, const char *name, double value)
{
    char text[96];
    snprintf(text, sizeof text, "%s=%a", name, value);
    add_text(sum, text);
}

static void add_string(struct draft_checksum *sum, const char *name, const char *value)
{
    add_text(sum, name);
    add_text(sum, value);
}

/* Not in it: length (a longer job may go on from a shorter one's checkpoint), evaluation, threads, paths (the weights'
 * fingerprint stands for them), recompute (the same numbers another way). */
bool draft_config_digest(const struct draft_engine *e, char hex[DRAFT_CHECKSUM_SIZE], struct draft_error *err)
{
    const struct draft_job_config *c = &e->config;
    struct draft_checksum *sum = draft_checksum_start();
    if (!sum)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for a checksum");
    add_string(sum, "weights", e->fingerprint);
    for (int i = 0; i < c->prompt_count; i++)
        add_string(sum, "prompt", c->prompts[i]);
    for (int i = 0; i < c->reward_count; i++) {
        add_string(sum, "reward", c->reward[i].kind);
        add_string(sum, "options", c->reward[i].options);
        add_number(sum, "weight", c->reward[i].weight);
    }
    for (int i = 0; i < c->base_lora_count; i++)
        add_number(sum, "base_lora", c->base_lora[i].weight);
    char seed[32];
    snprintf(seed, sizeof seed, "%" PRIu64, c->seed);
    add_string(sum, "seed", seed);
    add_string(sum, "negative_prompt", c->negative_prompt);
    add_number(sum, "kl_coeff", c->kl_coeff);
    if (strcmp(c->sampler, "ddim") != 0) /* which was the only one once */
        add_string(sum, "sampler", c->sampler);
    add_number(sum, "sampling_steps", c->sampling_steps);
    add_number(sum, "truncation_steps", c->truncation_steps);
    add_number(sum, "lv_copies", c->lv_copies);
    add_number(sum, "guidance", c->guidance);
    add_number(sum, "height", c->height);
    add_number(sum, "width", c->width);
    if (c->train == DRAFT_TRAIN_LORA) {
        add_number(sum, "lora_rank", c->lora_rank);
        add_number(sum, "lora_alpha", c->lora_alpha);
    } else {
        add_string(sum, "train", "full");
    }
    if (c->ema_decay > 0)
        add_number(sum, "ema_decay", c->ema_decay);
    if (c->precision == DRAFT_PRECISION_BF16) /* asked for: "auto" goes from device to device */
        add_string(sum, "precision", "bf16");
    add_number(sum, "learning_rate", c->learning_rate);
    add_number(sum, "beta1", c->beta1);
    add_number(sum, "beta2", c->beta2);
    add_number(sum, "epsilon", c->epsilon);
    add_number(sum, "weight_decay", c->weight_decay);
    add_number(sum, "warmup_steps", c->warmup_steps);
    add_number(sum, "max_grad_norm", c->max_grad_norm);
    add_number(sum, "micro_batch", c->micro_batch);
    add_number(sum, "global_batch", c->global_batch);
    draft_checksum_finish(sum, hex);
    return true;
}
