#include "train/progress.h"

#include <time.h>

const char *draft_phase_name(enum draft_phase phase)
{
    static const char *const name[] = {
        [DRAFT_PHASE_LOADING] = "loading",       [DRAFT_PHASE_SAMPLING] = "sampling",
        [DRAFT_PHASE_BACKWARD] = "backward",     [DRAFT_PHASE_OPTIMIZER] = "optimizer",
        [DRAFT_PHASE_EVALUATING] = "evaluating", [DRAFT_PHASE_PREVIEW] = "preview",
        [DRAFT_PHASE_SAVING] = "saving",
    };
    return phase >= DRAFT_PHASE_LOADING && phase <= DRAFT_PHASE_SAVING ? name[phase] : "idle";
}

bool draft_progress_keep_going(void *context)
{
    const struct draft_progress *progress = context;
    if (!progress || !progress->watch || !progress->watch->progress)
        return true;
    return progress->watch->progress(progress->watch->context, progress->phase, progress->done, progress->total);
}

bool draft_progress_set(struct draft_progress *progress, enum draft_phase phase, int64_t done, int64_t total)
{
    if (!progress)
        return true;
    progress->phase = phase;
    progress->done = done;
    progress->total = total;
    return draft_progress_keep_going(progress);
}

bool draft_progress_advance(struct draft_progress *progress)
{
    if (!progress)
        return true;
    progress->done++;
    return draft_progress_keep_going(progress);
}

double draft_clock_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
