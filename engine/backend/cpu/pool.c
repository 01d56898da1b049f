#include "backend/cpu/pool.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/*
 * `claim` holds the round in its upper half and the next free task in its lower half, so that a claim made for a past
 * round fails by itself. While a round is being described the lower half is CLOSED. A worker may read a description
 * that is being rewritten; its claim then fails, because the round has moved on.
 */
static const uint32_t CLOSED = UINT32_MAX;
static const int64_t SPIN_NS = 100000; /* about what two ops of a small model lie apart; waking costs 40 us */

struct worker {
    struct draft_pool *pool;
    pthread_t thread;
    int index;
};

struct draft_pool {
    _Alignas(64) _Atomic uint64_t claim;
    _Alignas(64) _Atomic uint32_t finished; /* tasks of this round */
    _Alignas(64) _Atomic uint32_t round;    /* the futex that sleepers wait on */
    _Atomic uint32_t sleepers;
    _Atomic bool stop;
    _Atomic uint32_t tasks;
    _Atomic(draft_task) fn;
    _Atomic(void *) context;
    int workers;
    struct worker *worker; /* [workers] */
};

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* a yield is a no-op on most cores */
#endif
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Works on the current round until its tasks are gone. */
static void work(struct draft_pool *pool, int thread)
{
    uint64_t claim = atomic_load_explicit(&pool->claim, memory_order_acquire);
    for (;;) {
        uint32_t task = (uint32_t)claim;
        draft_task fn = atomic_load_explicit(&pool->fn, memory_order_relaxed);
        void *context = atomic_load_explicit(&pool->context, memory_order_relaxed);
        if (task == CLOSED || task >= atomic_load_explicit(&pool->tasks, memory_order_relaxed))
            return;
        /* acquire on success orders the reads above before the check that the round is still the same */
        if (!atomic_compare_exchange_weak_explicit(&pool->claim, &claim, claim + 1, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        fn(context, task, thread);
        atomic_fetch_add_explicit(&pool->finished, 1, memory_order_release);
        claim = atomic_load_explicit(&pool->claim, memory_order_acquire);
    }
}

static void *worker_main(void *argument)
{
    struct worker *worker = argument;
    struct draft_pool *pool = worker->pool;
    uint32_t seen = 0;
    for (;;) {
        int64_t since = now_ns();
        uint32_t round;
        while ((round = atomic_load_explicit(&pool->round, memory_order_acquire)) == seen) {
            for (int i = 0; i < 64 && atomic_load_explicit(&pool->round, memory_order_relaxed) == seen; i++)
                pause_briefly();
            if (now_ns() - since < SPIN_NS)
                continue;
            atomic_fetch_add(&pool->sleepers, 1);
            futex_wait(&pool->round, seen);
            atomic_fetch_sub(&pool->sleepers, 1);
        }
        seen = round;
        if (atomic_load(&pool->stop))
            return NULL;
        work(pool, worker->index);
    }
}

int draft_pool_processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return 1;
    int count = CPU_COUNT(&set);
    return count > 0 ? count : 1;
}

/* Worker i on the (i+1)-th processor that we may use: the scheduler sometimes leaves two threads on one for seconds.
 * The caller's own thread is left alone, since threads it makes later would inherit the mask. */
static void pin(struct draft_pool *pool)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0 || pool->workers + 1 > CPU_COUNT(&set))
        return;
    int processor = -1;
    for (int i = -1; i < pool->workers; i++) {
        do
            processor++;
        while (!CPU_ISSET(processor, &set));
        if (i < 0)
            continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(processor, &one);
        pthread_setaffinity_np(pool->worker[i].thread, sizeof(one), &one); /* a failure costs speed only */
    }
}

struct draft_pool *draft_pool_create(int threads, struct draft_error *err)
{
    assert(threads >= 1);
    struct draft_pool *pool = NULL;
    if (posix_memalign((void **)&pool, 64, sizeof(*pool)) != 0) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the thread pool");
        return NULL;
    }
    *pool = (struct draft_pool){.claim = CLOSED};
    pool->worker = calloc((size_t)threads, sizeof(*pool->worker));
    if (!pool->worker) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the thread pool");
        free(pool);
        return NULL;
    }
    for (int i = 0; i < threads - 1; i++) {
        pool->worker[i] = (struct worker){.pool = pool, .index = i + 1};
        int code = pthread_create(&pool->worker[i].thread, NULL, worker_main, &pool->worker[i]);
        if (code != 0) {
            errno = code;
            draft_fail_errno(err, "thread %d of %d could not be started", i + 2, threads);
            draft_pool_destroy(pool);
            return NULL;
        }
        pool->workers++;
    }
    pin(pool);
    return pool;
}

static void announce(struct draft_pool *pool)
{
    atomic_fetch_add(&pool->round, 1);
    if (atomic_load(&pool->sleepers) > 0)
        futex_wake_all(&pool->round);
}

void draft_pool_destroy(struct draft_pool *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->stop, true);
    announce(pool);
    for (int i = 0; i < pool->workers; i++)
        pthread_join(pool->worker[i].thread, NULL);
    free(pool->worker);
    free(pool);
}

void draft_pool_run(struct draft_pool *pool, int64_t tasks, draft_task fn, void *context)
{
    assert(tasks >= 0 && tasks < INT32_MAX);
    if (tasks <= 1 || pool->workers == 0) {
        for (int64_t task = 0; task < tasks; task++)
            fn(context, task, 0);
        return;
    }
    uint64_t next = ((atomic_load_explicit(&pool->claim, memory_order_relaxed) >> 32) + 1) << 32;
    atomic_store(&pool->claim, next | CLOSED);
    atomic_store_explicit(&pool->fn, fn, memory_order_release);
    atomic_store_explicit(&pool->context, context, memory_order_release);
    atomic_store_explicit(&pool->tasks, (uint32_t)tasks, memory_order_release);
    atomic_store_explicit(&pool->finished, 0, memory_order_relaxed);
    atomic_store(&pool->claim, next);
    announce(pool);
    work(pool, 0);
    /* The rest is in other hands. A worker that lost its processor needs ours: yield after a while. */
    for (int spins = 0; atomic_load_explicit(&pool->finished, memory_order_acquire) != (uint32_t)tasks; spins++) {
        if (spins < 4096)
            pause_briefly();
        else
            sched_yield();
    }
}
