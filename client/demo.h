/* What `draft demo` and `draft demo --sweep` share: the place, the private daemon, the jobs. */
#ifndef DRAFT_CLIENT_DEMO_H
#define DRAFT_CLIENT_DEMO_H

#include "command.h"
#include "curves.h"
#include "demo_settings.h"
#include "jobs.h"
#include "live.h"
#include "private_daemon.h"

struct draft_demo {
    struct draft_context *cx;
    const struct draft_demo_settings *settings;
    char dir[2048];   /* absolute: everything goes there */
    char model[2048]; /* absolute: the folder with emoji-sd, emoji-clip, emoji-lpips */
    struct draft_private_daemon daemon;
    struct draft_rpc *rpc;
    struct draft_live *live; /* while a job is followed */
};

/* The absolute path of the demo model's folder: the one given, else the one installed or in the source tree. */
bool draft_demo_model(const char *given, char *path, size_t size, struct draft_status *st);

/* Finds the model, makes the folder, starts the daemon. Close in any case. */
bool draft_demo_open(struct draft_demo *demo, const char *dir, const char *model, struct draft_status *st);
void draft_demo_close(struct draft_demo *demo);

/* "<dir>/<name>", valid until the next call but three. */
const char *draft_demo_path(const struct draft_demo *demo, const char *name);

/* The job of this name that is worth keeping: unfinished or succeeded (`finished`), with the present settings; else a
 * new one is submitted. id gets it; *fresh tells. */
bool draft_demo_job(struct draft_demo *demo, const char *name, double kl_coeff, bool finished, char id[DRAFT_ID_BYTES],
                    bool *fresh, struct draft_status *st);

/* Makes sure a paused or failed leftover goes on. Then follows it live. `half` (may be NULL) is called once when half
 * of the steps are done, `tick` (may be NULL) at every event after that. Fails when the job does. */
bool draft_demo_follow(struct draft_demo *demo, const char *id, bool (*half)(void *, const draft_job *),
                       void (*event)(void *, const Draftd__V1__JobEvent *), void *context, struct draft_status *st);

/* draft_report(), but an interruption is told by cmd_demo.c. */
int draft_demo_report(const struct draft_demo *demo, const struct draft_status *st);

/* The protocol of the demo's numbers, for the figures' notes. */
void draft_demo_protocol(const struct draft_demo *demo, char *out, size_t size);

/* Rows: name, then reward, KL, LPIPS at the start and the end. */
struct draft_table *draft_demo_table(void);
void draft_demo_table_row(struct draft_table *table, const struct draft_run *run, double level);

/* The pictures of the base and of jobs on the demo's prompt, as a PNG. */
bool draft_demo_grid(struct draft_demo *demo, const char *const *ids, const double *kl_coeffs, int count,
                     const char *name, struct draft_status *st);

int draft_demo_run_single(struct draft_demo *demo);
int draft_demo_run_sweep(struct draft_demo *demo);

#endif
