#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "backend/cpu/state.h"

enum { MAX_THREADS = 1024 };
static const size_t HUGE_PAGE = (size_t)2 << 20;

static void destroy(struct draft_backend *backend)
{
    draft_pool_destroy(backend->pool);
    draft_prepared_destroy(backend->prepared);
    free(backend->shared.memory);
    free(backend->each.memory);
    free(backend);
}

static bool axpby(struct draft_backend *backend, enum draft_dtype type, int64_t n, float alpha, const void *a, void *y,
                  bool accumulate, struct draft_error *err)
{
    (void)err, (void)type;
    assert(type == DRAFT_F32 || backend->head.dry);
    draft_cpu_axpby(backend, n, alpha, a, 0, NULL, y, accumulate);
    return true;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool lap(struct draft_backend *backend, double *last, double *sum, struct draft_error *err)
{
    const double at = now();
    (void)backend, (void)err;
    if (sum)
        *sum += at - *last;
    *last = at;
    return true;
}

static bool mark(struct draft_backend *backend, int i, struct draft_error *err)
{
    (void)err;
    backend->marks[i] = now();
    return true;
}

static bool between(struct draft_backend *backend, int i, int j, double *seconds, struct draft_error *err)
{
    (void)err;
    *seconds = backend->marks[j] - backend->marks[i];
    return true;
}

static const struct draft_backend_kind CPU = {.name = "cpu",
                                              .destroy = destroy,
                                              .axpby = axpby,
                                              .pieces = draft_parallel_range,
                                              .forget = draft_prepared_forget,
                                              .prepared_bytes = draft_prepared_bytes,
                                              .keep = draft_prepared_keep,
                                              .lap = lap,
                                              .mark = mark,
                                              .between = between};

struct draft_backend *draft_backend_create_cpu(const struct draft_backend_options *options, struct draft_error *err)
{
    if (options->threads < 0 || options->threads > MAX_THREADS) {
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "%d threads asked for; give 1 to %d, or 0 for one per processor",
                   options->threads, MAX_THREADS);
        return NULL;
    }
    const struct draft_kernels *kernels = draft_kernels_find(options->isa, options->bf16, err);
    if (!kernels)
        return NULL;
    struct draft_backend *backend = calloc(1, sizeof(*backend));
    if (!backend) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the CPU backend");
        return NULL;
    }
    backend->head.kind = &CPU;
    backend->head.dry = options->dry;
    backend->kernels = kernels;
    backend->keep = SIZE_MAX;
    backend->threads = options->threads ? options->threads : draft_pool_processors();
    backend->threads = backend->threads > MAX_THREADS ? MAX_THREADS : backend->threads;
    backend->prepared = draft_prepared_create(err);
    backend->pool = backend->prepared && !options->dry ? draft_pool_create(backend->threads, err) : NULL;
    if (!backend->prepared || (!backend->pool && !options->dry)) {
        destroy(backend);
        return NULL;
    }
    return backend;
}

const char *draft_backend_isa(const struct draft_backend *backend)
{
    return backend->kernels->isa;
}

int draft_backend_threads(const struct draft_backend *backend)
{
    return backend->threads;
}

void *draft_aligned(size_t bytes, const char *what, struct draft_error *err)
{
    size_t alignment = bytes >= HUGE_PAGE ? HUGE_PAGE : 64;
    void *memory = NULL;
    if (bytes > SIZE_MAX / 2 || posix_memalign(&memory, alignment, bytes ? bytes : 1) != 0) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for %s of %zu bytes", what, bytes);
        return NULL;
    }
    if (alignment == HUGE_PAGE)
        madvise(memory, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    return memory;
}

static bool grow(struct draft_scratch *scratch, size_t bytes, struct draft_error *err)
{
    if (bytes <= scratch->bytes)
        return true;
    free(scratch->memory);
    *scratch = (struct draft_scratch){0};
    scratch->memory = draft_aligned(bytes, "scratch", err);
    if (!scratch->memory)
        return false;
    scratch->bytes = bytes;
    return true;
}

bool draft_scratch_reserve(struct draft_backend *backend, size_t shared_bytes, size_t bytes_per_thread,
                           struct draft_error *err)
{
    if (!grow(&backend->shared, shared_bytes, err))
        return false;
    if (bytes_per_thread <= backend->each_step)
        return true;
    size_t step = (bytes_per_thread + 4095) / 4096 * 4096 + 64; /* not in step with the caches' sets */
    if (bytes_per_thread > SIZE_MAX / 2 / (size_t)backend->threads ||
        !grow(&backend->each, step * (size_t)backend->threads, err)) {
        backend->each_step = 0;
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for scratch of %zu bytes a thread", bytes_per_thread);
    }
    backend->each_step = step;
    return true;
}

size_t draft_backend_scratch_bytes(const struct draft_backend *backend)
{
    return backend->shared.bytes + backend->each.bytes;
}

void *draft_scratch_shared(struct draft_backend *backend)
{
    return backend->shared.memory;
}

void *draft_scratch_of(struct draft_backend *backend, int thread)
{
    assert(thread >= 0 && thread < backend->threads);
    return (char *)backend->each.memory + (size_t)thread * backend->each_step;
}

void draft_parallel(struct draft_backend *backend, int64_t tasks, draft_task fn, void *context)
{
    if (!backend->head.dry)
        draft_pool_run(backend->pool, tasks, fn, context);
}

struct range {
    int64_t n, grain;
    void (*fn)(void *context, int64_t begin, int64_t end);
    void *context;
};

static void run_range(void *context, int64_t task, int thread)
{
    (void)thread;
    const struct range *range = context;
    int64_t begin = task * range->grain, end = begin + range->grain;
    range->fn(range->context, begin, end < range->n ? end : range->n);
}

void draft_parallel_range(struct draft_backend *backend, int64_t n, int64_t grain,
                          void (*fn)(void *context, int64_t begin, int64_t end), void *context)
{
    assert(grain > 0);
    struct range range = {n, grain, fn, context};
    if (!backend->head.dry)
        draft_pool_run(backend->pool, (n + grain - 1) / grain, run_range, &range);
}
