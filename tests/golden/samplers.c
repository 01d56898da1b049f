/* Whole trajectories under eps(x, t) = sin x + cos(t / 1000), beside diffusers' schedulers. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden.h"
#include "sampler/scheduler.h"

static const double TRAJECTORY_BOUND = 1e-5;

/* Our run beside <name>/<count>/timesteps and x; timesteps must be equal, so any difference is a whole one. */
static void trajectory(struct golden *t, const struct draft_safetensors *file, const char *name, int count,
                       const struct draft_sampler_step *steps)
{
    char key[96];
    int64_t n = 0, total = 0;
    snprintf(key, sizeof key, "%s/%d/noise", name, count);
    float *noise = golden_plain(t, file, key, NULL);
    snprintf(key, sizeof key, "%s/%d/timesteps", name, count);
    float *timesteps = golden_plain(t, file, key, &n);
    snprintf(key, sizeof key, "%s/%d/x", name, count);
    float *ref = golden_plain(t, file, key, &total); /* [count, 1, c, h, w] */
    if (noise != NULL && timesteps != NULL && ref != NULL && n == count) {
        int64_t numbers = total / count; /* layouts do not matter here: everything is per number */
        double *x = malloc((size_t)numbers * sizeof *x);
        float *ours = malloc((size_t)total * sizeof *ours);
        int wrong = 0;
        for (int64_t i = 0; i < numbers; i++)
            x[i] = noise[i];
        for (int k = 0; k < count; k++) {
            const struct draft_sampler_step *s = &steps[k];
            wrong += s->timestep != (int)timesteps[k];
            for (int64_t i = 0; i < numbers; i++) {
                double m = sin(x[i]) + cos(s->timestep / 1000.0);
                double x0 = s->x0_x * x[i] + s->x0_m * m, eps = s->eps_x * x[i] + s->eps_m * m;
                x[i] = sqrt(s->alpha_prev) * x0 + sqrt(1 - s->alpha_prev) * eps;
                ours[k * numbers + i] = (float)x[i];
            }
        }
        golden_row(t, GOLDEN_OTHER, wrong, 0, "%s/%d/timesteps", name, count);
        golden_row(t, GOLDEN_FORWARD, golden_relative(ours, ref, total), TRAJECTORY_BOUND, "%s/%d/x", name, count);
        free(x);
        free(ours);
    }
    free(noise);
    free(timesteps);
    free(ref);
}

static void scheduler(struct golden *t, const struct draft_safetensors *file, const char *name, const char *config)
{
    static const int COUNTS[] = {4, 20, 50};
    struct draft_sampler_step steps[50];
    struct draft_scheduler scheduler = {0};
    if (!draft_scheduler_parse(&scheduler, config, &t->error)) {
        golden_ok(t);
        return;
    }
    for (int i = 0; i < 3; i++) {
        if (!draft_scheduler_steps(&scheduler, COUNTS[i], steps, &t->error)) {
            golden_ok(t);
            break;
        }
        trajectory(t, file, name, COUNTS[i], steps);
    }
    draft_scheduler_close(&scheduler);
}

void golden_samplers(struct golden *t, const struct draft_safetensors *file)
{
    char last[64] = "";
    for (int i = 0; i < draft_safetensors_count(file); i++) {
        const char *name = draft_safetensors_at(file, i)->name;
        int length = (int)strcspn(name, "/");
        char scheduler_name[64];
        snprintf(scheduler_name, sizeof scheduler_name, "%.*s", length, name);
        if (strcmp(last, scheduler_name) == 0)
            continue;
        snprintf(last, sizeof last, "%s", scheduler_name);
        const char *config = draft_safetensors_metadata(file, last);
        json_t *root = config != NULL ? json_loads(config, 0, NULL) : NULL;
        const char *class_name = json_string_value(json_object_get(root, "_class_name"));
        if (class_name == NULL)
            golden_fail(t, "%s: no configuration in the metadata", last);
        else if (strcmp(class_name, "DDIMScheduler") != 0)
            golden_note("%-40s %s: not in this version", last, class_name);
        else
            scheduler(t, file, last, config);
        json_decref(root);
    }
}
