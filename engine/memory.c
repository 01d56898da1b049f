#include "state.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- What the machine has ----------------------------------------------------------------------------------------- */

/* A control group's limit; "max" and absent files mean none. */
static size_t limit_in_file(const char *path)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return SIZE_MAX;
    unsigned long long value;
    int found = fscanf(file, "%llu", &value);
    fclose(file);
    return found == 1 && value > 0 && value < SIZE_MAX ? (size_t)value : SIZE_MAX;
}

size_t draft_memory_limit(void)
{
    size_t limit = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    size_t group = limit_in_file("/sys/fs/cgroup/memory.max");
    size_t old_group = limit_in_file("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    limit = group < limit ? group : limit;
    return old_group < limit ? old_group : limit;
}

/* --- What the job needs ------------------------------------------------------------------------------------------- */

static void no_noise(void *context, int call, int first, int n, size_t numbers, float *out)
{
    (void)context;
    (void)call;
    (void)first;
    memset(out, 0, (size_t)n * numbers * sizeof *out);
}

/* The step arena's high-water mark of one sample on square latents with the job's K steps. */
static bool trial(struct draft_engine *e, struct draft_arena *arena, int64_t side, size_t *bytes,
                  struct draft_error *err)
{
    struct draft_graph graph;
    if (!draft_graph_init(&graph, e->backend, arena, err))
        return false;
    struct draft_plus dp = draft_engine_algorithm(e);
    dp.graph = &graph;
    struct draft_sampler_plan last = e->plan; /* its last K calls */
    last.count = dp.truncation_steps;
    last.step += e->plan.count - last.count;
    dp.plan = &last;
    dp.height = dp.width = side;
    dp.micro_batch = 1;
    size_t numbers = (size_t)(side * side * e->pipeline.unet_info.in_channels);
    float *noise = calloc(numbers, sizeof *noise);
    const float **renoise = calloc((size_t)dp.lv_copies + 1, sizeof *renoise);
    bool ok = noise && renoise;
    if (!ok)
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for a trial step");
    for (int i = 0; ok && i < dp.lv_copies; i++)
        renoise[i] = noise;
    struct draft_plus_batch batch = {
        .n = 1, .prompts = e->config.prompts, .noise = noise, .renoise = renoise, .fresh = {no_noise, NULL, 0}};
    struct draft_plus_numbers values;
    draft_adamw_zero_grad(e->opt);
    ok = ok && draft_plus_step(&dp, &batch, &values, err);
    *bytes = draft_arena_high_water(arena);
    free(renoise);
    free(noise);
    draft_graph_finish(&graph);
    return ok;
}

/* Activations grow with the area and have a part that does not (contexts, the reward model's own picture size): two
 * sizes give both. The larger one is such that the backend prepares the weights in the forms it will use. */
bool draft_memory_estimate(struct draft_engine *e, uint64_t *bytes, struct draft_error *err)
{
    int64_t small = e->pipeline.unet_info.side_multiple;
    int64_t side[2] = {small, e->latent_height < 4 * small || e->latent_width < 4 * small ? 2 * small : 4 * small};
    size_t limit = draft_memory_limit(), at[2];
    for (int i = 0; i < 2; i++) {
        struct draft_arena *arena = draft_arena_create("trial", limit, err);
        bool ok = arena && trial(e, arena, side[i], &at[i], err);
        draft_arena_destroy(arena);
        if (!ok) {
            draft_error_prefix(err, "a trial step: ");
            return false;
        }
    }
    double area[2] = {(double)(side[0] * side[0]), (double)(side[1] * side[1])};
    double slope = at[1] > at[0] ? (double)(at[1] - at[0]) / (area[1] - area[0]) : 0;
    double rest = (double)at[0] - slope * area[0];
    double sample = slope * (double)(e->latent_height * e->latent_width) + (rest > 0 ? rest : 0);
    double noise = (double)(e->latent_height * e->latent_width * e->pipeline.unet_info.in_channels) * sizeof(float) *
                   e->config.global_batch * (1 + e->config.lv_copies);
    double step = sample * e->config.micro_batch + noise;
    *bytes = (uint64_t)step + draft_arena_live(e->weights) + (e->base ? draft_arena_live(e->base) : 0) +
             draft_backend_prepared_bytes(e->backend);
    return true;
}
