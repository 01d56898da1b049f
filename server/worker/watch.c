#include "worker/work.h"

#include <time.h>

enum { TELL_EVERY_MS = 100 };

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void tell_preview(struct draftd_work *work, int64_t done)
{
    Draftd__Worker__PreviewReport preview = DRAFTD__WORKER__PREVIEW_REPORT__INIT;
    preview.preview_id = (char *)(uintptr_t)work->preview_id;
    preview.step = work->step;
    preview.phase_done = work->preview_done + done;
    preview.phase_total = work->preview_total;
    Draftd__Worker__Report report = DRAFTD__WORKER__REPORT__INIT;
    report.kind_case = DRAFTD__WORKER__REPORT__KIND_PREVIEW;
    report.preview = &preview;
    draftd_line_send(work->line, &report);
}

static void tell_progress(struct draftd_work *work, enum draft_phase phase, int64_t done, int64_t total)
{
    Draftd__Worker__Progress progress = DRAFTD__WORKER__PROGRESS__INIT;
    progress.step = work->step;
    progress.phase = (char *)(uintptr_t)draft_phase_name(phase);
    progress.phase_done = done;
    progress.phase_total = total;
    Draftd__Worker__Report report = DRAFTD__WORKER__REPORT__INIT;
    report.kind_case = DRAFTD__WORKER__REPORT__KIND_PROGRESS;
    report.progress = &progress;
    draftd_line_send(work->line, &report);
}

static bool on_progress(void *context, enum draft_phase phase, int64_t done, int64_t total)
{
    struct draftd_work *work = context;
    int64_t now = now_ms();
    if (now - work->last_told_ms >= TELL_EVERY_MS) {
        work->last_told_ms = now;
        tell_progress(work, phase, done, total);
        if (phase == DRAFT_PHASE_PREVIEW && work->preview_id)
            tell_preview(work, done);
    }
    return draftd_line_stop(work->line) == DRAFTD_STOP_NO;
}

struct draft_watch draftd_work_watch(struct draftd_work *work)
{
    return (struct draft_watch){.progress = on_progress, .context = work};
}
