/*
 * One job as it runs, for the eye: on a terminal a few lines redrawn in place (bar, rate, time left, phase, latest
 * reward, KL and LPIPS, a sparkline of the reward); elsewhere one time-stamped line for everything that happens.
 */
#ifndef DRAFT_CLIENT_LIVE_H
#define DRAFT_CLIENT_LIVE_H

#include "jobs.h"

struct draft_live;

/* `terminal` is kept. Live lines only when it is a tty. */
struct draft_live *draft_live_create(const struct draft_terminal *terminal, struct draft_rpc *rpc, const char *job_id);
/* Takes the redrawn lines away (leaving the last state, when `keep`), and frees. */
void draft_live_close(struct draft_live *live, bool keep);

/* The callbacks that drive it; context is the struct draft_live. */
struct draft_follow draft_live_callbacks(struct draft_live *live);
bool draft_live_update(void *live, const draft_job *job, const Draftd__V1__JobEvent *event);
void draft_live_tick(void *live);
void draft_live_connection(void *live, bool lost);

/* A line of its own above the redrawn ones. */
void draft_live_say(struct draft_live *live, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Follows the job with a live view and says how it ended; returns the exit code: the job's result. */
int draft_watch_job(const struct draft_terminal *terminal, const struct draft_terminal *messages, struct draft_rpc *rpc,
                    const char *job_id);

#endif
