/* The memory plan: a dry step is measured, and what it says decides how the job spends memory. */
#include "memory_plan.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/open.h"
#include "base/memory_limit.h"

/* --- What the job needs -------------------------------------------------------------------------------------------
 *
 * One micro-batch of the job, at its size, with its last steps, is run on a dry backend: the same ops ask for the same
 * memory in the same order, and nothing is computed. That also finds an op without gradient or a shape that does not
 * fit. Its 1 + K network calls stand for all T: the steps without gradient give back what they took.
 */

/* Settings that trade memory for something. */
struct setting {
    bool recompute;
    int micro_batch;
    int64_t height, width; /* of latents */
    size_t keep;           /* of forms that need not be kept */
};

static struct setting setting_of(const struct draft_engine *e)
{
    return (struct setting){e->config.recompute, e->config.micro_batch, e->latent_height, e->latent_width, 0};
}

static void no_noise(void *context, int call, int first, int n, size_t numbers, float *out)
{
    (void)context;
    (void)call;
    (void)first;
    memset(out, 0, (size_t)n * numbers * sizeof *out);
}

static bool dry_step(struct draft_engine *e, const struct setting *s, struct draft_graph *graph,
                     struct draft_error *err)
{
    struct draft_plus dp = draft_engine_algorithm(e);
    struct draft_sampler_plan last = e->plan;
    last.count = dp.truncation_steps < e->plan.count ? dp.truncation_steps + 1 : e->plan.count;
    last.step += e->plan.count - last.count;
    dp.graph = graph;
    dp.plan = &last;
    dp.progress = NULL;
    dp.recompute = s->recompute;
    dp.micro_batch = s->micro_batch;
    dp.height = s->height;
    dp.width = s->width;
    size_t numbers = (size_t)(s->height * s->width * e->pipeline.unet_info.in_channels) * (size_t)s->micro_batch;
    float *noise = calloc(numbers, sizeof *noise);
    const float **renoise = calloc((size_t)dp.lv_copies + 1, sizeof *renoise);
    const char **prompts = calloc((size_t)s->micro_batch, sizeof *prompts);
    bool ok = (noise && renoise && prompts) || draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for a trial step");
    for (int i = 0; ok && i < dp.lv_copies; i++)
        renoise[i] = noise;
    for (int i = 0; ok && i < s->micro_batch; i++)
        prompts[i] = e->config.prompts[i % e->config.prompt_count];
    struct draft_plus_batch batch = {
        .n = s->micro_batch, .prompts = prompts, .noise = noise, .renoise = renoise, .fresh = {no_noise, NULL, 0}};
    struct draft_plus_numbers values;
    ok = ok && draft_plus_step(&dp, &batch, &values, err);
    free(prompts);
    free(renoise);
    free(noise);
    return ok;
}

/* What an evaluation holds beside the arenas: the pictures of a prompt. */
static size_t evaluation_bytes(const struct draft_engine *e, const struct setting *s)
{
    int64_t factor = e->pipeline.vae_info.factor, picture = s->height * factor * s->width * factor * 3;
    bool held = e->lpips && e->config.evaluation.every >= 0;
    return held ? (size_t)(picture * e->config.evaluation.seeds) * sizeof(float) : 0;
}

/* What is remembered of prompts on a GPU, after a trial: neither in its arenas nor its backend's own. On the host it
 * takes pages only as prompts come: some megabytes at most, where a job has thousands. */
static size_t remembered_bytes(const struct draft_engine *e)
{
    size_t bytes = draft_prompt_memory_bytes(e->pipeline.contexts);
    for (int i = 0; i < e->scoring.terms; i++)
        bytes += draft_prompt_memory_bytes(e->scoring.term[i]->prompts);
    return bytes;
}

static const size_t PROGRAM = 4 << 20; /* stacks, relocated data of the libraries */

/* What the process holds already: models, adapter, optimizer, and everything small. */
static size_t standing_bytes(const struct draft_engine *e)
{
    struct mallinfo2 heap = mallinfo2();
    return PROGRAM + draft_arena_live(e->weights) + (e->base ? draft_arena_live(e->base) : 0) + heap.uordblks +
           heap.hblkhd;
}

/* Address space beyond what any machine has, since what does not fit is measured too; less where the process may not
 * have so much of it (ulimit -v, strict overcommit, the thread sanitizer). */
static struct draft_arena *trial_arena(const char *name, struct draft_error *err)
{
    struct draft_arena *arena = draft_arena_create(name, (size_t)1 << 42, NULL);
    return arena ? arena : draft_arena_create(name, (size_t)1 << 38, err);
}

static bool measure_on_host(struct draft_engine *e, const struct setting *s, uint64_t *bytes, struct draft_error *err)
{
    struct draft_backend_options options = {.threads = draft_backend_threads(e->backend),
                                            .isa = e->config.isa,
                                            .bf16 = e->config.precision == DRAFT_PRECISION_BF16,
                                            .dry = true};
    size_t standing = standing_bytes(e);
    struct draft_graph graph = {0};
    struct draft_arena *arena = trial_arena("trial", err);
    struct draft_backend *dry = arena ? draft_backend_create_cpu(&options, err) : NULL;
    bool ok = dry && draft_graph_init(&graph, dry, arena, err);
    if (ok) {
        graph.frees_activations = true;
        draft_backend_keep(dry, s->keep);
        ok = dry_step(e, s, &graph, err);
        *bytes = standing + evaluation_bytes(e, s) + draft_arena_high_water(arena) +
                 draft_arena_high_water(graph.notes) + draft_backend_prepared_bytes(dry) +
                 draft_backend_scratch_bytes(dry);
    }
    if (!ok)
        draft_error_prefix(err, "a trial step: ");
    if (dry)
        draft_graph_finish(&graph);
    draft_backend_destroy(dry);
    draft_arena_destroy(arena);
    return ok;
}

/* Of a GPU's memory: all that the trial allocates there, weights among it, beside what stands there already. */
static bool measure_on_gpu(struct draft_engine *e, const struct setting *s, uint64_t *bytes, struct draft_error *err)
{
    struct draft_graph graph = {0};
    struct draft_arena *arena = NULL;
    struct draft_backend *dry =
        draft_backend_open_dry(e->backend, getenv("DRAFT_CUDA_LIBRARIES"), &draft_services, err);
    bool ok = dry && (arena = draft_backend_arena(dry, "trial", SIZE_MAX / 4, err)) &&
              draft_graph_init(&graph, dry, arena, err);
    if (ok) {
        size_t used, peak;
        graph.frees_activations = true;
        graph.activations = e->graph.activations;
        ok = dry_step(e, s, &graph, err);
        draft_device_usage(dry, &used, &peak);
        *bytes = DRAFT_GPU_CONTEXT + e->gpu_standing + peak + remembered_bytes(e);
    }
    if (!ok)
        draft_error_prefix(err, "a trial step: ");
    if (dry)
        draft_graph_finish(&graph);
    draft_arena_destroy(arena);
    draft_backend_destroy(dry);
    return ok;
}

static bool measure(struct draft_engine *e, const struct setting *s, uint64_t *bytes, struct draft_error *err)
{
    return draft_backend_on_host(e->backend) ? measure_on_host(e, s, bytes, err) : measure_on_gpu(e, s, bytes, err);
}

/* --- What is made of it ------------------------------------------------------------------------------------------- */

static const double COMFORTABLE = 0.7; /* of the machine: files stay cached, and others live */
static const double POSSIBLE = 0.95;

/* What the job may take: of the GPU, what is free and what is its own already. */
static size_t limit_of(const struct draft_engine *e)
{
    if (draft_backend_on_host(e->backend))
        return e->config.memory_limit ? e->config.memory_limit : draft_memory_limit();
    size_t free_bytes, total, used, peak;
    if (e->config.gpu_memory || !draft_device_memory(e->backend, &free_bytes, &total, NULL))
        return e->config.gpu_memory;
    draft_device_usage(e->backend, &used, &peak);
    return free_bytes + used + DRAFT_GPU_CONTEXT;
}

static bool possible(const struct draft_engine *e)
{
    return (double)e->memory_bytes <= POSSIBLE * (double)limit_of(e);
}

/* "auto" is fast as long as that is possible: nobody else lives on a GPU. */
static bool plan_on_gpu(struct draft_engine *e, struct draft_error *err)
{
    struct setting s = setting_of(e);
    size_t peak;
    draft_device_usage(e->backend, &e->gpu_standing, &peak);
    s.recompute |= e->config.memory == DRAFT_MEMORY_LOW;
    if (!measure(e, &s, &e->memory_bytes, err))
        return false;
    if (e->config.memory == DRAFT_MEMORY_AUTO && !s.recompute && !possible(e)) {
        e->fast_bytes = e->memory_bytes;
        s.recompute = true;
        if (!measure(e, &s, &e->memory_bytes, err))
            return false;
    }
    e->config.memory = e->fast_bytes || e->config.memory == DRAFT_MEMORY_LOW ? DRAFT_MEMORY_LOW : DRAFT_MEMORY_FAST;
    e->config.recompute = s.recompute;
    return e->config.gpu_memory || draft_memory_check(e, err); /* planning only: draft_inspect checks */
}

bool draft_memory_plan(struct draft_engine *e, struct draft_error *err)
{
    struct draft_job_config *c = &e->config;
    size_t comfortable = (size_t)(COMFORTABLE * (double)limit_of(e));
    struct setting s = setting_of(e);
    if (!draft_backend_on_host(e->backend))
        return c->sample_only || plan_on_gpu(e, err);
    if (c->sample_only) {
        if (c->memory == DRAFT_MEMORY_LOW)
            draft_backend_keep(e->backend, 0);
        return true;
    }
    bool low = c->memory == DRAFT_MEMORY_LOW;
    if (!low) {
        if (!measure(e, &s, &e->memory_bytes, err))
            return false;
        low = c->memory == DRAFT_MEMORY_AUTO && e->memory_bytes > comfortable;
        e->fast_bytes = low ? e->memory_bytes : 0;
        s.keep = e->memory_bytes < comfortable ? comfortable - e->memory_bytes : 0;
    }
    if (low)
        s = (struct setting){true, s.micro_batch, s.height, s.width, 0};
    c->memory = low ? DRAFT_MEMORY_LOW : DRAFT_MEMORY_FAST;
    c->recompute = s.recompute;
    draft_backend_keep(e->backend, s.keep);
    return measure(e, &s, &e->memory_bytes, err);
}

static bool fits(struct draft_engine *e, const struct setting *s, uint64_t *bytes, struct draft_error *err)
{
    return measure(e, s, bytes, err) && (double)*bytes <= POSSIBLE * (double)limit_of(e);
}

/* The gentlest change that fits, as a sentence; every one more of them on top of those before. */
static void suggest(struct draft_engine *e, char *text, size_t size, struct draft_error *err)
{
    const double gib = 1 << 30;
    struct setting s = setting_of(e);
    uint64_t bytes;
    const char *low = e->config.memory == DRAFT_MEMORY_LOW ? "" : "memory \"low\"", *and = *low ? " and " : "";
    s.recompute = true;
    if (*low && fits(e, &s, &bytes, err)) {
        snprintf(text, size, "with %s it needs %.1f GiB", low, (double)bytes / gib);
        return;
    }
    const char *single = s.micro_batch > 1 ? "micro_batch 1" : "";
    s.micro_batch = 1;
    if (*single && fits(e, &s, &bytes, err)) {
        snprintf(text, size, "with %s%s%s it needs %.1f GiB", low, and, single, (double)bytes / gib);
        return;
    }
    int64_t multiple = e->pipeline.unet_info.side_multiple;
    int factor = e->pipeline.vae_info.factor;
    for (int eighths = 7; eighths >= 2; eighths--) {
        s.height = e->latent_height * eighths / 8 / multiple * multiple;
        s.width = e->latent_width * eighths / 8 / multiple * multiple;
        if (s.height == 0 || s.width == 0 || !fits(e, &s, &bytes, err))
            continue;
        snprintf(text, size, "with %s%s%s%ssize %dx%d it needs %.1f GiB", low, and, single, *single ? " and " : "",
                 (int)s.height * factor, (int)s.width * factor, (double)bytes / gib);
        return;
    }
    snprintf(text, size, "no setting makes it fit");
}

bool draft_memory_check(struct draft_engine *e, struct draft_error *err)
{
    const double gib = 1 << 30;
    char what[256];
    bool host = draft_backend_on_host(e->backend);
    if (possible(e))
        return true;
    suggest(e, what, sizeof what, NULL);
    return draft_fail_field(err, DRAFT_OUT_OF_MEMORY, "spec.memory",
                            "the job would need %.1f GiB of %smemory and %s %.1f; %s", (double)e->memory_bytes / gib,
                            host ? "" : "GPU ",
                            host                   ? "this machine has"
                            : e->config.gpu_memory ? "the largest GPU has"
                                                   : "on this GPU it can have",
                            (double)limit_of(e) / gib, what);
}

void draft_engine_say_what_fits(struct draft_engine *e, struct draft_error *err)
{
    char what[256];
    size_t used = strlen(err->message);
    if (err->code != DRAFT_OUT_OF_MEMORY || draft_backend_on_host(e->backend))
        return;
    suggest(e, what, sizeof what, NULL);
    snprintf(err->message + used, sizeof err->message - used, " (estimated were %.1f GiB, and it can have %.1f; %s)",
             (double)e->memory_bytes / (1 << 30), (double)limit_of(e) / (1 << 30), what);
}
