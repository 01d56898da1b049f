/*
 * For the tests of the client's calls against a daemon that misbehaves on purpose: a folder with its socket, the
 * connection, what the daemon has seen.
 */
#ifndef DRAFT_TESTS_CLIENT_FAKE_CALLS_H
#define DRAFT_TESTS_CLIENT_FAKE_CALLS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>

#include "command.h"
#include "fake_daemon.h"
#include "jobs.h"
#include "rpc/rpc.h"

static char folder[] = "/tmp/test_client_XXXXXX", socket_path[64];

static struct {
    int calls;
    int64_t start_revision[8];
    char request_id[4][40];
    int previews;
    char aig[8][24], sampler[8][24];
    struct fake_daemon *daemon;
} seen;

static inline struct draft_rpc *connect_to(struct fake_daemon *fake, fake_handler handler)
{
    memset(&seen, 0, sizeof seen);
    seen.daemon = fake;
    fake_start(fake, socket_path, handler, NULL);
    return draft_rpc_open(socket_path);
}

static inline void close_both(struct draft_rpc *rpc, struct fake_daemon *fake)
{
    draft_rpc_close(rpc);
    fake_stop(fake);
}

static inline Draftd__V1__Job *job_of(const char *id, Draftd__V1__Job__State state)
{
    static Draftd__V1__Job job;
    draftd__v1__job__init(&job);
    job.id = (char *)(uintptr_t)id;
    job.state = state;
    return &job;
}

/* GetJob: the job asked for, paused. */
static inline void answer_job(void *context, struct fake_call *call)
{
    Draftd__V1__GetJobResponse reply = DRAFTD__V1__GET_JOB_RESPONSE__INIT;
    (void)context;
    Draftd__V1__GetJobRequest *request = draftd__v1__get_job_request__unpack(NULL, call->request_bytes, call->request);
    assert_string_equal(call->method, "JobService/GetJob");
    reply.job = job_of(request->job_id, DRAFTD__V1__JOB__STATE__STATE_PAUSED);
    fake_send(call, &reply.base);
    fake_finish(call, 0, "", NULL);
    draftd__v1__get_job_request__free_unpacked(request, NULL);
}

static inline int begin(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(socket_path, sizeof socket_path, "%s/d.sock", folder);
    grpc_init(); /* held through the whole program: starting gRPC anew for every test is slow */
    return 0;
}

static inline int end(void **state)
{
    (void)state;
    grpc_shutdown_blocking();
    unlink(socket_path);
    return rmdir(folder);
}

#endif
