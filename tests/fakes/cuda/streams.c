/* Streams, events and graphs of the fake runtime. */
#include "runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "emulation/emulation.h"

struct work {
    struct work *next;
    void (*run)(void *context);
    void (*release)(void *context);
    void *context;
};

struct CUgraph_st {
    struct work *first, **end;
    int forks; /* streams that joined the capture and have not come back */
};

struct CUstream_st {
    struct CUgraph_st *capture; /* it belongs to, or NULL */
    bool forked;                /* by an event of another stream */
};

struct CUevent_st {
    struct CUgraph_st *capture;   /* it was recorded in, or NULL */
    struct CUstream_st *recorder; /* the stream it was recorded in */
    bool timed, recorded;         /* made with a clock; ever put into a stream */
    bool passed;
    struct timespec at; /* when, on the host's clock */
};

static struct CUgraph_st *capturing;
static struct CUstream_st *captured; /* the stream that is */
static bool spoiled;
static struct work *late, **late_end = &late; /* FAKE_CUDA_LATE: what nobody has waited for yet */
static struct fake_counts counts;

__attribute__((visibility("default"))) struct fake_counts *fake_cuda_counts(void)
{
    return &counts;
}

bool fake_refused(void)
{
    spoiled |= capturing != NULL;
    return capturing != NULL;
}

/* --- Work ----------------------------------------------------------------------------------------------------------
 */

static void append(struct work ***end, struct work work)
{
    struct work *copy = malloc(sizeof *copy);
    if (copy == NULL)
        abort();
    *copy = work;
    copy->next = NULL;
    **end = copy;
    *end = &copy->next;
}

static void nothing(void *context)
{
    (void)context;
}

static void run_late(void)
{
    while (late != NULL) {
        struct work *work = late;
        late = work->next;
        if (late == NULL)
            late_end = &late;
        work->run(work->context);
        work->release(work->context);
        free(work);
    }
}

void fake_wait(void)
{
    counts.waits++;
    run_late();
}

/* Now, or when somebody waits. */
static void enqueue(struct work work)
{
    const char *said = getenv("FAKE_CUDA_LATE");
    if (said != NULL && said[0] == '1') {
        append(&late_end, work);
        return;
    }
    work.run(work.context);
    work.release(work.context);
}

void fake_submit(cudaStream_t stream, void (*run)(void *context), void *context, void (*release)(void *context))
{
    const struct work work = {.run = run, .release = release, .context = context};
    if (fake_machine("dies")) {
        fake_sticky(cudaErrorIllegalAddress);
        release(context);
    } else if (stream == NULL && capturing != NULL) {
        spoiled = true; /* the legacy stream waits for all others */
        fake_answer(cudaErrorStreamCaptureImplicit);
        release(context);
    } else if (stream != NULL && stream->capture != NULL) {
        append(&stream->capture->end, work);
    } else {
        counts.launches++;
        enqueue(work);
    }
}

static void run_launch(void *context)
{
    emulated_run(context);
}

static void free_launch(void *context)
{
    emulated_free(context);
}

static void submit_launch(struct CUstream_st *stream, struct emulated_launch *launch)
{
    fake_submit(stream, run_launch, launch, free_launch);
}

/* --- Streams and events --------------------------------------------------------------------------------------------
 */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    (void)flags;
    emulated_submit = submit_launch;
    *stream = calloc(1, sizeof **stream);
    return fake_answer(*stream != NULL ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    run_late();
    free(stream);
    return fake_answer(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    (void)stream;
    if (fake_refused())
        return fake_answer(cudaErrorStreamCaptureUnsupported);
    fake_wait();
    return fake_answer(cudaSuccess);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    *event = calloc(1, sizeof **event);
    if (*event != NULL)
        **event = (struct CUevent_st){.timed = (flags & cudaEventDisableTiming) == 0, .passed = true};
    return fake_answer(*event != NULL ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

/* Of two that have been recorded, outside of captures, with a clock, and have passed. */
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to)
{
    for (const struct CUevent_st *const *e = (const struct CUevent_st *[]){from, to, NULL}; *e != NULL; e++)
        if (!(*e)->timed || !(*e)->recorded || (*e)->capture != NULL)
            return fake_answer(cudaErrorInvalidResourceHandle);
    if (!from->passed || !to->passed)
        return fake_answer(cudaErrorNotReady);
    *milliseconds =
        (float)(1e3 * (double)(to->at.tv_sec - from->at.tv_sec) + 1e-6 * (double)(to->at.tv_nsec - from->at.tv_nsec));
    return fake_answer(cudaSuccess);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    run_late();
    free(event);
    return fake_answer(cudaSuccess);
}

static void pass(void *context)
{
    struct CUevent_st *event = context;
    event->passed = true;
    clock_gettime(CLOCK_MONOTONIC, &event->at);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    *event = (struct CUevent_st){
        .capture = stream->capture, .recorder = stream, .timed = event->timed, .recorded = true, .at = event->at};
    if (event->capture == NULL)
        enqueue((struct work){.run = pass, .release = nothing, .context = event});
    return fake_answer(cudaSuccess);
}

/* A stream that waits for an event of a captured one is captured as well, until the first waits for it in turn. */
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    (void)flags;
    if (event->capture != NULL && stream->capture == NULL) {
        stream->capture = event->capture;
        stream->forked = true;
        stream->capture->forks++;
    } else if (event->capture != NULL && event->recorder->forked) {
        event->recorder->capture->forks--;
        *event->recorder = (struct CUstream_st){.capture = NULL};
    }
    return fake_answer(cudaSuccess);
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    if (event->capture != NULL) {
        spoiled = true;
        return fake_answer(cudaErrorCapturedEvent);
    }
    return fake_answer(event->passed ? cudaSuccess : cudaErrorNotReady);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    if (event->capture != NULL || fake_refused())
        return cudaEventQuery(event);
    if (!event->passed)
        fake_wait();
    return fake_answer(cudaSuccess);
}

/* --- Graphs --------------------------------------------------------------------------------------------------------
 */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    (void)mode;
    if (fake_refused() || fake_machine("no-capture"))
        return fake_answer(cudaErrorIllegalState);
    spoiled = false;
    capturing = malloc(sizeof *capturing);
    if (capturing == NULL)
        abort();
    *capturing = (struct CUgraph_st){.end = &capturing->first};
    stream->capture = capturing;
    captured = stream;
    return fake_answer(cudaSuccess);
}

/* What the backend never does in a capture. */
__attribute__((visibility("default"))) void fake_cuda_misuse(cudaError_t as)
{
    static struct CUstream_st aside;
    static struct CUevent_st event;
    aside = (struct CUstream_st){.capture = NULL};
    if (capturing != NULL && as == cudaErrorStreamCaptureUnjoined) {
        cudaEventRecord(&event, captured);
        cudaStreamWaitEvent(&aside, &event, 0);
    } else if (capturing != NULL && as == cudaErrorStreamCaptureImplicit) {
        fake_submit(NULL, nothing, NULL, nothing);
    }
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    while (graph->first != NULL) {
        struct work *work = graph->first;
        graph->first = work->next;
        work->release(work->context);
        free(work);
    }
    free(graph);
    return fake_answer(cudaSuccess);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    struct CUgraph_st *made = capturing;
    *graph = NULL;
    if (made == NULL)
        return fake_answer(cudaErrorIllegalState);
    capturing = stream->capture = NULL;
    if (!spoiled && made->forks == 0) {
        counts.captures++;
        *graph = made;
        return fake_answer(cudaSuccess);
    }
    cudaError_t why = spoiled ? cudaErrorStreamCaptureInvalidated : cudaErrorStreamCaptureUnjoined;
    cudaGraphDestroy(made);
    return fake_answer(why);
}

/* An executable graph takes the recorded work over, so that the graph itself may go. */
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
    (void)flags;
    struct CUgraph_st *copy = malloc(sizeof *copy);
    if (copy == NULL)
        abort();
    *copy = *graph;
    *graph = (struct CUgraph_st){.end = &graph->first};
    *exec = (cudaGraphExec_t)(void *)copy;
    counts.graphs++;
    return fake_answer(cudaSuccess);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    run_late();
    counts.graphs--;
    return cudaGraphDestroy((cudaGraph_t)(void *)exec);
}

static void run_graph(void *context)
{
    for (struct work *work = ((struct CUgraph_st *)context)->first; work != NULL; work = work->next)
        work->run(work->context);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    (void)stream;
    if (fake_machine("dies")) {
        fake_sticky(cudaErrorIllegalAddress);
        return fake_answer(cudaSuccess);
    }
    if (fake_refused())
        return fake_answer(cudaErrorStreamCaptureUnsupported);
    counts.graph_launches++;
    enqueue((struct work){.run = run_graph, .release = nothing, .context = exec});
    return fake_answer(cudaSuccess);
}
