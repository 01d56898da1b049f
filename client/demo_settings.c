#include "demo_settings.h"

static const double sweep[] = {2, 0.25, 0.1, 0.03, 0};

/* What both have: the same small training, so that their figures can be compared. */
#define BOTH                                                                                                           \
    .prompt = "an animal", .sampling_steps = 10, .truncation_steps = 1, .batch = 8, .micro_batch = 8, .rank = 8,       \
    .learning_rate = 1e-3, .guidance = 5, .warmup = 5, .eval_every = 10, .seed = 0, .grid_seeds = 8

const struct draft_demo_settings draft_demo_single = {
    BOTH, .steps = 120, .eval_seeds = 16, .kl_coeff = 0.1, .minutes = 2,
};

const struct draft_demo_settings draft_demo_sweep = {
    BOTH, .steps = 160, .eval_seeds = 32, .sweep = sweep, .sweep_count = sizeof sweep / sizeof sweep[0], .minutes = 4,
};
