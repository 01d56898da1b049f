#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "jobs.h"
#include "json_message.h"
#include "text.h"

static void line(const struct draft_terminal *t, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void line(const struct draft_terminal *t, const char *name, const char *format, ...)
{
    va_list args;
    printf("%s%-26s%s ", draft_ink(t, DRAFT_DIM), name, draft_ink(t, DRAFT_PLAIN));
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

static void show_progress(const struct draft_terminal *t, const draft_job *job)
{
    const Draftd__V1__Progress *p = job->progress;
    char a[32], b[32], c[32];
    if (!p || p->total_steps <= 0)
        return;
    line(t, "progress", "%lld of %lld steps (%.0f%%)", (long long)p->step, (long long)p->total_steps,
         100.0 * (double)p->step / (double)p->total_steps);
    if (*p->phase && !draft_state_ended(job->state))
        line(t, "phase", p->phase_total > 0 ? "%s, %lld of %lld" : "%s", p->phase, (long long)p->phase_done,
             (long long)p->phase_total);
    if (p->seconds_per_step > 0)
        line(t, "speed", draft_state_ended(job->state) ? "%s a step" : "%s a step, %s left",
             draft_format_duration(p->seconds_per_step, a, sizeof a),
             draft_format_duration(p->eta_seconds, b, sizeof b));
    if (p->step > 0)
        line(t, "latest", "reward %s, KL %s, LPIPS %s", draft_format_number(p->reward, a, sizeof a),
             draft_format_number(p->kl, b, sizeof b), draft_format_number(p->lpips, c, sizeof c));
}

static void show_times(const struct draft_terminal *t, const draft_job *job)
{
    char at[32], ago[48], took[32];
    int64_t now = draft_now_us();
    line(t, "submitted", "%s (%s)", draft_format_time(job->create_time_us, at, sizeof at),
         draft_format_ago(job->create_time_us, now, ago, sizeof ago));
    if (job->start_time_us > 0)
        line(t, "started", "%s (%s)", draft_format_time(job->start_time_us, at, sizeof at),
             draft_format_ago(job->start_time_us, now, ago, sizeof ago));
    if (job->end_time_us > 0)
        line(t, "ended", "%s, after %s", draft_format_time(job->end_time_us, at, sizeof at),
             draft_format_duration(job->start_time_us > 0 ? (double)(job->end_time_us - job->start_time_us) / 1e6 : 0,
                                   took, sizeof took));
}

/* One of several as its flag takes it: "0.5*jpeg,quality=50", "0.6*style.safetensors"; what has no such form, as JSON.
 */
static void show_item(const struct draft_terminal *t, const char *name, const json_t *item)
{
    const char *kind = json_string_value(json_object_get(item, "kind")),
               *path = json_string_value(json_object_get(item, "path")),
               *options = json_string_value(json_object_get(item, "options"));
    const json_t *weight = json_object_get(item, "weight");
    char factor[32] = "";
    if (json_is_string(item)) {
        line(t, name, "%s", json_string_value(item));
    } else if (kind || path) {
        if (weight)
            snprintf(factor, sizeof factor, "%g*", json_number_value(weight));
        line(t, name, "%s%s%s%s%s%s", factor, kind ? kind : "", kind && path && *path ? ":" : "", path ? path : "",
             options && *options ? "," : "", options ? options : "");
    } else {
        char *text = json_dumps(item, JSON_ENCODE_ANY | JSON_COMPACT);
        line(t, name, "%s", text ? text : "");
        free(text);
    }
}

/* The fields of the spec that were given, as the job file names them: "sampling.steps 10". */
static void show_fields(const struct draft_terminal *t, const json_t *object, const char *prefix)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
        char name[128];
        snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "", key);
        if (json_is_object(value)) {
            show_fields(t, value, name);
        } else if (json_is_array(value)) {
            for (size_t i = 0; i < json_array_size(value); i++)
                show_item(t, name, json_array_get(value, i));
        } else if (json_is_string(value) ? json_string_length(value) > 0 : !json_is_false(value)) {
            char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
            bool zero = json_is_number(value) && json_number_value(value) == 0 && strcmp(key, "kl_coeff") != 0;
            if (!zero)
                line(t, name, "%s", json_is_string(value) ? json_string_value(value) : text ? text : "");
            free(text);
        }
    }
}

static void show(const struct draft_terminal *t, const draft_job *job)
{
    char memory[32];
    printf("%s%s%s  %s  %s%s%s\n", draft_ink(t, DRAFT_BOLD), job->id, draft_ink(t, DRAFT_PLAIN), draft_job_title(job),
           draft_ink(t, draft_state_colour(job->state)), draft_state_name(job->state), draft_ink(t, DRAFT_PLAIN));
    if (*job->reason)
        line(t, "reason", "%s%s%s%s", job->reason, *job->reason_code ? " (" : "", job->reason_code,
             *job->reason_code ? ")" : "");
    if (job->queue_position > 0)
        line(t, "queue", "place %lld", (long long)job->queue_position);
    if (job->attempt > 1)
        line(t, "attempt", "%d", job->attempt);
    for (size_t i = 0; i < job->n_warnings; i++)
        line(t, "warning", "%s", job->warnings[i]);
    if (*job->device)
        line(t, "device", "%s", job->device);
    show_progress(t, job);
    show_times(t, job);
    line(t, "prompts", "%d", job->prompt_count);
    if (job->picture_height > 0)
        line(t, "pictures", "%dx%d pixels", job->picture_height, job->picture_width);
    if (job->trained_parameters > 0)
        line(t, "trained", "%llu parameters", (unsigned long long)job->trained_parameters);
    if (job->memory_bytes > 0)
        line(t, "memory", "about %s", draft_format_bytes(job->memory_bytes, memory, sizeof memory));
    if (job->gpu_memory_bytes > 0)
        line(t, "GPU memory", "about %s", draft_format_bytes(job->gpu_memory_bytes, memory, sizeof memory));
    if (*job->fingerprint)
        line(t, "weights", "%s", job->fingerprint);
    if (job->spec) {
        printf("%sas submitted:%s\n", draft_ink(t, DRAFT_BOLD), draft_ink(t, DRAFT_PLAIN));
        json_t *spec = draft_message_to_json(&job->spec->base);
        show_fields(t, spec, "");
        json_decref(spec);
    }
}

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    for (int i = 0; i < arguments->operand_count; i++) {
        char id[DRAFT_ID_BYTES];
        struct draft_status st = {0};
        draft_job *job = draft_get_job(draft_connect(cx), draft_job_id(arguments->operands[i], id), &st);
        if (!job)
            return draft_report(cx, &st);
        if (cx->json)
            draft_message_print(&job->base, false, stdout);
        else
            show(&cx->out, job);
        draft_free_message(job);
    }
    return DRAFT_EXIT_OK;
}

const struct draft_command draft_command_show = {
    .name = "show",
    .group = DRAFT_GROUP_JOBS,
    .summary = "all there is to know of a job",
    .words = "info describe get inspect",
    .usage = "JOB...",
    .about =
        "State, reason, progress, times, sizes, and the job as it was submitted; fields left at their default are not "
        "shown. --json gives the whole message, which `draft submit --config` takes again.",
    .examples = "  draft show job-3\n"
                "  draft show 3 --json | jq .spec\n",
    .least = 1,
    .most = -1,
    .json = true,
    .run = run,
};
