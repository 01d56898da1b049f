/*
 * Samplers: a sampler is one row in a table (samplers.def) and one file, which plans a run of T steps from a schedule.
 * All of them are linear multistep methods: the next x is a weighted sum of x_t, the network's output (or the x_0 and
 * epsilon it means), what earlier calls gave, and fresh noise. So a file only computes weights; taking a step is graph
 * ops, written once (step.c), and gradients go through every term of it.
 *
 * Numbers are diffusers': its schedulers' timesteps, sigmas and spacings, with the rounding it stores them with.
 */
#ifndef DRAFT_SAMPLER_SAMPLER_H
#define DRAFT_SAMPLER_SAMPLER_H

#include <stdint.h>

#include "autograd/graph.h"
#include "sampler/scheduler.h"

enum { DRAFT_SAMPLER_PAST = 3 };

/* One call of the network. x_t = signal * x_0 + noise * epsilon, so from x_t and the network's output m
 *   x_0 = x0_x * x_t + x0_m * m      epsilon = eps_x * x_t + eps_m * m
 * and the sampler goes on with
 *   x = to_x0 x_0 + to_eps epsilon + to_x x_t + to_m m + sum_k to_past[k] past[k] + to_fresh * N(0, 1). */
struct draft_sampler_step {
    double timestep;      /* need not be whole */
    double signal, noise; /* alpha_t, sigma_t where x keeps its variance (DDIM); 1, sigma where it grows (Euler) */
    double input_scale;   /* the network is given x_t * input_scale */
    double x0_x, x0_m, eps_x, eps_m;
    double to_x0, to_eps, to_x, to_m, to_past[DRAFT_SAMPLER_PAST], to_fresh;
    bool keep_x, keep_m, keep_x0; /* what later calls need of this one; past[0] is what was kept last */
    struct draft_tensor *at;      /* its numbers, for the ops below: draft_sampler_place(); NULL in a plan */
};

struct draft_sampler;

struct draft_sampler_plan {
    const struct draft_sampler *sampler;
    int count;                       /* calls of the network: T, or one more (PNDM) */
    double init_noise;               /* x_T = init_noise * N(0, 1) */
    double clip;                     /* x_0 is clamped to +- clip before anything uses it; infinite: it is not */
    struct draft_sampler_step *step; /* [count], owned */
};

struct draft_sampler {
    const char *name;  /* "dpmpp_2m_karras" */
    const char *title; /* "DPM++ 2M Karras": as other programs write it into pictures */
    bool karras;
    int past; /* how many values of earlier calls it needs, at most DRAFT_SAMPLER_PAST */
    /* Fills a plan that has room for T + 1 calls, count T, init_noise 1 and no clip. Coefficients of x_0 and epsilon
     * come from draft_step_level() (levels.h). */
    bool (*plan)(const struct draft_sampler *sampler, const struct draft_scheduler *scheduler, int T,
                 struct draft_sampler_plan *plan, struct draft_error *err);
};

#define DRAFT_SAMPLER(name) extern const struct draft_sampler draft_sampler_##name;
#include "sampler/samplers.def"
#undef DRAFT_SAMPLER

/* "" and NULL: DDIM. NULL result: none has this name; the sentence lists those there are. */
const struct draft_sampler *draft_sampler_find(const char *name, struct draft_error *err);

/* A run of T steps. Refused: more steps than the model was trained on, an offset that leads beyond them, a schedule the
 * sampler cannot follow, a step whose x_0 the prediction cannot give (epsilon at zero signal). free() with
 * draft_sampler_plan_free(); after failure there is nothing to free. */
bool draft_sampler_plan_make(struct draft_sampler_plan *plan, const struct draft_sampler *sampler,
                             const struct draft_scheduler *scheduler, int T, struct draft_error *err);
void draft_sampler_plan_free(struct draft_sampler_plan *plan); /* zeroed is fine */

/* --- A step, in graph ops ----------------------------------------------------------------------------------------- */

/* A step of the plan with its numbers where the backend computes, F32 [DRAFT_SAMPLER_NUMBERS], where the ops read them:
 * steps that are placed in one tensor in turn, and have the same draft_sampler_form(), are the same launches. */
enum { DRAFT_SAMPLER_NUMBERS = 12 + DRAFT_SAMPLER_PAST };
struct draft_tensor *draft_sampler_numbers(struct draft_graph *g); /* in the step arena; NULL: the graph failed */
bool draft_sampler_place(struct draft_graph *g, const struct draft_sampler_step *planned, struct draft_tensor *at,
                         struct draft_sampler_step *step);
/* Which ops a step takes: which of its numbers are 0 or 1, and what it keeps. */
uint32_t draft_sampler_form(const struct draft_sampler_step *step);
/* The timestep, [1]. */
struct draft_tensor *draft_sampler_timestep(struct draft_graph *g, const struct draft_sampler_step *step);

/* x_T from standard normal noise; x_t as the network is to see it. Either may be its argument. */
struct draft_tensor *draft_sampler_start(struct draft_graph *g, const struct draft_sampler_plan *plan,
                                         struct draft_tensor *noise);
struct draft_tensor *draft_sampler_input(struct draft_graph *g, const struct draft_sampler_step *step,
                                         struct draft_tensor *x);

/* What the network's output m at x_t means. draft_sampler_epsilon gives the first alone. */
struct draft_predicted {
    struct draft_tensor *eps, *x0;
};
struct draft_predicted draft_sampler_predict(struct draft_graph *g, const struct draft_sampler_plan *plan,
                                             const struct draft_sampler_step *step, struct draft_tensor *x,
                                             struct draft_tensor *m);
struct draft_tensor *draft_sampler_epsilon(struct draft_graph *g, const struct draft_sampler_step *step,
                                           struct draft_tensor *x, struct draft_tensor *m);

/* What earlier calls gave, newest first; zeros before the first. While nothing is recorded, values are copied into
 * tensors made here, so that whoever steps may forget everything else; while recording they are the tape's own. A run
 * may go from the first to the second, never back. */
struct draft_sampler_history {
    struct draft_tensor *past[DRAFT_SAMPLER_PAST];
};
/* In the step arena. False: the graph failed. */
bool draft_sampler_history_make(struct draft_graph *g, const struct draft_sampler_plan *plan,
                                const struct draft_tensor *x, struct draft_sampler_history *history);

/* The next x, and `history` with what this call leaves to later ones. fresh: N(0, 1) of x's shape, needed where
 * step->to_fresh is not 0. */
struct draft_tensor *draft_sampler_advance(struct draft_graph *g, const struct draft_sampler_plan *plan,
                                           const struct draft_sampler_step *step, struct draft_tensor *x,
                                           struct draft_tensor *m, const struct draft_predicted *predicted,
                                           struct draft_sampler_history *history, struct draft_tensor *fresh);

#endif
