/*
 * scale_clamp: v = scale x + shift, y = min(max(v, lo), hi) (from the VAE's [-1, 1] to a picture's [0, 1])
 *   dx = scale dy where lo <= v <= hi, else 0: as torch.clamp, the bounds themselves pass the gradient. NaN stays NaN.
 */
#include "ops/op.h"

#include <assert.h>

struct work {
    struct draft_scale_clamp_args args;
    const float *x, *dy;
    float *out; /* y or dx */
    bool accumulate;
};

static void forward_range(void *context, int64_t begin, int64_t end)
{
    const struct work *w = context;
    const struct draft_scale_clamp_args a = w->args;
    for (int64_t i = begin; i < end; i++) {
        float v = a.scale * w->x[i] + a.shift;
        v = v < a.lo ? a.lo : v;
        w->out[i] = v > a.hi ? a.hi : v;
    }
}

static void backward_range(void *context, int64_t begin, int64_t end)
{
    const struct work *w = context;
    const struct draft_scale_clamp_args a = w->args;
    for (int64_t i = begin; i < end; i++) {
        float v = a.scale * w->x[i] + a.shift;
        float d = v >= a.lo && v <= a.hi ? a.scale * w->dy[i] : 0;
        w->out[i] = w->accumulate ? w->out[i] + d : d;
    }
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_scale_clamp_args *args = call->args;
    struct work work = {.args = *args, .x = draft_f32(call->in[0]), .out = draft_f32(call->out)};
    draft_parallel_range(g->backend, draft_tensor_count(call->out), DRAFT_GRAIN, forward_range, &work);
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_scale_clamp_args *args = call->args;
    struct work work = {.args = *args, .x = draft_f32(call->in[0]), .dy = call->out->grad};
    work.out = draft_grad_in_place(g, call->out, call->in[0], &work.accumulate);
    if (work.out != NULL)
        draft_parallel_range(g->backend, draft_tensor_count(call->out), DRAFT_GRAIN, backward_range, &work);
    return draft_graph_ok(g);
}

const struct draft_op draft_op_scale_clamp = {.name = "scale_clamp",
                                              .id = DRAFT_OP_scale_clamp,
                                              .forward = forward,
                                              .backward = backward,
                                              .reads = draft_reads_inputs};

struct draft_tensor *draft_scale_clamp(struct draft_graph *g, struct draft_tensor *x, float scale, float shift,
                                       float lo, float hi)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL && lo <= hi);
    if (!draft_is_float(x))
        return DRAFT_REFUSE(g, "scale_clamp", "x in F32 or BF16", x);
    struct draft_scale_clamp_args args = {scale, shift, lo, hi};
    struct draft_call call = {.op = &draft_op_scale_clamp, .in = {x}, .args = &args, .args_size = sizeof args};
    call.out = draft_new(g, x->dtype, x->rank, x->dim);
    return draft_graph_run(g, &call);
}
