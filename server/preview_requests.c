/* PreviewService: asking for pictures, reading what is there. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints.h"
#include "dataset.h"
#include "folders.h"
#include "job.h"
#include "log.h"
#include "message.h"
#include "previews.h"
#include "requests.h"
#include "spec.h"

static bool refuse(struct draft_error *err, const char *field, const char *sentence)
{
    return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field, "%s", sentence);
}

/* "", "draft", "base", "linear", "power_2", "step_0.6": reference names of annealed importance guidance. */
static bool is_aig(const char *text)
{
    static const char *const whole[] = {"", "draft", "base", "linear"};
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++)
        if (strcmp(text, whole[i]) == 0)
            return true;
    size_t skip = strncmp(text, "power_", 6) == 0 ? 6 : strncmp(text, "step_", 5) == 0 ? 5 : 0;
    if (skip == 0 || text[skip] < '0' || text[skip] > '9' || strlen(text) > 24)
        return false;
    char *end;
    double value = strtod(text + skip, &end);
    return *end == '\0' && isfinite(value) && value >= 0 && value <= (skip == 5 ? 1 : 100);
}

static bool check(const Draftd__V1__PreviewSpec *spec, struct draft_error *err)
{
    for (size_t i = 0; i < spec->n_prompts; i++) {
        if (!draftd_prompt_check(spec->prompts[i], strlen(spec->prompts[i]), err)) {
            snprintf(err->field, sizeof err->field, "spec.prompts[%zu]", i);
            return false;
        }
    }
    if (*spec->negative_prompt && !draftd_prompt_check(spec->negative_prompt, strlen(spec->negative_prompt), err)) {
        snprintf(err->field, sizeof err->field, "spec.negative_prompt");
        return false;
    }
    if (spec->n_prompts > DRAFTD_PREVIEW_PICTURES || spec->count < 0 || spec->count > DRAFTD_PREVIEW_PICTURES)
        return refuse(err, "spec.count", "at most 256 pictures a preview, and not fewer than none; ask for fewer");
    if (spec->steps < 0 || spec->steps > 1000)
        return refuse(err, "spec.steps", "denoising steps must lie between 1 and 1000, or be 0 for the job's");
    if (spec->guidance_opt_case == DRAFTD__V1__PREVIEW_SPEC__GUIDANCE_OPT_GUIDANCE &&
        !(spec->guidance >= 0 && spec->guidance <= 100))
        return refuse(err, "spec.guidance", "guidance must lie between 0 and 100");
    if (spec->lora_scale_opt_case == DRAFTD__V1__PREVIEW_SPEC__LORA_SCALE_OPT_LORA_SCALE &&
        !(spec->lora_scale >= -10 && spec->lora_scale <= 10))
        return refuse(err, "spec.lora_scale", "the LoRA's scale must lie between -10 and 10; 1 is as trained");
    if (spec->height < 0 || spec->height > 4096 || spec->height % 8)
        return refuse(err, "spec.height", "the height must be a multiple of 8 up to 4096, or 0 for the job's");
    if (spec->width < 0 || spec->width > 4096 || spec->width % 8)
        return refuse(err, "spec.width", "the width must be a multiple of 8 up to 4096, or 0 for the job's");
    if (!draftd_sampler_check(spec->sampler, "spec.sampler", err))
        return false;
    if (!is_aig(spec->aig))
        return refuse(err, "spec.aig",
                      "must be \"draft\", \"base\", \"linear\", \"power_<number>\" or \"step_<0 to 1>\"");
    if (spec->checkpoint_step_opt_case == DRAFTD__V1__PREVIEW_SPEC__CHECKPOINT_STEP_OPT_CHECKPOINT_STEP &&
        spec->checkpoint_step < 0)
        return refuse(err, "spec.checkpoint_step", "a step is never negative");
    return true;
}

/* The reply repeats a picture's prompt beside each picture, and must fit into a message. */
static bool check_total(const Draftd__V1__PreviewSpec *spec, struct draft_error *err)
{
    size_t count = spec->count ? (size_t)spec->count : 1, bytes = 0;
    if (spec->n_prompts * count > DRAFTD_PREVIEW_PICTURES)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.count",
                                "%zu prompts times %zu pictures are more than %d; ask for fewer", spec->n_prompts,
                                count, DRAFTD_PREVIEW_PICTURES);
    for (size_t i = 0; i < spec->n_prompts; i++)
        bytes += strlen(spec->prompts[i]) * (count + 1);
    return bytes <= DRAFTD_REPLY_BYTES / 2 ||
           draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.prompts",
                            "so many long prompts do not fit into one reply; ask for several previews");
}

/* What only a LoRA or a job with an average can show; told now, not by the worker later. */
static bool fits_job(const Draftd__V1__JobSpec *job, const Draftd__V1__PreviewSpec *spec, struct draft_error *err)
{
    bool scaled = spec->lora_scale_opt_case == DRAFTD__V1__PREVIEW_SPEC__LORA_SCALE_OPT_LORA_SCALE;
    if (spec->ema && job->ema_decay == 0)
        return refuse(err, "spec.ema", "the job keeps no average of its weights; submit it with ema_decay to have one");
    return strcmp(job->train, "full") != 0 || !scaled || spec->lora_scale == 0 || spec->lora_scale == 1 ||
           refuse(
               err, "spec.lora_scale",
               "the job trains the UNet's own weights and has no LoRA to scale; use 1 (tuned), 0 (base), or annealing "
               "(aig) between them");
}

/* No prompts asked for: the job's evaluation prompts, by default the first 8 different ones of its dataset. */
static bool fill_prompts(struct draftd *d, const Draftd__V1__Job *job, Draftd__V1__PreviewSpec *spec,
                         struct draft_error *err)
{
    if (spec->n_prompts > 0)
        return true;
    const Draftd__V1__Evaluation *evaluation = job->spec->evaluation;
    struct draftd_dataset first = {0};
    if (evaluation && evaluation->n_prompts > 0) {
        for (size_t i = 0; i < evaluation->n_prompts; i++)
            draftd_message_append(&spec->prompts, &spec->n_prompts, draftd_strdup(evaluation->prompts[i]));
        return true;
    }
    char *folder = draftd_job_folder(d->state_dir, draftd_parse_id("job", job->id));
    char *path = draftd_format("%s/dataset.jsonl", folder);
    bool ok = draftd_dataset_first(path, 8, &first, err);
    for (size_t i = 0; ok && i < first.count; i++)
        draftd_message_append(&spec->prompts, &spec->n_prompts, draftd_strdup(first.prompts[i]));
    draftd_dataset_free(&first);
    free(path);
    free(folder);
    return ok;
}

static bool keep(struct draftd *d, Draftd__V1__Preview *preview, int64_t job, const char *request_id, const char *hash,
                 int64_t *number, struct draft_error *err)
{
    if (!draftd_begin(d, DRAFTD_DURABLE, err))
        return false;
    if (!draftd_store_add_preview(d->store, preview, job, number, err) ||
        (*request_id && !draftd_store_add_request(d->store, request_id, hash, 0, *number, err)) ||
        !draftd_event(d, DRAFTD__V1__JOB_EVENT__KIND__KIND_PREVIEW, job, 0, *number, DRAFTD_PREVIEW_WAITS, err)) {
        draftd_rollback(d);
        return false;
    }
    return draftd_commit(d, err);
}

static bool make(struct draftd *d, int64_t job, Draftd__V1__PreviewSpec *spec, const char *request_id, const char *hash,
                 Draftd__V1__Preview **reply, struct draft_error *err)
{
    int64_t number = 0, pending = 0;
    if (!draftd_find_request(d, request_id, hash, false, &number, err))
        return false;
    if (number == 0) {
        for (const struct draftd_live_preview *other = d->previews; other; other = other->next)
            pending++;
        if (pending >= DRAFTD_PREVIEWS_PENDING)
            return draft_fail(err, DRAFT_RESOURCE_EXHAUSTED,
                              "%lld previews are waiting already; ask again when some are done", (long long)pending);
        struct draftd_checkpoint checkpoint = {0};
        if (spec->checkpoint_step_opt_case == DRAFTD__V1__PREVIEW_SPEC__CHECKPOINT_STEP_OPT_CHECKPOINT_STEP &&
            spec->checkpoint_step > 0 &&
            !draftd_checkpoint_choose(d, job, spec->checkpoint_step, false, &checkpoint, err)) {
            snprintf(err->field, sizeof err->field, "spec.checkpoint_step");
            return false;
        }
        free(checkpoint.path);
        Draftd__V1__Preview preview = DRAFTD__V1__PREVIEW__INIT;
        preview.spec = spec;
        preview.state = DRAFTD__V1__PREVIEW__STATE__STATE_PENDING;
        preview.create_time_us = draftd_now_us();
        preview.total = (int32_t)spec->n_prompts * (spec->count ? spec->count : 1);
        if (!keep(d, &preview, job, request_id, hash, &number, err))
            return false;
        draftd_preview_add(d, number, job, preview.total, spec);
        draftd_kick(d);
    }
    *reply = draftd_store_preview(d->store, number, err);
    return *reply != NULL;
}

bool draftd_create_preview(struct draftd *d, const Draftd__V1__CreatePreviewRequest *request,
                           Draftd__V1__Preview **preview, struct draft_error *err)
{
    static const Draftd__V1__PreviewSpec nothing = DRAFTD__V1__PREVIEW_SPEC__INIT;
    struct draft_error failure = {0};
    int64_t number;
    char hash[DRAFTD_HASH_SIZE];
    const Draftd__V1__PreviewSpec *asked = request->spec ? request->spec : &nothing;
    bool ok = draftd_job_number(request->job_id, &number, &failure) &&
              draftd_check_request_id(request->request_id, &failure) && check(asked, &failure);
    *preview = NULL;
    if (ok) {
        draftd_hash_request(request->job_id, &asked->base, hash);
        Draftd__V1__PreviewSpec *spec = draftd_message_copy(asked);
        pthread_mutex_lock(&d->lock);
        Draftd__V1__Job *job = draftd_accepts_work(d, &failure) ? draftd_store_job(d->store, number, &failure) : NULL;
        pthread_mutex_unlock(&d->lock);
        ok = job && fits_job(job->spec, spec, &failure) && fill_prompts(d, job, spec, &failure) &&
             check_total(spec, &failure);
        if (ok) {
            pthread_mutex_lock(&d->lock);
            ok = make(d, number, spec, request->request_id, hash, preview, &failure);
            pthread_mutex_unlock(&d->lock);
        }
        draftd_message_free(job);
        draftd_message_free(spec);
    }
    if (!ok && err && err->code == DRAFT_OK)
        *err = failure;
    return ok;
}

static bool preview_number(const char *preview_id, int64_t *number, struct draft_error *err)
{
    char shown[64];
    draftd_clean_text(shown, sizeof shown, preview_id);
    *number = draftd_parse_id("preview", preview_id);
    return *number || draft_fail_field(err, DRAFT_NOT_FOUND, "preview_id",
                                       "there is no preview \"%s\"; ids look like preview-7", shown);
}

bool draftd_get_preview(struct draftd *d, const char *preview_id, Draftd__V1__Preview **preview,
                        struct draft_error *err)
{
    int64_t number;
    if (!preview_number(preview_id, &number, err))
        return false;
    pthread_mutex_lock(&d->lock);
    *preview = draftd_store_preview(d->store, number, err);
    pthread_mutex_unlock(&d->lock);
    return *preview != NULL;
}

bool draftd_list_previews(struct draftd *d, const Draftd__V1__ListPreviewsRequest *request,
                          Draftd__V1__ListPreviewsResponse **reply, struct draft_error *err)
{
    int64_t job, before;
    int size;
    if (!draftd_job_number(request->job_id, &job, err) ||
        !draftd_page(request->page_size, request->page_token, (uint64_t)job, &size, &before, err))
        return false;
    Draftd__V1__ListPreviewsResponse *list = draftd_message_new(&draftd__v1__list_previews_response__descriptor);
    pthread_mutex_lock(&d->lock);
    Draftd__V1__Job *row = draftd_store_job(d->store, job, err);
    bool ok = row && draftd_store_previews(d->store, job, before, size + 1, &list->previews, &list->n_previews, err);
    pthread_mutex_unlock(&d->lock);
    draftd_message_free(row);
    size_t fit = ok ? draftd_page_fit(list->previews, list->n_previews, size) : 0;
    if (ok && fit < list->n_previews) {
        list->next_page_token =
            draftd_page_token(draftd_parse_id("preview", list->previews[fit - 1]->id), (uint64_t)job);
        while (list->n_previews > fit)
            draftd_message_free(list->previews[--list->n_previews]);
    }
    if (ok)
        *reply = list;
    else
        draftd_message_free(list);
    return ok;
}

bool draftd_picture_path(struct draftd *d, const char *preview_id, int index, char **path, struct draft_error *err)
{
    Draftd__V1__Preview *preview;
    if (!draftd_get_preview(d, preview_id, &preview, err))
        return false;
    bool there = false;
    for (size_t i = 0; i < preview->n_pictures; i++)
        there |= preview->pictures[i]->index == index;
    if (there)
        *path = draftd_picture_file(d->state_dir, draftd_parse_id("job", preview->job_id),
                                    draftd_parse_id("preview", preview->id), index);
    else
        draft_fail_field(err, DRAFT_NOT_FOUND, "index", "%s has no picture %d%s", preview->id, index,
                         index >= 0 && index < preview->total ? " yet" : "");
    draftd_message_free(preview);
    return there;
}
