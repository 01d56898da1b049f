/*
 * What autograd/replay.h asks of this backend: the stream's work is captured in a graph, which is launched whole. While
 * a graph is captured the runtime refuses, on this thread, whatever waits or allocates.
 */
#include "backend/cuda/state.h"

bool draft_cuda_record(struct draft_backend *backend, struct draft_error *err)
{
    return draft_cuda_ok(cudaStreamBeginCapture(backend->stream, cudaStreamCaptureModeThreadLocal),
                         "beginning to record", err);
}

void *draft_cuda_recorded(struct draft_backend *backend, bool wanted, struct draft_error *err)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t recording = NULL;
    bool ended = draft_cuda_ok(cudaStreamEndCapture(backend->stream, &graph), "recording", err);
    if (ended && wanted &&
        !draft_cuda_ok(cudaGraphInstantiate(&recording, graph, 0), "preparing what was recorded", err))
        recording = NULL;
    if (graph != NULL)
        cudaGraphDestroy(graph);
    return recording;
}

bool draft_cuda_launch(struct draft_backend *backend, void *recording, struct draft_error *err)
{
    return draft_cuda_ok(cudaGraphLaunch(recording, backend->stream), "launching what was recorded", err);
}

/* The device may still be at work on it, which the runtime knows. */
void draft_cuda_drop(struct draft_backend *backend, void *recording)
{
    (void)backend;
    cudaGraphExecDestroy(recording);
}
