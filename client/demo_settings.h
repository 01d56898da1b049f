/* The demo's settings, all in one place. Measured on 2 cores; see the README's figures for what they show. */
#ifndef DRAFT_CLIENT_DEMO_SETTINGS_H
#define DRAFT_CLIENT_DEMO_SETTINGS_H

#include <stdint.h>

struct draft_demo_settings {
    const char *prompt;
    int steps;            /* updates */
    int sampling_steps;   /* T */
    int truncation_steps; /* K */
    int batch, micro_batch;
    int rank;
    double learning_rate, guidance;
    int warmup;
    int eval_every, eval_seeds;
    uint64_t seed;
    double kl_coeff;     /* of the plain demo */
    const double *sweep; /* kl_coeff of each job of the sweep, falling; 0 is vanilla DRaFT */
    int sweep_count;
    int grid_seeds; /* rows of grid.png */
    double minutes; /* what the training of one job takes on 2 cores, for the estimate before the first step */
};

extern const struct draft_demo_settings draft_demo_single, draft_demo_sweep;

#endif
