/*
 * What several commands say and do about jobs: names of states, exit codes, following one job to its end through broken
 * connections.
 */
#ifndef DRAFT_CLIENT_JOBS_H
#define DRAFT_CLIENT_JOBS_H

#include "rpc/rpc.h"
#include "terminal.h"

typedef Draftd__V1__Job draft_job;
typedef Draftd__V1__Job__State draft_job_state;

const char *draft_state_name(draft_job_state state); /* "queued" ... */
enum draft_colour draft_state_colour(draft_job_state state);
bool draft_state_ended(draft_job_state state); /* succeeded, failed, cancelled */
enum draft_exit draft_state_exit(draft_job_state state);

/* "12" and "job-12" both mean job-12. */
enum { DRAFT_ID_BYTES = 80 };
const char *draft_job_id(const char *operand, char id[DRAFT_ID_BYTES]);

/* display_name, or the model's folder name. Points into the job. */
const char *draft_job_title(const draft_job *job);
/* "0.25", "vanilla" for 0: the curve's label in a sweep is the KL weight. */
double draft_job_kl_coeff(const draft_job *job);

/* CreateJob; on a terminal `messages` says meanwhile what is waited for. On the heap; NULL: st says why. */
Draftd__V1__CreateJobResponse *draft_create_job(struct draft_rpc *rpc, const Draftd__V1__CreateJobRequest *request,
                                                const struct draft_terminal *messages, struct draft_status *st);
draft_job *draft_get_job(struct draft_rpc *rpc, const char *id, struct draft_status *st); /* on the heap */

/* Callbacks of draft_follow_job; NULL ones are skipped. */
struct draft_follow {
    void *context;
    /* The job as it is now, and the event that said so (NULL: the snapshot). False stops following. */
    bool (*update)(void *context, const draft_job *job, const Draftd__V1__JobEvent *event);
    bool (*raw)(void *context, const Draftd__V1__WatchJobsResponse *message); /* every message, before update */
    void (*tick)(void *context);                                              /* about four times a second */
    void (*connection)(void *context, bool lost);                             /* the connection broke, or is back */
    int patience_seconds; /* how long a daemon may be gone before it is given up; 0: 120 */
};

/* Follows the job until it has ended, update said stop (both: the job, on the heap), or NULL with st set. The stream is
 * taken up at the last revision when the connection breaks, so no event is missed or seen twice. */
draft_job *draft_follow_job(struct draft_rpc *rpc, const char *id, const struct draft_follow *follow,
                            struct draft_status *st);

#endif
