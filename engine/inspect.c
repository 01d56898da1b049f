/* What a submit wants to know before a job is kept: does everything open, how big is it, what is odd about it. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "memory_plan.h"

static void warn(struct draft_inspection *inspection, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void warn(struct draft_inspection *inspection, const char *format, ...)
{
    size_t used = strlen(inspection->warnings);
    va_list args;
    va_start(args, format);
    if (used > 0 && used + 1 < sizeof inspection->warnings)
        inspection->warnings[used++] = '\n';
    vsnprintf(inspection->warnings + used, sizeof inspection->warnings - used, format, args);
    va_end(args);
}

/* Prompts longer than the context; the first one is named. */
static bool look_at_prompts(const struct draft_engine *e, struct draft_inspection *inspection, struct draft_error *err)
{
    const struct draft_job_config *c = &e->config;
    int first = -1;
    for (int i = 0; i < c->prompt_count; i++) {
        int length;
        if (!draft_prompt_length(&e->pipeline, c->prompts[i], &length, err)) {
            draft_error_prefix(err, "prompt %d: ", i + 1);
            return false;
        }
        if (length > e->pipeline.context_tokens) {
            inspection->truncated_prompts++;
            first = first < 0 ? i : first;
        }
    }
    if (first >= 0)
        warn(inspection,
             "%d of %d prompts are longer than the model's %d tokens and will be cut; the first is prompt %d",
             inspection->truncated_prompts, c->prompt_count, e->pipeline.context_tokens, first + 1);
    return true;
}

/* What training every weight takes beside the model's own memory. */
static void look_at_size(const struct draft_engine *e, struct draft_inspection *inspection)
{
    const double gib = 1 << 30;
    double one = (double)draft_trained_numbers(&e->trained) * sizeof(float);
    if (!e->adapter)
        warn(inspection,
             "every weight of the UNet is trained (%.0f million): %.1f GiB for them, their gradients and both "
             "moments%s%s; a checkpoint takes %.1f GiB",
             one / sizeof(float) / 1e6, one * (4 + (e->ema != NULL)) / gib, e->ema ? " and average" : "",
             e->pipeline.base ? ", and the frozen UNet for the KL beside them" : "",
             one * (3 + (e->ema != NULL)) / gib);
}

bool draft_inspect(const struct draft_job_config *config, const struct draft_watch *watch,
                   struct draft_inspection *inspection, struct draft_error *err)
{
    *inspection = (struct draft_inspection){0};
    struct draft_engine *e = draft_engine_open(config, watch, err);
    if (!e)
        return false;
    snprintf(inspection->fingerprint, sizeof inspection->fingerprint, "%s", e->fingerprint);
    inspection->total_steps = draft_engine_total_steps(e);
    inspection->trained_parameters = (uint64_t)draft_trained_numbers(&e->trained);
    inspection->base_parameters = e->base_parameters;
    inspection->height = e->config.height;
    inspection->width = e->config.width;
    *(draft_backend_on_host(e->backend) ? &inspection->memory_bytes : &inspection->gpu_memory_bytes) = e->memory_bytes;
    bool ok = look_at_prompts(e, inspection, err) && draft_memory_check(e, err);
    look_at_size(e, inspection);
    if (e->fast_bytes)
        warn(inspection, "memory is \"low\": fast would need %.1f GiB or more, which is %s",
             (double)e->fast_bytes / (1 << 30),
             draft_backend_on_host(e->backend) ? "over 70 % of what this machine has" : "more than the GPU has");
    if (ok && e->config.global_batch > e->config.prompt_count && e->config.prompt_count > 1)
        warn(inspection, "a step of %d samples runs through the %d prompts more than once", e->config.global_batch,
             e->config.prompt_count);
    draft_engine_close(e);
    return ok;
}
