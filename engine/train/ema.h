/*
 * An exponential moving average of the trained parameters, beside them: after each update
 *   average += (1 - decay) * (parameter - average)
 * as torch_ema and diffusers' EMAModel compute it with a constant decay (neither's ramp of the first updates). It
 * begins as the parameters themselves. An update that is skipped leaves it alone.
 *
 * Ownership: the averages live in the arena given, or beside the parameters on their device. Thread: one.
 */
#ifndef DRAFT_TRAIN_EMA_H
#define DRAFT_TRAIN_EMA_H

#include "backend/backend.h"
#include "train/trained.h"

struct draft_ema {
    const struct draft_trained *of;
    double decay;
    float **average; /* one for each parameter, of its shape */
};

/* `trained` must outlive it. NULL when memory is out. */
struct draft_ema *draft_ema_create(const struct draft_trained *trained, double decay, struct draft_arena *arena,
                                   struct draft_error *err);
bool draft_ema_update(struct draft_ema *ema, struct draft_error *err); /* never fails on the host */
/* Exchanges the parameters' values with their averages, and back again when called a second time. */
bool draft_ema_swap(struct draft_ema *ema, struct draft_backend *backend, struct draft_error *err);

#endif
