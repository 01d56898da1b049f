/*
 * normalize_channels: y[.., c] = (x[.., c] - mean_c) / std_c, x [n, h, w, c] with c <= 4 (what CLIP and AlexNet expect)
 *   dx = dy / std_c
 */
#include "ops/op.h"

#include <assert.h>

struct work {
    const struct draft_normalize_channels_args *args;
    const float *x; /* or dy */
    float *y;       /* or dx */
    bool accumulate;
};

static void forward_pixels(void *context, int64_t begin, int64_t end)
{
    const struct work *w = context;
    int64_t c = w->args->c;
    for (int64_t p = begin; p < end; p++)
        for (int64_t i = 0; i < c; i++)
            w->y[p * c + i] = (w->x[p * c + i] - w->args->mean[i]) / w->args->std[i];
}

static void backward_pixels(void *context, int64_t begin, int64_t end)
{
    const struct work *w = context;
    int64_t c = w->args->c;
    for (int64_t p = begin; p < end; p++)
        for (int64_t i = 0; i < c; i++) {
            float d = w->x[p * c + i] / w->args->std[i];
            w->y[p * c + i] = w->accumulate ? w->y[p * c + i] + d : d;
        }
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    struct work work = {.args = call->args, .x = draft_f32(call->in[0]), .y = draft_f32(call->out)};
    draft_parallel_range(g->backend, draft_rows(call->out), DRAFT_GRAIN / DRAFT_NORMALIZE_CHANNELS, forward_pixels,
                         &work);
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    struct work work = {.args = call->args, .x = call->out->grad};
    work.y = draft_grad_in_place(g, call->out, call->in[0], &work.accumulate);
    if (work.y != NULL)
        draft_parallel_range(g->backend, draft_rows(call->out), DRAFT_GRAIN / DRAFT_NORMALIZE_CHANNELS, backward_pixels,
                             &work);
    return draft_graph_ok(g);
}

const struct draft_op draft_op_normalize_channels = {.name = "normalize_channels",
                                                     .id = DRAFT_OP_normalize_channels,
                                                     .forward = forward,
                                                     .backward = backward,
                                                     .reads = draft_reads_nothing};

struct draft_tensor *draft_normalize_channels(struct draft_graph *g, struct draft_tensor *x, const float *mean,
                                              const float *std)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL);
    if (!draft_is_activation(x, 4) || x->dim[3] > DRAFT_NORMALIZE_CHANNELS)
        return DRAFT_REFUSE(g, "normalize_channels", "x [n, h, w, c] with at most 4 channels", x);
    struct draft_normalize_channels_args args = {.c = x->dim[3]};
    memcpy(args.mean, mean, (size_t)args.c * sizeof *mean);
    memcpy(args.std, std, (size_t)args.c * sizeof *std);
    struct draft_call call = {.op = &draft_op_normalize_channels, .in = {x}, .args = &args, .args_size = sizeof args};
    call.out = draft_new(g, x->dtype, 4, x->dim);
    return draft_graph_run(g, &call);
}
