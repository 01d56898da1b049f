#include "runtime.h"

#include <cuda.h>
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

bool fake_machine(const char *what)
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

cudaError_t fake_answer(cudaError_t status)
{
    if (sticky != cudaSuccess)
        status = sticky;
    if (status != cudaSuccess)
        last = status;
    return status;
}

void fake_sticky(cudaError_t status)
{
    sticky = status;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = fake_machine("no-driver") ? 0 : fake_machine("old-driver") ? 12040 : CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 0;
    if (fake_machine("no-driver") || fake_machine("old-driver"))
        return fake_answer(cudaErrorInsufficientDriver);
    if (fake_machine("stub"))
        return fake_answer(cudaErrorStubLibrary);
    if (fake_machine("no-device"))
        return fake_answer(cudaErrorNoDevice);
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device)
{
    if (device != 0)
        return fake_answer(cudaErrorInvalidDevice);
    memset(prop, 0, sizeof *prop);
    snprintf(prop->name, sizeof prop->name, "emulated GPU");
    prop->major = 9;
    prop->totalGlobalMem = memory_size();
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    return fake_answer(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    *total = memory_size();
    *free_bytes = *total - memory_used;
    return fake_answer(cudaSuccess);
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t status = (cudaError_t)emulated_take_error();
    if (status != cudaSuccess)
        fake_answer(status);
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
    if (fake_refused())
        return fake_answer(cudaErrorStreamCaptureUnsupported);
    fake_cuda_counts()->allocations++;
    size_t room = round_up(bytes, 256), mapped = round_up(room + 256, PAGE) + 2 * (size_t)PAGE;
    if (!take(bytes))
        return fake_answer(cudaErrorMemoryAllocation);
    unsigned char *map = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return fake_answer(cudaErrorMemoryAllocation);
    mprotect(map + mapped - PAGE, PAGE, PROT_NONE);
    unsigned char *start = map + mapped - PAGE - room;
    *(struct block *)(void *)(start - 256) = (struct block){bytes, mapped};
    memset(start, FRESH, bytes);
    memset(start + bytes, SLACK, room - bytes);
    *memory = start;
    return fake_answer(cudaSuccess);
}

cudaError_t cudaFree(void *memory)
{
    if (memory == NULL)
        return cudaSuccess;
    if (fake_refused())
        return fake_answer(cudaErrorStreamCaptureUnsupported);
    fake_wait(); /* as the real one does */
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
    return fake_answer(cudaSuccess);
}

/* Pinned memory of the host, of a few blocks. */
enum { PINNED = 8 };
static struct {
    unsigned char *start;
    size_t bytes;
} pinned[PINNED];

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned flags)
{
    (void)flags;
    *memory = NULL;
    if (fake_refused())
        return fake_answer(cudaErrorStreamCaptureUnsupported);
    for (int i = 0; i < PINNED && *memory == NULL; i++)
        if (pinned[i].start == NULL && (*memory = malloc(bytes)) != NULL) {
            pinned[i].start = *memory;
            pinned[i].bytes = bytes;
        }
    return fake_answer(*memory != NULL ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeHost(void *memory)
{
    fake_wait();
    for (int i = 0; i < PINNED; i++)
        if (pinned[i].start == memory)
            pinned[i].start = NULL;
    free(memory);
    return fake_answer(cudaSuccess);
}

static bool is_pinned(const void *address)
{
    bool any = false;
    for (int i = 0; i < PINNED; i++)
        any |= pinned[i].start != NULL && (uintptr_t)address - (uintptr_t)pinned[i].start < pinned[i].bytes;
    return any;
}

struct move {
    void *to;
    const void *from;
    size_t bytes;
    void *staged; /* a copy of what is moved, or NULL */
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

static void free_move(void *context)
{
    struct move *move = context;
    free(move->staged);
    free(move);
}

/* From pageable memory the real one stages the bytes before it returns; pinned memory it reads when it gets there. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    /* From the host's memory that may change before the graph is launched; the real one allows it, we never mean it. */
    if (kind != cudaMemcpyDeviceToDevice && fake_refused())
        return fake_answer(cudaErrorStreamCaptureUnsupported);
    struct move *move = malloc(sizeof *move);
    void *staged = kind == cudaMemcpyHostToDevice && !is_pinned(from) ? malloc(bytes) : NULL;
    if (move == NULL)
        abort();
    *move = (struct move){to, staged != NULL ? memcpy(staged, from, bytes) : from, bytes, staged};
    fake_submit(stream, run_move, move, free_move);
    return fake_answer(cudaSuccess);
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
    if (fake_refused())
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
    return fake_answer(cudaSuccess);
}
