#include "runtime.h"

#include <cuda.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "emulation/emulation.h"

enum { PAGE = 4096, SLACK = 0xa5, FRESH = 0xff /* NaN */ };

/* --- What machine this is -------------------------------------------------------------------------------------------
 */

static bool machine(const char *what)
{
    const char *said = getenv("FAKE_CUDA");
    return said != NULL && strcmp(said, what) == 0;
}

static size_t memory_size(void)
{
    const char *said = getenv("FAKE_CUDA_MEMORY");
    return said != NULL ? strtoull(said, NULL, 10) : (size_t)8 << 30;
}

static size_t memory_used, memory_peak;
static cudaError_t sticky, last;

__attribute__((visibility("default"))) size_t fake_cuda_memory_peak(void)
{
    size_t peak = memory_peak;
    memory_peak = memory_used;
    return peak;
}

static cudaError_t answer(cudaError_t status)
{
    if (sticky != cudaSuccess)
        status = sticky;
    if (status != cudaSuccess)
        last = status;
    return status;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = machine("no-driver") ? 0 : machine("old-driver") ? 12040 : CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 0;
    if (machine("no-driver") || machine("old-driver"))
        return answer(cudaErrorInsufficientDriver);
    if (machine("stub"))
        return answer(cudaErrorStubLibrary);
    if (machine("no-device"))
        return answer(cudaErrorNoDevice);
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device)
{
    if (device != 0)
        return answer(cudaErrorInvalidDevice);
    memset(prop, 0, sizeof *prop);
    snprintf(prop->name, sizeof prop->name, "emulated GPU");
    prop->major = 9;
    prop->totalGlobalMem = memory_size();
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    return answer(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    *total = memory_size();
    *free_bytes = *total - memory_used;
    return answer(cudaSuccess);
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t status = (cudaError_t)emulated_take_error();
    if (status != cudaSuccess)
        answer(status);
    status = last;
    last = sticky;
    return status;
}

const char *cudaGetErrorName(cudaError_t status)
{
    static char name[32];
    snprintf(name, sizeof name, "error %d", (int)status);
    return name;
}

const char *cudaGetErrorString(cudaError_t status)
{
    return status == cudaSuccess ? "no error" : "refused by the fake runtime";
}

/* --- Streams and graphs ---------------------------------------------------------------------------------------------
 */

struct work {
    struct work *next;
    void (*run)(void *context);
    void (*release)(void *context);
    void *context;
};

struct CUgraph_st {
    struct work *first, **end;
};

static struct CUgraph_st *capturing;
static bool spoiled;

/* What may not happen while a graph is being captured. */
static bool refused(void)
{
    spoiled |= capturing != NULL;
    return capturing != NULL;
}

void fake_submit(cudaStream_t stream, void (*run)(void *context), void *context, void (*release)(void *context))
{
    (void)stream;
    if (machine("dies")) {
        sticky = cudaErrorIllegalAddress;
        release(context);
        return;
    }
    if (capturing == NULL) {
        run(context);
        release(context);
        return;
    }
    struct work *work = malloc(sizeof *work);
    if (work == NULL)
        abort();
    *work = (struct work){.run = run, .release = release, .context = context};
    *capturing->end = work;
    capturing->end = &work->next;
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

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    static char one;
    (void)flags;
    emulated_submit = submit_launch;
    *stream = (cudaStream_t)(void *)&one;
    return answer(cudaSuccess);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    (void)stream;
    return answer(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    (void)stream;
    return answer(refused() ? cudaErrorStreamCaptureUnsupported : cudaSuccess);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    (void)stream, (void)mode;
    if (refused())
        return answer(cudaErrorIllegalState);
    spoiled = false;
    capturing = malloc(sizeof *capturing);
    if (capturing == NULL)
        abort();
    *capturing = (struct CUgraph_st){.end = &capturing->first};
    return answer(cudaSuccess);
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
    return answer(cudaSuccess);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    (void)stream;
    struct CUgraph_st *made = capturing;
    capturing = NULL;
    *graph = NULL;
    if (made != NULL && !spoiled) {
        *graph = made;
        return answer(cudaSuccess);
    }
    if (made != NULL)
        cudaGraphDestroy(made);
    return answer(cudaErrorStreamCaptureInvalidated);
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
    return answer(cudaSuccess);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    return cudaGraphDestroy((cudaGraph_t)(void *)exec);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    (void)stream;
    for (struct work *work = ((cudaGraph_t)(void *)exec)->first; work != NULL; work = work->next)
        work->run(work->context);
    return answer(cudaSuccess);
}

/* Marks on the host's clock: what was submitted before has been done by then. */
struct CUevent_st {
    struct timespec at;
};

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    *event = calloc(1, sizeof **event);
    return answer(*event != NULL ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    free(event);
    return answer(cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    (void)stream;
    clock_gettime(CLOCK_MONOTONIC, &event->at);
    return answer(cudaSuccess);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    (void)event;
    return answer(refused() ? cudaErrorStreamCaptureUnsupported : cudaSuccess);
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to)
{
    *milliseconds = (float)(1e3 * (double)(to->at.tv_sec - from->at.tv_sec) +
                            1e-6 * (double)(to->at.tv_nsec - from->at.tv_nsec));
    return answer(cudaSuccess);
}

/* --- Memory ---------------------------------------------------------------------------------------------------------
 */

/* [guard page][slack of a pattern][block, up to the end of its last page][guard page]; the block's size in front. */
struct block {
    size_t bytes, mapped;
};

static bool take(size_t bytes)
{
    if (bytes > memory_size() - memory_used)
        return false;
    memory_used += bytes;
    memory_peak = memory_used > memory_peak ? memory_used : memory_peak;
    return true;
}

static size_t round_up(size_t bytes, size_t unit)
{
    return (bytes + unit - 1) / unit * unit;
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    *memory = NULL;
    if (refused())
        return answer(cudaErrorStreamCaptureUnsupported);
    size_t room = round_up(bytes, 256), mapped = round_up(room + 256, PAGE) + 2 * (size_t)PAGE;
    if (!take(bytes))
        return answer(cudaErrorMemoryAllocation);
    unsigned char *map = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return answer(cudaErrorMemoryAllocation);
    mprotect(map + mapped - PAGE, PAGE, PROT_NONE);
    unsigned char *start = map + mapped - PAGE - room;
    *(struct block *)(void *)(start - 256) = (struct block){bytes, mapped};
    memset(start, FRESH, bytes);
    memset(start + bytes, SLACK, room - bytes);
    *memory = start;
    return answer(cudaSuccess);
}

cudaError_t cudaFree(void *memory)
{
    if (memory == NULL)
        return cudaSuccess;
    if (refused())
        return answer(cudaErrorStreamCaptureUnsupported);
    unsigned char *start = memory;
    struct block block = *(struct block *)(void *)(start - 256);
    size_t room = round_up(block.bytes, 256);
    for (size_t i = block.bytes; i < room; i++)
        if (start[i] != SLACK) {
            fprintf(stderr, "fake CUDA: somebody wrote behind a block of %zu bytes\n", block.bytes);
            abort();
        }
    memory_used -= block.bytes;
    munmap(start + room + PAGE - block.mapped, block.mapped);
    return answer(cudaSuccess);
}

struct move {
    void *to;
    const void *from;
    size_t bytes;
};

static void run_move(void *context)
{
    const struct move *move = context;
    uintptr_t to = (uintptr_t)move->to, from = (uintptr_t)move->from;
    if (to < from + move->bytes && from < to + move->bytes) {
        fprintf(stderr, "fake CUDA: an asynchronous copy within overlapping ranges\n");
        abort();
    }
    memcpy(move->to, move->from, move->bytes);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    /* From the host's memory that may change before the graph is launched; the real one allows it, we never mean it. */
    if (kind != cudaMemcpyDeviceToDevice && refused())
        return answer(cudaErrorStreamCaptureUnsupported);
    struct move *move = malloc(sizeof *move);
    if (move == NULL)
        abort();
    *move = (struct move){to, from, bytes};
    fake_submit(stream, run_move, move, free);
    return answer(cudaSuccess);
}

/* --- The driver's virtual memory ------------------------------------------------------------------------------------
 */

static CUresult CUDAAPI reserve(CUdeviceptr *base, size_t bytes, size_t alignment, CUdeviceptr wish,
                                unsigned long long f)
{
    (void)alignment, (void)wish, (void)f;
    void *map = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    *base = (CUdeviceptr)(uintptr_t)map;
    return map == MAP_FAILED ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

static CUresult CUDAAPI unreserve(CUdeviceptr base, size_t bytes)
{
    munmap((void *)(uintptr_t)base, bytes);
    return CUDA_SUCCESS;
}

/* A handle is the number of bytes. */
static CUresult CUDAAPI create(CUmemGenericAllocationHandle *handle, size_t bytes, const CUmemAllocationProp *prop,
                               unsigned long long f)
{
    (void)prop, (void)f;
    if (refused())
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    *handle = bytes;
    return bytes % ((size_t)2 << 20) != 0 ? CUDA_ERROR_INVALID_VALUE
           : take(bytes)                  ? CUDA_SUCCESS
                                          : CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult CUDAAPI release(CUmemGenericAllocationHandle handle)
{
    memory_used -= (size_t)handle;
    return CUDA_SUCCESS;
}

static CUresult CUDAAPI map(CUdeviceptr at, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                            unsigned long long f)
{
    (void)at, (void)offset, (void)f;
    return handle == bytes ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult CUDAAPI unmap(CUdeviceptr at, size_t bytes)
{
    void *to = (void *)(uintptr_t)at;
    return mmap(to, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == to
               ? CUDA_SUCCESS
               : CUDA_ERROR_INVALID_VALUE;
}

static CUresult CUDAAPI access(CUdeviceptr at, size_t bytes, const CUmemAccessDesc *desc, size_t count)
{
    (void)desc, (void)count;
    return mprotect((void *)(uintptr_t)at, bytes, PROT_READ | PROT_WRITE) == 0 ? CUDA_SUCCESS
                                                                               : CUDA_ERROR_INVALID_VALUE;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned version,
                                             unsigned long long flags, enum cudaDriverEntryPointQueryResult *status)
{
    static const struct {
        const char *name;
        void (*function)(void);
    } known[] = {
        {"cuMemAddressReserve", (void (*)(void))reserve},
        {"cuMemAddressFree", (void (*)(void))unreserve},
        {"cuMemCreate", (void (*)(void))create},
        {"cuMemRelease", (void (*)(void))release},
        {"cuMemMap", (void (*)(void))map},
        {"cuMemUnmap", (void (*)(void))unmap},
        {"cuMemSetAccess", (void (*)(void))access},
    };
    (void)version, (void)flags;
    *status = cudaDriverEntryPointSymbolNotFound;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(symbol, known[i].name) == 0) {
            memcpy(function, &known[i].function, sizeof *function);
            *status = cudaDriverEntryPointSuccess;
        }
    return answer(cudaSuccess);
}
