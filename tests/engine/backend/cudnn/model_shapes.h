/*
 * Which convolutions and attentions the models are made of, asked of the models themselves: they are built from their
 * configurations (tests/fixtures/full_size, deploy/demo) over weights without values, and run on a backend that notes
 * what it is asked and computes nothing.
 */
#ifndef TESTS_ENGINE_BACKEND_CUDNN_MODEL_SHAPES_H
#define TESTS_ENGINE_BACKEND_CUDNN_MODEL_SHAPES_H

#include "backend/shapes.h"

/* Zeroed padding throughout: two may be compared by their bytes. */
struct noted_convolution {
    struct draft_conv_shape shape;
    int64_t has_bias;
};
struct noted_attention {
    struct draft_attention_shape shape;
    const char *model;
};

struct model_shapes {
    struct noted_convolution convolution[512];
    struct noted_attention attention[256];
    int convolutions, attentions;
};

/* Each shape once: SD 1.5, SD 2.1 (768 x 768), CLIP-L, CLIP-H and the demo, `images` pictures guided (the UNet's batch
 * is twice that). Fails the test when a model cannot be run. */
void note_model_shapes(struct model_shapes *shapes, int images);

#endif
