/*
 * The tensors of the models that random_model.c writes, by diffusers' and transformers' names and in the order of
 * tests/tools/random_model.py, whose functions these are in C.
 */
#ifndef TESTS_GPU_MODEL_SHAPES_H
#define TESTS_GPU_MODEL_SHAPES_H

#include <stdbool.h>
#include <stdint.h>

struct model_tensor {
    char name[120];
    int rank;
    int64_t dim[4];
};

enum { MODEL_MAX_TENSORS = 2048, MODEL_LEVELS = 4 };
struct model_tensors {
    int count;
    struct model_tensor tensor[MODEL_MAX_TENSORS];
};

struct text_size {
    int width, wide, layers, vocabulary, positions;
    const char *activation;
};
struct pipeline_size {
    int channels[MODEL_LEVELS], vae[MODEL_LEVELS];
    int context, heads, sample;
    struct text_size text;
};
struct clip_size {
    struct text_size text;
    int width, wide, layers, patch, projection;
    const char *activation;
};

/* Each adds to an empty list. */
void model_unet(struct model_tensors *list, const struct pipeline_size *size);
void model_vae(struct model_tensors *list, const struct pipeline_size *size);
void model_text(struct model_tensors *list, const struct text_size *size);
void model_clip(struct model_tensors *list, const struct clip_size *size);

#endif
