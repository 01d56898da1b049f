/*
 * max_pool: y[n, i, j, c] = max over p, q < window of x[n, i stride + p, j stride + q, c], no padding
 * x [n, h, w, c] -> y [n, (h - window) / stride + 1, (w - window) / stride + 1, c]. NaN in a window gives NaN.
 * No gradient: only AlexNet uses it, and LPIPS is measured here, never trained on.
 */
#include "ops/op.h"

#include <assert.h>
#include <stdio.h>

struct work {
    int64_t window, stride, h, w, c, oh, ow;
    const float *x;
    float *y;
};

/* one row of y a task */
static void pool_rows(void *context, int64_t begin, int64_t end)
{
    const struct work *k = context;
    for (int64_t r = begin; r < end; r++) {
        const float *top = k->x + (r / k->oh * k->h + r % k->oh * k->stride) * k->w * k->c;
        for (int64_t j = 0; j < k->ow; j++) {
            const float *corner = top + j * k->stride * k->c;
            float *y = k->y + (r * k->ow + j) * k->c;
            memcpy(y, corner, (size_t)k->c * sizeof *y);
            for (int64_t p = 0; p < k->window; p++)
                for (int64_t q = 0; q < k->window; q++) {
                    const float *x = corner + (p * k->w + q) * k->c;
                    for (int64_t c = 0; c < k->c; c++)
                        y[c] = x[c] > y[c] || x[c] != x[c] ? x[c] : y[c];
                }
        }
    }
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_max_pool_args *args = call->args;
    const int64_t *x = call->in[0]->dim, *y = call->out->dim;
    struct work k = {.window = args->window,
                     .stride = args->stride,
                     .h = x[1],
                     .w = x[2],
                     .c = x[3],
                     .oh = y[1],
                     .ow = y[2],
                     .x = draft_f32(call->in[0]),
                     .y = draft_f32(call->out)};
    draft_parallel_range(g->backend, call->out->dim[0] * k.oh, 4, pool_rows, &k);
    return true;
}

const struct draft_op draft_op_max_pool = {
    .name = "max_pool",
    .id = DRAFT_OP_max_pool,
    .forward = forward,
    DRAFT_NO_GRADIENT("the network it is for, LPIPS, is measured with, not trained on")};

struct draft_tensor *draft_max_pool(struct draft_graph *g, struct draft_tensor *x, int window, int stride)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL && window >= 1 && stride >= 1);
    if (!draft_is_activation(x, 4) || x->dim[1] < window || x->dim[2] < window) {
        char expected[96];
        snprintf(expected, sizeof expected, "x [n, h, w, c] of at least %d x %d", window, window);
        return DRAFT_REFUSE(g, "max_pool", expected, x);
    }
    struct draft_max_pool_args args = {window, stride};
    int64_t dim[4] = {x->dim[0], (x->dim[1] - window) / stride + 1, (x->dim[2] - window) / stride + 1, x->dim[3]};
    struct draft_call call = {.op = &draft_op_max_pool, .in = {x}, .args = &args, .args_size = sizeof args};
    call.out = draft_new(g, x->dtype, 4, dim);
    return draft_graph_run(g, &call);
}
