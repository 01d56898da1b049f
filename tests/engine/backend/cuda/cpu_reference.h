/* What the CPU engine computes: an op and its gradients, run through the graph. */
#ifndef TESTS_ENGINE_BACKEND_CUDA_CPU_REFERENCE_H
#define TESTS_ENGINE_BACKEND_CUDA_CPU_REFERENCE_H

#include "engine/backend/cuda/emulated.h"

#include "autograd/graph.h"
#include "backend/backend.h"
#include "ops/ops.h"

static struct draft_backend *cpu;

static int open_cpu(void **state)
{
    (void)state;
    struct draft_error err = {0};
    cpu = draft_backend_create_cpu(&(struct draft_backend_options){.threads = 1}, &err);
    return cpu ? 0 : -1;
}

static int close_cpu(void **state)
{
    (void)state;
    draft_backend_destroy(cpu);
    return 0;
}

/* An op under test: inputs in, its output back. `context` holds its numbers. */
typedef struct draft_tensor *(*cpu_op)(struct draft_graph *g, struct draft_tensor **in, const void *context);

enum { MOST_INPUTS = 3 };

/* The forward result and, given dy, the gradient of every input. */
struct cpu_result {
    int64_t count;
    float *y, *gradient[MOST_INPUTS];
};

static inline struct draft_tensor input(enum draft_dtype type, int rank, const int64_t *dim, void *data)
{
    struct draft_tensor t = {.dtype = type, .rank = rank, .data = data, .needs_grad = type == DRAFT_F32};
    for (int i = 0; i < rank; i++)
        t.dim[i] = dim[i];
    return t;
}

static inline float *copied(int64_t n, const float *from)
{
    float *p = memory((size_t)n * sizeof *p);
    memcpy(p, from, (size_t)n * sizeof *p);
    return p;
}

/* dy NULL: forward only. */
static inline struct cpu_result on_cpu(cpu_op op, const void *context, struct draft_tensor *in, int inputs,
                                       const float *dy)
{
    struct draft_error err = {0};
    struct draft_arena *arena = draft_arena_create("step", (size_t)64 << 20, &err);
    struct draft_graph g;
    assert_true(arena && draft_graph_init(&g, cpu, arena, &err));
    g.recording = dy != NULL;
    struct draft_tensor *pointers[MOST_INPUTS] = {0};
    for (int i = 0; i < inputs; i++)
        pointers[i] = &in[i];
    struct draft_tensor *y = op(&g, pointers, context);
    if (!y)
        fail_msg("%s: %s", of_case, g.error.message);
    struct cpu_result r = {.count = draft_tensor_count(y)};
    r.y = copied(r.count, draft_f32(y));
    if (dy) {
        assert_true(draft_graph_backward(&g, y, dy));
        for (int i = 0; i < inputs; i++)
            if (in[i].needs_grad)
                r.gradient[i] = copied(draft_tensor_count(&in[i]), in[i].grad);
    }
    draft_graph_finish(&g);
    draft_arena_destroy(arena);
    return r;
}

static inline double mean_square_root(int64_t n, const float *x)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum / (double)n);
}

/* want + before: what a gradient that is added to must become. */
static inline float *added(int64_t n, const float *before, const float *more)
{
    float *sum = memory((size_t)n * sizeof *sum);
    for (int64_t i = 0; i < n; i++)
        sum[i] = before[i] + more[i];
    return sum;
}

#endif
