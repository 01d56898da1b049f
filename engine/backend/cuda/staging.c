/*
 * From the host's memory to the device without waiting. What is sent is copied into one of two halves of a pinned
 * buffer, from where the device fetches it when its turn comes; a half is written again after an event behind the last
 * of its copies has passed. Only a host that is ahead of the device by a whole half waits, as when weights are sent.
 */
#include <string.h>

#include "backend/cuda/state.h"

enum { HALF = 8 << 20, ALIGNMENT = 256 };

bool draft_cuda_staging_open(struct draft_cuda_staging *s, struct draft_error *err)
{
    if (!draft_cuda_ok(cudaHostAlloc((void **)&s->buffer, 2 * (size_t)HALF, cudaHostAllocDefault),
                       "for a buffer of pinned memory", err))
        return false;
    for (int i = 0; i < 2; i++)
        if (!draft_cuda_ok(cudaEventCreateWithFlags(&s->fetched[i], cudaEventDisableTiming), "making an event", err))
            return false;
    return true;
}

void draft_cuda_staging_close(struct draft_cuda_staging *s)
{
    for (int i = 0; i < 2; i++)
        if (s->fetched[i] != NULL)
            cudaEventDestroy(s->fetched[i]);
    if (s->buffer != NULL)
        cudaFreeHost(s->buffer);
    *s = (struct draft_cuda_staging){.buffer = NULL};
}

/* The other half, when the device has fetched what was in it. */
static bool turn(struct draft_backend *backend, struct draft_error *err)
{
    struct draft_cuda_staging *s = &backend->staging;
    const char *const doing = "copying to the GPU";
    if (!draft_cuda_ok(cudaEventRecord(s->fetched[s->half], backend->stream), doing, err))
        return false;
    s->used[s->half] = true;
    s->half = 1 - s->half;
    s->filled = 0;
    if (!s->used[s->half])
        return true;
    cudaError_t passed = cudaEventQuery(s->fetched[s->half]);
    if (passed == cudaErrorNotReady) {
        (void)cudaGetLastError(); /* an answer, but the runtime keeps it like a failure */
        passed = cudaEventSynchronize(s->fetched[s->half]);
    }
    return draft_cuda_ok(passed, doing, err);
}

bool draft_cuda_send(struct draft_backend *backend, void *to, const void *from, size_t bytes, struct draft_error *err)
{
    struct draft_cuda_staging *s = &backend->staging;
    for (size_t done = 0, n; done < bytes; done += n) {
        if (s->filled == HALF && !turn(backend, err))
            return false;
        n = bytes - done < HALF - s->filled ? bytes - done : HALF - s->filled;
        unsigned char *at = s->buffer + (size_t)s->half * HALF + s->filled;
        memcpy(at, (const char *)from + done, n);
        if (!draft_cuda_ok(cudaMemcpyAsync((char *)to + done, at, n, cudaMemcpyHostToDevice, backend->stream),
                           "copying to the GPU", err))
            return false;
        s->filled += (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    return true;
}
