#include "train/progress.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static const double LOOK_EVERY_SECONDS = 0.02; /* a look costs some microseconds, a beat of a small model is as short */

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

/* /proc/self/statm: size resident shared ... in pages, where shared counts files and shared memory. */
uint64_t draft_anonymous_memory(void)
{
    char text[128] = "";
    uint64_t resident, shared;
    int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t n = file >= 0 ? read(file, text, sizeof text - 1) : 0;
    if (file >= 0)
        close(file);
    if (n <= 0 || sscanf(text, "%*u %" SCNu64 " %" SCNu64, &resident, &shared) != 2 || resident < shared)
        return 0;
    return (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t draft_progress_peak_memory(struct draft_progress *progress)
{
    uint64_t held = draft_anonymous_memory();
    if (held > progress->peak_anonymous)
        progress->peak_anonymous = held;
    progress->looked = draft_clock_seconds();
    return progress->peak_anonymous;
}

bool draft_progress_keep_going(void *context)
{
    struct draft_progress *progress = context;
    if (progress && draft_clock_seconds() - progress->looked >= LOOK_EVERY_SECONDS)
        draft_progress_peak_memory(progress);
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
