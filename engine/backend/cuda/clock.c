/* Marks in the stream, for a profile: events, made at their first use. */
#include <stdlib.h>

#include "backend/cuda/state.h"

bool draft_cuda_mark(struct draft_backend *backend, int i, struct draft_error *err)
{
    if (draft_backend_is_dry(backend))
        return true;
    if (backend->events == NULL && (backend->events = calloc(DRAFT_MARKS, sizeof *backend->events)) == NULL)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for a profile's marks");
    return (backend->events[i] != NULL ||
            draft_cuda_ok(cudaEventCreate(&backend->events[i]), "making an event", err)) &&
           draft_cuda_ok(cudaEventRecord(backend->events[i], backend->stream), "marking the time", err);
}

bool draft_cuda_between(struct draft_backend *backend, int i, int j, double *seconds, struct draft_error *err)
{
    float milliseconds = 0;
    *seconds = 0;
    if (draft_backend_is_dry(backend))
        return true;
    if (!draft_cuda_ok(cudaEventSynchronize(backend->events[j]), "waiting for a mark", err) ||
        !draft_cuda_ok(cudaEventElapsedTime(&milliseconds, backend->events[i], backend->events[j]), "reading the time",
                       err))
        return false;
    *seconds = 1e-3 * (double)milliseconds;
    return true;
}

uint64_t draft_cuda_launch_count(const struct draft_backend *backend)
{
    (void)backend;
    return draft_cuda_launches;
}

void draft_cuda_clock_close(struct draft_backend *backend)
{
    for (int i = 0; backend->events != NULL && i < DRAFT_MARKS; i++)
        if (backend->events[i] != NULL)
            cudaEventDestroy(backend->events[i]);
    free(backend->events);
    backend->events = NULL;
}
