/*
 * The life of a job. Only draftd_move() changes a state; the table behind it says which moves there are.
 */
#ifndef DRAFTD_JOB_H
#define DRAFTD_JOB_H

#include "state.h"

struct draftd_move {
    Draftd__V1__Job__State to;
    const char *reason, *reason_code;          /* NULL: "" */
    bool requeue;                              /* to the end of the queue, not to its old place */
    bool crashed;                              /* counts as a crash of its worker */
    bool forgive;                              /* forgets the crashes counted so far: a user said resume */
    const struct draftd_store_process *begins; /* a new attempt, run by this process */
    bool ends;                                 /* the attempt in hand ends here */
};

/* State and event in one durable transaction; then log, memory, watchers. `job` is freed when the new state has no
 * place in memory (paused or over). */
bool draftd_move(struct draftd *d, struct draftd_live_job *job, const struct draftd_move *move,
                 struct draft_error *err);
/* The same from the daemon's thread, where nobody can be told: when the disk is full the move is kept and tried again.
 */
void draftd_move_for_sure(struct draftd *d, struct draftd_live_job *job, const struct draftd_move *move);
void draftd_retry_moves(struct draftd *d);

/* The move without its transaction, for callers that have more to write in it: they begin, call this, commit, and then
 * call draftd_moved() (after a rollback: nothing). */
bool draftd_move_write(struct draftd *d, struct draftd_live_job *job, const struct draftd_move *move,
                       struct draft_error *err);
void draftd_moved(struct draftd *d, struct draftd_live_job *job, const struct draftd_move *move);

struct draftd_live_job *draftd_live_job(struct draftd *d, int64_t number); /* NULL: paused, over or unknown */
/* Takes a job of the database into memory, in its place in the queue. */
struct draftd_live_job *draftd_job_wake(struct draftd *d, const Draftd__V1__Job *job, int64_t rank, int crashes);
void draftd_job_forget(struct draftd *d, struct draftd_live_job *job);

/* The job as clients see it: the database's row with what memory knows better. */
Draftd__V1__Job *draftd_job_message(struct draftd *d, int64_t number, struct draft_error *err);
void draftd_job_overlay(struct draftd *d, Draftd__V1__Job *job);
/* seconds_per_step: the median of the last steps; eta_seconds: what that says about the rest. */
void draftd_job_estimate(const struct draftd_live_job *job, Draftd__V1__Progress *progress);

bool draftd_state_is_end(Draftd__V1__Job__State state);
const char *draftd_state_name(Draftd__V1__Job__State state); /* "running" */

/* "job-12" -> 12 or an error that names the field. */
bool draftd_job_number(const char *job_id, int64_t *number, struct draft_error *err);

#endif
