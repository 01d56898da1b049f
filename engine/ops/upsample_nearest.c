/*
 * upsample_nearest: y [n, H, W, c] from x [n, h, w, c], y[.., i, j, ..] = x[.., floor(i h / H), floor(j w / W), ..]
 * (the indices as PyTorch computes them, in float)      dx: sum of dy over the pixels that were read from x
 */
#include "ops/op.h"

#include <assert.h>
#include <math.h>

struct work {
    int64_t h, w, c, oh, ow;
    const float *from; /* x, or dy */
    float *to;         /* y, or dx */
    bool accumulate;
};

static int64_t source(int64_t i, int64_t in, int64_t out)
{
    int64_t s = (int64_t)floorf((float)i * ((float)in / (float)out));
    return s < in ? s : in - 1;
}

/* one row of y a task */
static void forward_rows(void *context, int64_t begin, int64_t end)
{
    const struct work *k = context;
    for (int64_t r = begin; r < end; r++) {
        const float *x = k->from + (r / k->oh * k->h + source(r % k->oh, k->h, k->oh)) * k->w * k->c;
        float *y = k->to + r * k->ow * k->c;
        for (int64_t j = 0; j < k->ow; j++)
            memcpy(y + j * k->c, x + source(j, k->w, k->ow) * k->c, (size_t)k->c * sizeof *y);
    }
}

/* one row of x a task: all rows of y that were read from it */
static void backward_rows(void *context, int64_t begin, int64_t end)
{
    const struct work *k = context;
    for (int64_t r = begin; r < end; r++) {
        float *dx = k->to + r * k->w * k->c;
        if (!k->accumulate)
            memset(dx, 0, (size_t)(k->w * k->c) * sizeof *dx);
        for (int64_t i = 0; i < k->oh; i++) {
            if (source(i, k->h, k->oh) != r % k->h)
                continue;
            const float *dy = k->from + (r / k->h * k->oh + i) * k->ow * k->c;
            for (int64_t j = 0; j < k->ow; j++) {
                float *d = dx + source(j, k->w, k->ow) * k->c;
                for (int64_t c = 0; c < k->c; c++)
                    d[c] += dy[j * k->c + c];
            }
        }
    }
}

static struct work work_of(const struct draft_call *call)
{
    const struct draft_tensor *x = call->in[0], *y = call->out;
    return (struct work){.h = x->dim[1], .w = x->dim[2], .c = x->dim[3], .oh = y->dim[1], .ow = y->dim[2]};
}

static int64_t grain(int64_t row)
{
    return row >= DRAFT_GRAIN ? 1 : DRAFT_GRAIN / row;
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    struct work k = work_of(call);
    k.from = draft_f32(call->in[0]);
    k.to = draft_f32(call->out);
    draft_parallel_range(g->backend, call->out->dim[0] * k.oh, grain(k.ow * k.c), forward_rows, &k);
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    struct work k = work_of(call);
    k.from = call->out->grad;
    k.to = draft_grad(g, call->in[0], &k.accumulate);
    if (k.to == NULL)
        return false;
    draft_parallel_range(g->backend, call->out->dim[0] * k.h, grain(k.w * k.c), backward_rows, &k);
    return true;
}

const struct draft_op draft_op_upsample_nearest = {.name = "upsample_nearest",
                                                   .id = DRAFT_OP_upsample_nearest,
                                                   .forward = forward,
                                                   .backward = backward,
                                                   .reads = draft_reads_nothing};

struct draft_tensor *draft_upsample_nearest(struct draft_graph *g, struct draft_tensor *x, int64_t h, int64_t w)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL);
    if (!draft_is_activation(x, 4) || h < 1 || w < 1 || draft_tensor_count(x) == 0)
        return DRAFT_REFUSE(g, "upsample_nearest", "x [n, h, w, c] and a size of at least 1 x 1", x);
    struct draft_call call = {.op = &draft_op_upsample_nearest, .in = {x}};
    call.out = draft_new(g, x->dtype, 4, (int64_t[]){x->dim[0], h, w, x->dim[3]});
    return draft_graph_run(g, &call);
}
