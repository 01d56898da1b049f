/*
 * A worker process's one task, from the daemon's first frame to the last report.
 *
 * Every task function returns false with err set, or true; *stopped says that a Stop ended it before its end. The
 * Finished frame is main's to send. Thread: the engine's.
 */
#ifndef DRAFTD_WORKER_WORK_H
#define DRAFTD_WORKER_WORK_H

#include "engine.h"
#include "worker/line.h"

struct draftd_work {
    struct draftd_line *line;
    int64_t step;         /* of the job, for progress */
    int64_t last_told_ms; /* when progress was last sent */
    /* The preview in hand, whose own progress is sent instead; NULL: none. */
    const char *preview_id;
    int64_t preview_done, preview_total; /* denoising steps over all its pictures; done: of the pictures before */
};

/* What the engine calls at every denoising step: tells the daemon, a few times a second, and says whether to go on. */
struct draft_watch draftd_work_watch(struct draftd_work *work);

bool draftd_work_inspect(struct draftd_work *work, const Draftd__Worker__Inspect *task, struct draft_error *err);
bool draftd_work_train(struct draftd_work *work, const Draftd__Worker__Train *task, bool *stopped,
                       struct draft_error *err);
bool draftd_work_sample(struct draftd_work *work, const Draftd__Worker__Sample *task, bool *stopped,
                        struct draft_error *err);
bool draftd_work_probe(struct draftd_work *work, const Draftd__Worker__Probe *task, struct draft_error *err);
bool draftd_work_export(const Draftd__Worker__Export *task, struct draft_error *err);
/* Not a task of draftd's: a whole program, and its exit status. */
int draftd_profile(void);

#endif
