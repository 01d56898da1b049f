/*
 * Backward to data of a convolution whose patches neither overlap nor leave gaps (stride = kernel, no padding: the
 * patch embedding of a vision transformer): one product dy W gives every patch whole, its rows are then put in place.
 */
#include <string.h>

#include "backend/cpu/state.h"

enum { BLOCK_PATCHES = 48 };

bool draft_patch_applies(const struct draft_conv_shape *s)
{
    return s->stride > 1 && s->kh == s->stride && s->kw == s->stride && s->pad_top == 0 && s->pad_left == 0 &&
           s->pad_bottom == 0 && s->pad_right == 0;
}

struct patch_tasks {
    struct draft_backend *backend;
    const struct draft_conv_shape *shape;
    const float *dy, *packed;
    float *dx;
    int64_t depth; /* kh * kw * c */
    bool accumulate;
};

static void patch_task(void *context, int64_t task, int thread)
{
    const struct patch_tasks *t = context;
    const struct draft_conv_shape *s = t->shape;
    const struct draft_kernels *kernels = t->backend->kernels;
    int64_t oh = draft_conv_out_h(s), ow = draft_conv_out_w(s), total = s->n * oh * ow;
    int64_t first = task * BLOCK_PATCHES, count = total - first < BLOCK_PATCHES ? total - first : BLOCK_PATCHES;
    float *patches = draft_scratch_of(t->backend, thread);
    struct draft_block block = {.m = count,
                                .n = t->depth,
                                .k = s->o,
                                .a = t->dy + first * s->o,
                                .a_row = s->o,
                                .a_col = 1,
                                .b = t->packed,
                                .b_panel = s->o * kernels->nr,
                                .b_row = kernels->nr,
                                .c = patches,
                                .ldc = t->depth,
                                .alpha = 1.0f};
    kernels->block(&block);
    int64_t width = s->kw * s->c; /* of one row of a patch */
    for (int64_t p = 0; p < count; p++) {
        int64_t patch = first + p, image = patch / (oh * ow), y = patch / ow % oh * s->kh, x = patch % ow * s->kw;
        kernels->move_rows(s->kh, width, patches + p * t->depth, width, NULL,
                           t->dx + ((image * s->h + y) * s->w + x) * s->c, s->w * s->c, t->accumulate);
    }
}

bool draft_patch_dx(struct draft_backend *backend, const struct draft_conv_shape *shape, const float *dy,
                    struct draft_tensor *w, float *dx, bool accumulate, struct draft_error *err)
{
    int64_t depth = shape->kh * shape->kw * shape->c;
    struct draft_recipe recipe = draft_backward_recipe(backend, w);
    const float *packed = draft_form_of(backend, w, &recipe, err);
    if (!packed || !draft_scratch_reserve(backend, 0, (size_t)(BLOCK_PATCHES * depth) * sizeof(float), err))
        return false;
    if (!accumulate && (shape->h % shape->kh != 0 || shape->w % shape->kw != 0)) /* a rest no patch covers */
        memset(dx, 0, (size_t)(shape->n * shape->h * shape->w * shape->c) * sizeof(float));
    struct patch_tasks tasks = {backend, shape, dy, packed, dx, depth, accumulate};
    int64_t patches = shape->n * draft_conv_out_h(shape) * draft_conv_out_w(shape);
    draft_parallel(backend, (patches + BLOCK_PATCHES - 1) / BLOCK_PATCHES, patch_task, &tasks);
    return true;
}
