/*
 * A daemon in the test's own process, with the fake worker, in a temporary state folder: what tests of server/ drive.
 * Failures inside are cmocka failures.
 */
#ifndef DAEMON_FIXTURE_H
#define DAEMON_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "daemon.h"

/* How long a call that must succeed may take: far longer than it does, for the machine may stand still meanwhile. */
enum { FIXTURE_MS = 120000 };
/* For loops that wait: sleeps 2 ms and is true 10 000 times. It counts and has no deadline, so that a machine which is
 * slow, or was stopped, gives the daemon as many chances as any other. */
bool fixture_patient(int *polls);

struct fixture {
    char folder[64]; /* temporary; state/, model/weights and prompts.txt lie in it */
    char state[96], model[96], dataset[96];
    struct draftd_config config;
    struct draftd *d;
};

int fixture_setup(void **state);    /* opens */
int fixture_teardown(void **state); /* closes, removes the folder */
void fixture_open(struct fixture *f);
void fixture_close(struct fixture *f); /* without draining: workers are killed, as after kill -9 */

void fixture_write(const char *path, const char *text);
char *fixture_read(const char *path); /* malloc'd */

/* A job of the fake worker's script. */
Draftd__V1__JobSpec *fixture_spec(struct fixture *f, const char *script, int64_t steps);
/* Submits and gives the id; must succeed. The buffer is the caller's, 32 bytes. */
char *fixture_submit(struct fixture *f, const char *script, int64_t steps, char id[32]);
bool fixture_try_submit(struct fixture *f, const Draftd__V1__JobSpec *spec, const char *request_id, char id[32],
                        struct draft_error *err);

Draftd__V1__Job *fixture_job(struct fixture *f, const char *id); /* the caller frees */
Draftd__V1__Job__State fixture_state(struct fixture *f, const char *id);
/* Waits (fixture_patient) until the job is in a state, or has reached a step; fails otherwise. The job is the caller's.
 */
Draftd__V1__Job *fixture_wait(struct fixture *f, const char *id, Draftd__V1__Job__State state);
void fixture_wait_step(struct fixture *f, const char *id, int64_t step);
Draftd__V1__Preview *fixture_wait_preview(struct fixture *f, const char *id, Draftd__V1__Preview__State state);
void fixture_free(void *message);

/* All points of a series; must exist. */
Draftd__V1__QueryMetricsResponse *fixture_points(struct fixture *f, const char *id, const char *series);

#define QUEUED     DRAFTD__V1__JOB__STATE__STATE_QUEUED
#define PREPARING  DRAFTD__V1__JOB__STATE__STATE_PREPARING
#define RUNNING    DRAFTD__V1__JOB__STATE__STATE_RUNNING
#define PAUSED     DRAFTD__V1__JOB__STATE__STATE_PAUSED
#define CANCELLING DRAFTD__V1__JOB__STATE__STATE_CANCELLING
#define SUCCEEDED  DRAFTD__V1__JOB__STATE__STATE_SUCCEEDED
#define FAILED     DRAFTD__V1__JOB__STATE__STATE_FAILED
#define CANCELLED  DRAFTD__V1__JOB__STATE__STATE_CANCELLED

#endif
