/*
 * The scoring head of LAION's aesthetic predictor and of ImageReward: layers.{0,2,4,6,7}, linear, without activations
 * between (the places left out are dropout). Together they are one affine function, x -> weight . x + bias, worked out
 * once in double. Internal to models/ and rewards/.
 */
#ifndef DRAFT_MODELS_AFFINE_HEAD_H
#define DRAFT_MODELS_AFFINE_HEAD_H

#include "models/layers.h"

struct draft_affine_head {
    struct draft_tensor *weight, *bias; /* [1, width], [1] */
};

/* Widths between are those of the file; the first must take `width` numbers and the last give one. "prefix" as in
 * "mlp.". The result is gain * (weight . x + bias) + shift. */
void draft_load_affine_head(struct draft_loader *loader, struct draft_affine_head *head, int64_t width,
                            const char *prefix, double gain, double shift);

#endif
