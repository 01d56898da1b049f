/* Whole trajectories under eps(x, t) = sin x + cos(t / 1000), by our samplers' own graph ops, beside diffusers'
 * schedulers. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden.h"
#include "sampler/sampler.h"

static const double BOUND = 1e-5;

/* Ours for a class of diffusers' and its use_karras_sigmas. */
static const struct draft_sampler *sampler_of(const char *config)
{
    static const struct {
        const char *class_name;
        const struct draft_sampler *plain, *karras;
    } classes[] = {
        {"DDIMScheduler", &draft_sampler_ddim, NULL},
        {"PNDMScheduler", &draft_sampler_pndm, NULL},
        {"EulerDiscreteScheduler", &draft_sampler_euler, &draft_sampler_euler_karras},
        {"EulerAncestralDiscreteScheduler", &draft_sampler_euler_a, NULL},
        {"DPMSolverMultistepScheduler", &draft_sampler_dpmpp_2m, &draft_sampler_dpmpp_2m_karras},
    };
    json_t *root = json_loads(config, 0, NULL);
    const char *class_name = json_string_value(json_object_get(root, "_class_name"));
    const struct draft_sampler *found = NULL;
    for (size_t i = 0; class_name && i < sizeof classes / sizeof *classes; i++)
        if (strcmp(classes[i].class_name, class_name) == 0)
            found = json_is_true(json_object_get(root, "use_karras_sigmas")) ? classes[i].karras : classes[i].plain;
    json_decref(root);
    return found;
}

/* The network of the fixture. */
static struct draft_tensor *network(struct draft_graph *g, double timestep, const struct draft_tensor *x)
{
    struct draft_tensor *m = x ? draft_new(g, DRAFT_F32, x->rank, x->dim) : NULL;
    const float *in = draft_read(g, x);
    float *out = draft_write(g, m);
    for (int64_t i = 0; in && out && i < draft_tensor_count(m); i++)
        out[i] = (float)(sin((double)in[i]) + cos(timestep / 1000));
    return out && draft_written(g, m, out) ? m : NULL;
}

/* Layouts do not matter here: everything is per number. */
static void run(struct golden *t, const struct draft_sampler_plan *plan, const float *noise, const float *fresh,
                int64_t numbers, float *out)
{
    struct draft_graph *g = &t->g;
    struct draft_sampler_history history;
    draft_graph_reset(g, NULL);
    bool was = draft_no_grad(g);
    struct draft_tensor *x = draft_new(g, DRAFT_F32, 1, &numbers), *z = draft_new(g, DRAFT_F32, 1, &numbers);
    if (x && z && draft_sampler_history_make(g, plan, x, &history) && golden_give(t, x, noise))
        x = draft_sampler_start(g, plan, x);
    struct draft_tensor *at = draft_sampler_numbers(g);
    for (int k = 0; k < plan->count && draft_graph_ok(g); k++) {
        struct draft_sampler_step placed, *step = &placed;
        if (!draft_sampler_place(g, &plan->step[k], at, step))
            break;
        struct draft_tensor *m = network(g, step->timestep, draft_sampler_input(g, step, x));
        struct draft_predicted predicted = draft_sampler_predict(g, plan, step, x, m);
        if (fresh)
            golden_give(t, z, fresh + k * numbers);
        x = draft_sampler_advance(g, plan, step, x, m, &predicted, &history, z);
        const float *ours = draft_read(g, x);
        if (ours)
            memcpy(out + k * numbers, ours, (size_t)numbers * sizeof *out);
    }
    g->recording = was;
}

/* <name>/<count>/noise, timesteps, x and, for an ancestral sampler, fresh. */
static void trajectory(struct golden *t, const struct draft_safetensors *file, const char *name, int count,
                       const struct draft_sampler_plan *plan)
{
    char key[96];
    int64_t calls = 0, total = 0, numbers = 0;
    float *part[4] = {NULL}; /* noise, timesteps, x [calls, 1, c, h, w], fresh of the same shape */
    static const char *const parts[] = {"noise", "timesteps", "x", "fresh"};
    int64_t *const sizes[] = {&numbers, &calls, &total, NULL};
    for (int i = 0; i < 4; i++) {
        snprintf(key, sizeof key, "%s/%d/%s", name, count, parts[i]);
        if (i < 3 || draft_safetensors_find(file, key))
            part[i] = golden_plain(t, file, key, sizes[i]);
    }
    if (part[0] && part[1] && part[2] && calls == plan->count) {
        float *ours = calloc((size_t)total, sizeof *ours);
        double apart = 0;
        for (int64_t k = 0; k < calls; k++)
            apart = fmax(apart, fabs(plan->step[k].timestep - part[1][k]) / fmax(1, part[1][k]));
        run(t, plan, part[0], part[3], numbers, ours);
        golden_row(t, GOLDEN_OTHER, apart, BOUND, "%s/%d/timesteps", name, count);
        golden_row(t, GOLDEN_FORWARD, golden_relative(ours, part[2], total), BOUND, "%s/%d/x", name, count);
        free(ours);
    } else {
        golden_fail(t, "%s: %d steps are %lld calls in the file and %d here", name, count, (long long)calls,
                    plan->count);
    }
    for (int i = 0; i < 4; i++)
        free(part[i]);
}

static void configuration(struct golden *t, const struct draft_safetensors *file, const char *name, const char *config)
{
    struct draft_scheduler scheduler = {0};
    struct draft_sampler_plan plan;
    const struct draft_sampler *sampler = sampler_of(config);
    if (!sampler) {
        golden_fail(t, "%s: no sampler of ours does this", name);
        return;
    }
    bool ok = draft_scheduler_parse(&scheduler, config, &t->error);
    for (int count = 1; ok && count <= 1000; count++) {
        char key[96];
        snprintf(key, sizeof key, "%s/%d/x", name, count);
        if (!draft_safetensors_find(file, key))
            continue;
        ok = draft_sampler_plan_make(&plan, sampler, &scheduler, count, &t->error);
        if (ok) {
            trajectory(t, file, name, count, &plan);
            draft_sampler_plan_free(&plan);
        }
    }
    golden_ok(t);
    draft_scheduler_close(&scheduler);
}

void golden_samplers(struct golden *t, const struct draft_safetensors *file)
{
    char last[64] = "";
    for (int i = 0; i < draft_safetensors_count(file); i++) {
        const char *name = draft_safetensors_at(file, i)->name;
        char of[64];
        snprintf(of, sizeof of, "%.*s", (int)strcspn(name, "/"), name);
        if (strcmp(last, of) == 0)
            continue;
        snprintf(last, sizeof last, "%s", of);
        const char *config = draft_safetensors_metadata(file, last);
        if (config)
            configuration(t, file, last, config);
        else
            golden_fail(t, "%s: no configuration in the metadata", last);
    }
}
