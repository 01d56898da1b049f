#include "worker/open_job.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/spec.h"

enum { MAX_PROMPTS = 1000000, MAX_LINE = 64 * 1024 };

static char *parse_line(const char *line, size_t length)
{
    json_t *value = json_loadb(line, length, JSON_DECODE_ANY, NULL);
    char *prompt = json_is_string(value) ? strdup(json_string_value(value)) : NULL;
    json_decref(value);
    return prompt;
}

/* The daemon wrote this file, one JSON string a line; a line that is none means damage. */
static bool read_prompts(struct draftd_open_job *job, FILE *file, const char *path, struct draft_error *err)
{
    char *line = NULL;
    size_t room = 0;
    int capacity = 0;
    bool ok = true;
    for (ssize_t length; ok && (length = getline(&line, &room, file)) >= 0;) {
        if (job->prompt_count == capacity) {
            capacity = capacity ? 2 * capacity : 256;
            char **grown = realloc(job->prompts, (size_t)capacity * sizeof *grown);
            if (!grown) {
                ok = draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the prompts of %s", path);
                break;
            }
            job->prompts = grown;
        }
        char *prompt = length <= MAX_LINE && job->prompt_count < MAX_PROMPTS ? parse_line(line, (size_t)length) : NULL;
        if (prompt)
            job->prompts[job->prompt_count++] = prompt;
        else
            ok = draft_fail(err, DRAFT_DATA_LOSS, "%s: line %d is not a JSON string; the job's dataset is damaged",
                            path, job->prompt_count + 1);
    }
    if (ok && ferror(file))
        ok = draft_fail_errno(err, "reading %s failed", path);
    free(line);
    return ok;
}

bool draftd_open_prompts(struct draftd_open_job *job, const char *path, struct draft_error *err)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return draft_fail_errno(err, "the job's dataset %s cannot be opened", path);
    bool ok = read_prompts(job, file, path, err);
    fclose(file);
    return ok;
}

bool draftd_open_job(struct draftd_open_job *job, struct draftd_work *work, const Draftd__Worker__Train *task,
                     bool sample_only, struct draft_error *err)
{
    *job = (struct draftd_open_job){0};
    if (!task->spec)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the task has no spec");
    if (!draftd_open_prompts(job, task->dataset, err) ||
        !draftd_spec_to_config(task->spec, job->prompts, job->prompt_count, &job->config, err))
        return false;
    job->config.sample_only = sample_only;
    struct draft_watch watch = draftd_work_watch(work);
    job->engine = draft_engine_open(&job->config, &watch, err);
    if (!job->engine)
        return false;
    if (task->fingerprint[0] && strcmp(task->fingerprint, draft_engine_fingerprint(job->engine)) != 0)
        return draft_fail_field(err, DRAFT_FAILED_PRECONDITION, "fingerprint",
                                "weight or configuration files have changed since the job was submitted; put the old "
                                "ones back, or submit a new job");
    if (task->checkpoint[0] && !draft_engine_restore(job->engine, task->checkpoint, err))
        return false;
    work->step = draft_engine_step_count(job->engine);
    return true;
}

void draftd_open_job_close(struct draftd_open_job *job)
{
    draft_engine_close(job->engine);
    for (int i = 0; i < job->prompt_count; i++)
        free(job->prompts[i]);
    free(job->prompts);
    *job = (struct draftd_open_job){0};
}
