#include "sampler/sampler.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct draft_sampler *const samplers[] = {
#define DRAFT_SAMPLER(name) &draft_sampler_##name,
#include "sampler/samplers.def"
#undef DRAFT_SAMPLER
};
enum { SAMPLERS = sizeof samplers / sizeof *samplers };

const struct draft_sampler *draft_sampler_find(const char *name, struct draft_error *err)
{
    if (!name || !name[0])
        return &draft_sampler_ddim;
    char list[256];
    size_t used = 0;
    for (int i = 0; i < SAMPLERS; i++) {
        if (strcmp(name, samplers[i]->name) == 0)
            return samplers[i];
        const char *before = i == 0 ? "" : i == SAMPLERS - 1 ? " or " : ", ";
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", before, samplers[i]->name);
    }
    draft_fail(err, DRAFT_INVALID_ARGUMENT, "there is no sampler \"%.40s\"; use %s", name, list);
    return NULL;
}

static bool usable(const struct draft_sampler_step *step, const struct draft_scheduler *scheduler, int T,
                   struct draft_error *err)
{
    int n = scheduler->train_timesteps;
    if (!(step->timestep >= 0 && step->timestep <= n - 1))
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "%d sampling steps with the scheduler's steps_offset %d lead to timestep %g of %d; ask for "
                          "fewer steps",
                          T, scheduler->steps_offset, step->timestep, n);
    double sum = step->to_x0 + step->to_eps + step->to_x + step->to_m + step->to_fresh;
    for (int k = 0; k < DRAFT_SAMPLER_PAST; k++)
        sum += step->to_past[k];
    if (!isfinite(step->x0_x) || !isfinite(step->x0_m) || !isfinite(step->eps_x) || !isfinite(step->eps_m))
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "timestep %g has a signal of %g, from which this scheduler's prediction_type cannot give x_0 "
                          "and epsilon; such a schedule needs v_prediction",
                          step->timestep, step->signal);
    if (!isfinite(sum))
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "with %d sampling steps two of them fall on one timestep, %g, between which this sampler "
                          "cannot step; ask for fewer steps",
                          T, step->timestep);
    return true;
}

bool draft_sampler_plan_make(struct draft_sampler_plan *plan, const struct draft_sampler *sampler,
                             const struct draft_scheduler *scheduler, int T, struct draft_error *err)
{
    int n = scheduler->train_timesteps;
    assert(sampler->past <= DRAFT_SAMPLER_PAST);
    *plan = (struct draft_sampler_plan){.sampler = sampler, .count = T, .init_noise = 1, .clip = INFINITY};
    if (T < 1 || T > n)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "%d sampling steps are not possible: this model was trained on %d timesteps; ask for 1 to %d",
                          T, n, n);
    plan->step = calloc((size_t)T + 1, sizeof *plan->step);
    bool ok = plan->step || draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for %d sampling steps", T);
    ok = ok && sampler->plan(sampler, scheduler, T, plan, err);
    for (int i = 0; ok && i < plan->count; i++)
        ok = usable(&plan->step[i], scheduler, T, err);
    if (!ok)
        draft_sampler_plan_free(plan);
    return ok;
}

void draft_sampler_plan_free(struct draft_sampler_plan *plan)
{
    free(plan->step);
    plan->step = NULL;
}
