/*
 * The emulated device: a fiber for each thread of a block, and one scheduler that resumes them in a chosen order until
 * all have returned. A thread leaves its fiber at a barrier or in a warp's exchange only, so between two of these it
 * runs undisturbed: what threads write for each other without a barrier in between shows as a result that depends on
 * the order (emulated_order).
 *
 * A thread that waits for nobody needs no fiber: it leaves its stack to the next one of its warp, so that the threads
 * of an elementwise kernel are the turns of a loop. One that waits goes over to the next one of its warp.
 */
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "cuda_runtime.h"

/* There in a program built with AddressSanitizer, which must be told whose stack it is on. */
extern "C" {
__attribute__((weak)) void __sanitizer_start_switch_fiber(void **fake_stack, const void *bottom, size_t size);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void *fake_stack, const void **bottom, size_t *size);
__attribute__((weak)) void __asan_poison_memory_region(const volatile void *begin, size_t size);
__attribute__((weak)) void __asan_unpoison_memory_region(const volatile void *begin, size_t size);

/* The section of static shared memory; nowhere if no kernel has any. */
__attribute__((weak, visibility("hidden"))) extern unsigned char __start_emulated_shared[], __stop_emulated_shared[];

constexpr size_t MOST_SHARED = 48 << 10;
alignas(16) unsigned char draft_dynamic_shared[MOST_SHARED];

int emulated_order = std::getenv("EMULATED_ORDER") ? std::atoi(std::getenv("EMULATED_ORDER")) : 0;
void (*emulated_submit)(struct CUstream_st *stream, struct emulated_launch *launch);
}

struct emulated_launch {
    std::string name;
    dim3 grid, block;
    size_t shared;
    void *arguments;
    void (*call)(void *arguments), (*release)(void *arguments);
};

namespace emulation
{
uint3 thread_index, block_index;
dim3 block_size, grid_size;

constexpr unsigned MOST_THREADS = 1024, WARP = 32;
constexpr size_t STACK = 256 << 10, GUARD = 4096;

struct fiber {
    enum { RUNNABLE, AT_BARRIER, IN_EXCHANGE, RETURNED } state;
    uint3 index;
    site where; /* it waits, and in an exchange with what: */
    unsigned mask, from_lane;
    uint64_t value, result;
    void *stack_pointer, *fake_stack; /* while it does not run */
    char *stack;                      /* null: it has not begun, or has returned */
};

static fiber fibers[MOST_THREADS];
static fiber *self;                              /* runs just now */
static unsigned threads, living, waiting;        /* of the block: all, not returned, at the barrier */
static std::vector<char *> stacks;               /* that nobody is on, the last used one last */
static unsigned exchanging[MOST_THREADS / WARP]; /* of each warp: lanes in an exchange */
static const unsigned *turn, *turns_end; /* of the warp that runs: who runs just now, in the order of the warp */
static const emulated_launch *running;
static void *scheduler_pointer, *scheduler_fake_stack;
static const void *scheduler_bottom;
static size_t scheduler_size;
static bool from_scheduler; /* the last switch was */
static bool failed;
static cudaError_t first_error;

/* --- Switching ---------------------------------------------------------------------------------------------------- */

/* Saves the registers that a call must keep and the stack pointer, and goes on where `load` was saved. */
extern "C" void emulation_switch(void **save, void *load);
#if !defined(__x86_64__)
#error "the emulated device knows how to switch stacks on x86-64 only"
#endif
asm(".pushsection .text\n"
    ".type emulation_switch,@function\n"
    "emulation_switch:\n"
    "  push %rbp\n  push %rbx\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
    "  mov %rsp,(%rdi)\n"
    "  mov %rsi,%rsp\n"
    "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbx\n  pop %rbp\n"
    "  ret\n"
    ".size emulation_switch,.-emulation_switch\n"
    ".popsection");
constexpr size_t SAVED = 6; /* registers */

static void begin(fiber &f, char *stack)
{
    f.stack = stack;
    f.where = {"", 0};
    self = &f;
    thread_index = f.index;
}

/* The next thread of the warp takes the stack over if it has not begun. */
static bool passed_on()
{
    if (failed || turn + 1 == turns_end)
        return false;
    fiber &next = fibers[turn[1]];
    if (next.state != fiber::RUNNABLE || next.stack)
        return false;
    turn++;
    begin(next, std::exchange(self->stack, nullptr));
    return true;
}

/* The first thing on a stack that was switched to; null: a new one. */
static void arrive(void *fake_stack)
{
    if (__sanitizer_finish_switch_fiber) {
        const void *bottom;
        size_t size;
        __sanitizer_finish_switch_fiber(fake_stack, &bottom, &size);
        if (from_scheduler)
            scheduler_bottom = bottom, scheduler_size = size;
    }
    from_scheduler = false;
}

static void body()
{
    arrive(nullptr);
    do {
        running->call(running->arguments);
        self->state = fiber::RETURNED;
        living--;
    } while (passed_on());
    if (__sanitizer_start_switch_fiber)
        __sanitizer_start_switch_fiber(nullptr, scheduler_bottom, scheduler_size);
    emulation_switch(&self->stack_pointer, scheduler_pointer);
}

/* Of a thread, with a page below it that nobody may touch. */
static char *new_stack()
{
    void *memory =
        mmap(nullptr, STACK + GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, GUARD, PROT_NONE)) {
        std::perror("cuda emulation: the stack of a thread");
        std::abort();
    }
    return static_cast<char *>(memory) + GUARD;
}

static void start(fiber &f)
{
    if (stacks.empty())
        stacks.push_back(new_stack());
    begin(f, stacks.back());
    stacks.pop_back();
    /* What a switch pops: the registers, and where to return to, with the stack aligned as after a call. Tops at
     * different places of a page: hundreds at the same one would evict each other from the processor's cache. */
    const size_t offset = size_t(&f - fibers) % 24 * 128, frames = 8 << 10;
    if (__asan_unpoison_memory_region) /* body() never returns: whoever was here before left its frame */
        __asan_unpoison_memory_region(f.stack + STACK - frames, frames);
    void **top = reinterpret_cast<void **>(f.stack + STACK - offset) - 2, **frame = top - SAVED;
    std::fill(frame, top + 2, nullptr);
    *top = reinterpret_cast<void *>(body);
    f.stack_pointer = frame;
}

static void enter(fiber &f)
{
    if (f.stack)
        self = &f, thread_index = f.index;
    else
        start(f);
}

/* The running thread waits: the next one of its warp goes on, or else the scheduler decides. A processor foretells
 * where a switch between threads goes, which left the same calls a turn ago; the scheduler's it does not. */
static void leave()
{
    fiber &f = *self;
    const bool next = !failed && turn + 1 != turns_end && fibers[turn[1]].state == fiber::RUNNABLE;
    if (next)
        enter(fibers[*++turn]);
    if (__sanitizer_start_switch_fiber)
        __sanitizer_start_switch_fiber(&f.fake_stack, next ? self->stack : scheduler_bottom,
                                       next ? STACK : scheduler_size);
    emulation_switch(&f.stack_pointer, next ? self->stack_pointer : scheduler_pointer);
    arrive(f.fake_stack);
}

/* Until nobody in turn can go on, or one has returned and nobody of the warp can take its stack over. */
static void resume(fiber &f)
{
    enter(f);
    from_scheduler = true;
    if (__sanitizer_start_switch_fiber)
        __sanitizer_start_switch_fiber(&scheduler_fake_stack, f.stack, STACK);
    emulation_switch(&scheduler_pointer, f.stack_pointer);
    if (__sanitizer_finish_switch_fiber)
        __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
    if (self->state == fiber::RETURNED)
        stacks.push_back(std::exchange(self->stack, nullptr));
}

/* Those that have not returned stay where they are for ever, and what AddressSanitizer knows of their frames with them.
 */
static void abandon(fiber &f)
{
    if (!f.stack)
        return;
    if (__asan_unpoison_memory_region)
        __asan_unpoison_memory_region(f.stack, STACK);
    stacks.push_back(std::exchange(f.stack, nullptr));
}

/* --- What the threads of a block do together ---------------------------------------------------------------------- */

static void report(const char *what)
{
    static const char *const doing[] = {"not waiting", "at the barrier", "in a warp's exchange", "returned"};
    std::map<std::string, unsigned> groups;
    for (unsigned i = 0; i < threads; i++) {
        const fiber &f = fibers[i];
        char line[512];
        if (f.state == fiber::AT_BARRIER || f.state == fiber::IN_EXCHANGE)
            std::snprintf(line, sizeof line, "%s, %s:%d", doing[f.state], f.where.file, f.where.line);
        else
            std::snprintf(line, sizeof line, "%s", doing[f.state]);
        groups[line]++;
    }
    std::fprintf(stderr, "cuda emulation: %s\nblock (%u, %u, %u) of %u threads: %s\n", running->name.c_str(),
                 block_index.x, block_index.y, block_index.z, threads, what);
    for (const auto &[line, count] : groups)
        std::fprintf(stderr, "  %4u threads %s\n", count, line.c_str());
    failed = true;
}

void barrier(site where)
{
    self->state = fiber::AT_BARRIER;
    self->where = where;
    /* Once a thread has returned nobody is released: run_block() reports it. */
    if (++waiting < threads)
        return leave();
    for (unsigned i = 0; i < threads; i++)
        if (fibers[i].where.line != where.line) {
            report("one barrier, reached at different places");
            return leave();
        }
    for (unsigned i = 0; i < threads; i++)
        fibers[i].state = fiber::RUNNABLE;
    waiting = 0;
}

unsigned lane()
{
    return unsigned(self - fibers) % WARP;
}

static unsigned members(unsigned mask)
{
    return mask == ~0u ? WARP : unsigned(__builtin_popcount(mask));
}

/* The last lane to arrive works out everybody's result. */
uint64_t exchange(unsigned mask, uint64_t value, unsigned from_lane, site where)
{
    fiber &me = *self;
    const unsigned number = unsigned(&me - fibers), first = number / WARP * WARP,
                   width = std::min(WARP, threads - first);
    fiber *warp = fibers + first;
    if (width < WARP)
        mask &= (1u << width) - 1; /* lanes beyond the block do not exist */
    me.mask = mask;
    me.value = value;
    me.from_lane = from_lane;
    me.where = where;
    me.state = fiber::IN_EXCHANGE;
    if (!(mask >> (number - first) & 1)) {
        report("a lane is missing from its own mask");
        leave();
        return 0;
    }
    unsigned &arrived = exchanging[number / WARP];
    if (++arrived < members(mask)) {
        leave();
        return me.result;
    }
    for (unsigned l = 0; l < width; l++) {
        if (!(mask >> l & 1))
            continue;
        if (warp[l].state != fiber::IN_EXCHANGE || warp[l].mask != mask) {
            leave();
            return me.result;
        }
        if (warp[l].where.line != where.line) {
            report("the lanes of one warp in different exchanges");
            leave();
            return 0;
        }
    }
    for (unsigned l = 0; l < width; l++)
        if (mask >> l & 1) {
            const unsigned from = warp[l].from_lane;
            warp[l].result = from < width && mask >> from & 1 ? warp[from].value : ~uint64_t(0);
            warp[l].state = fiber::RUNNABLE;
        }
    arrived -= members(mask);
    return me.result;
}

/* --- Launching ---------------------------------------------------------------------------------------------------- */

/* `count` numbers from `first` on, in the chosen order. */
static std::vector<unsigned> sequence(uint64_t count, unsigned first = 0)
{
    std::vector<unsigned> s(count);
    std::iota(s.begin(), s.end(), first);
    if (emulated_order == 1)
        std::reverse(s.begin(), s.end());
    if (emulated_order > 1)
        std::shuffle(s.begin(), s.end(), std::minstd_rand(unsigned(emulated_order) + first));
    return s;
}

/* The threads of a block, warp by warp. */
static std::vector<std::vector<unsigned>> warps_of(unsigned count)
{
    std::vector<std::vector<unsigned>> warps;
    for (unsigned w : sequence((count + WARP - 1) / WARP))
        warps.push_back(sequence(std::min(WARP, count - w * WARP), w * WARP));
    return warps;
}

static void forget_shared(size_t bytes)
{
    void *begin = __start_emulated_shared;
    size_t size = begin ? size_t(__stop_emulated_shared - __start_emulated_shared) : 0;
    /* 0xffffffff is a NaN. Not memset, of which AddressSanitizer sees that there are gaps between variables. */
    asm volatile("rep stosb" : "+D"(begin), "+c"(size) : "a"(0xff) : "memory");
    std::memset(draft_dynamic_shared, 0xff, bytes);
}

/* Runs the threads of a warp, in turn, until none of them can go on. */
static bool run_warp(const std::vector<unsigned> &warp)
{
    bool ever = false;
    for (bool moved = true; moved;) {
        moved = false;
        turns_end = warp.data() + warp.size();
        for (turn = warp.data(); turn != turns_end; turn++)
            if (fibers[*turn].state == fiber::RUNNABLE && !failed) {
                moved = ever = true;
                resume(fibers[*turn]);
            }
    }
    return ever;
}

/* A warp runs ahead as far as a barrier lets it: if one is missing, it overtakes those that come later. */
static void run_block(const std::vector<std::vector<unsigned>> &warps)
{
    living = threads;
    waiting = 0;
    std::fill(exchanging, exchanging + (threads + WARP - 1) / WARP, 0);
    for (unsigned i = 0; i < threads; i++)
        fibers[i].state = fiber::RUNNABLE;
    for (bool moved = true; living && moved && !failed;) {
        moved = false;
        for (const std::vector<unsigned> &warp : warps)
            moved = run_warp(warp) || moved;
    }
    if (living && !failed)
        report("not every thread gets here");
    for (unsigned i = 0; living && i < threads; i++)
        abandon(fibers[i]);
}

static void run(const emulated_launch &l)
{
    if (first_error == cudaErrorLaunchFailure)
        return;
    running = &l;
    block_size = l.block;
    grid_size = l.grid;
    threads = l.block.x * l.block.y * l.block.z;
    failed = false;
    if (__asan_poison_memory_region) {
        __asan_unpoison_memory_region(draft_dynamic_shared, MOST_SHARED);
        __asan_poison_memory_region(draft_dynamic_shared + l.shared, MOST_SHARED - l.shared);
    }
    for (unsigned i = 0; i < threads; i++)
        fibers[i].index = {i % l.block.x, i / l.block.x % l.block.y, i / (l.block.x * l.block.y)};
    const std::vector<std::vector<unsigned>> warps = warps_of(threads);
    for (unsigned b : sequence(uint64_t(l.grid.x) * l.grid.y * l.grid.z)) {
        block_index = {b % l.grid.x, b / l.grid.x % l.grid.y, b / (l.grid.x * l.grid.y)};
        forget_shared(l.shared);
        run_block(warps);
        if (failed) {
            first_error = cudaErrorLaunchFailure;
            return;
        }
    }
}

static cudaError_t check(dim3 grid, dim3 block, size_t shared)
{
    const uint64_t size = uint64_t(block.x) * block.y * block.z;
    if (size == 0 || size > MOST_THREADS || block.z > 64 || grid.x == 0 || grid.x > INT32_MAX || grid.y == 0 ||
        grid.y > 65535 || grid.z == 0 || grid.z > 65535)
        return cudaErrorInvalidConfiguration;
    return shared > MOST_SHARED ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t launch(const char *name, dim3 grid, dim3 block, size_t shared, cudaStream_t stream, void *arguments,
                   void (*call)(void *arguments), void (*release)(void *arguments))
{
    const cudaError_t refused = check(grid, block, shared);
    auto *l = new emulated_launch{name, grid, block, shared, arguments, call, release};
    if (refused != cudaSuccess) {
        std::fprintf(stderr, "cuda emulation: %s\ngrid (%u, %u, %u), block (%u, %u, %u), %zu bytes shared: refused\n",
                     name, grid.x, grid.y, grid.z, block.x, block.y, block.z, shared);
        first_error = first_error == cudaSuccess ? refused : first_error;
        emulated_free(l);
        return refused;
    }
    if (emulated_submit) {
        emulated_submit(stream, l);
        return cudaSuccess;
    }
    run(*l);
    emulated_free(l);
    return first_error;
}
} // namespace emulation

void emulated_run(const struct emulated_launch *launch)
{
    emulation::run(*launch);
}

void emulated_free(struct emulated_launch *launch)
{
    launch->release(launch->arguments);
    delete launch;
}

const char *emulated_name(const struct emulated_launch *launch)
{
    return launch->name.c_str();
}

int emulated_take_error(void)
{
    return std::exchange(emulation::first_error, cudaSuccess);
}
