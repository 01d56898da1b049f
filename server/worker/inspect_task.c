#include <string.h>

#include "backend/open.h"
#include "worker/open_job.h"
#include "worker/spec.h"
#include "worker/work.h"

enum { MAX_WARNINGS = 16 };

/* Sentences, one a line, as separate strings; `text` is cut up. */
static size_t split(char *text, char *line[MAX_WARNINGS])
{
    size_t n = 0;
    char *rest = NULL;
    for (char *s = strtok_r(text, "\n", &rest); s && n < MAX_WARNINGS; s = strtok_r(NULL, "\n", &rest))
        line[n++] = s;
    return n;
}

/* A GPU is planned for by its size alone: a running job may have it, and a sick one must not end a submit. A job that
 * any device may have and that no GPU can hold is one for the CPU. */
static bool inspect_for_device(struct draft_job_config *config, uint64_t gpu_memory, const struct draft_watch *watch,
                               struct draft_inspection *found, struct draft_error *err)
{
    struct draft_device_choice device;
    struct draft_error unfit = {0};
    if (!draft_device_parse(config->device, &device, err))
        return false;
    if (!device.cpu && gpu_memory > 0) {
        config->gpu_memory = gpu_memory;
        if (draft_inspect(config, watch, found, device.automatic ? &unfit : err))
            return true;
        if (!device.automatic || unfit.code != DRAFT_OUT_OF_MEMORY) {
            if (device.automatic && err)
                *err = unfit;
            return false;
        }
    }
    config->gpu_memory = 0;
    config->device = device.automatic ? "cpu" : config->device;
    return draft_inspect(config, watch, found, err);
}

/* The prompts come in the frame, or in the copy when they are too many for one. */
static bool inspect(struct draftd_work *work, const Draftd__Worker__Inspect *task, struct draft_inspection *found,
                    struct draft_error *err)
{
    struct draft_job_config config;
    struct draft_watch watch = draftd_work_watch(work);
    struct draftd_open_job copy = {.prompts = NULL};
    bool in_file = task->n_prompts == 0 && task->dataset[0];
    bool ok = (!in_file || draftd_open_prompts(&copy, task->dataset, err)) &&
              draftd_spec_to_config(task->spec, in_file ? copy.prompts : task->prompts,
                                    in_file ? copy.prompt_count : (int)task->n_prompts, &config, err);
    if (ok)
        ok = task->files_only ? draft_inspect_files(&config, &watch, found->fingerprint, err)
                              : inspect_for_device(&config, task->gpu_memory_bytes, &watch, found, err);
    draftd_open_job_close(&copy);
    return ok;
}

bool draftd_work_inspect(struct draftd_work *work, const Draftd__Worker__Inspect *task, struct draft_error *err)
{
    if (!task->spec)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the task has no spec");
    struct draft_inspection found = {0};
    if (!inspect(work, task, &found, err))
        return false;

    char *warning[MAX_WARNINGS];
    Draftd__Worker__Inspected inspected = DRAFTD__WORKER__INSPECTED__INIT;
    inspected.fingerprint = found.fingerprint;
    inspected.total_steps = found.total_steps;
    inspected.trained_parameters = found.trained_parameters;
    inspected.base_parameters = found.base_parameters;
    inspected.memory_bytes = found.memory_bytes;
    inspected.gpu_memory_bytes = found.gpu_memory_bytes;
    inspected.height = found.height;
    inspected.width = found.width;
    inspected.n_warnings = split(found.warnings, warning);
    inspected.warnings = warning;
    Draftd__Worker__Report report = DRAFTD__WORKER__REPORT__INIT;
    report.kind_case = DRAFTD__WORKER__REPORT__KIND_INSPECTED;
    report.inspected = &inspected;
    draftd_line_send(work->line, &report);
    return true;
}
