/*
 * resize_bicubic: PyTorch's interpolate(mode="bicubic", antialias=True, align_corners=False). Separable: for each axis
 *   scale = in / out      center_i = scale (i + 1/2)      stretch = max(scale, 1)
 *   weight of source j:  k((j + 1/2 - center_i) / stretch), for |..| < 2, divided by their sum
 *   k(x) = (a + 2)|x|^3 - (a + 3)|x|^2 + 1 for |x| < 1;  a (|x|^3 - 5 |x|^2 + 8 |x| - 4) for |x| < 2;  a = -1/2
 * so shrinking widens the kernel over all pixels that fall into one. x [n, h, w, c] -> y [n, H, W, c], columns first,
 * then rows. A linear map: dx is the transposed map of dy. Forward and backward are therefore one function over taps.
 */
#include "ops/bicubic_taps.h"
#include "ops/op.h"

#include <assert.h>

/* from [outer, in, inner] -> to [outer, taps->out, inner] */
struct pass {
    const struct draft_taps *taps;
    int64_t in, inner;
    const float *from;
    float *to;
    bool accumulate;
};

static void pass_lines(void *context, int64_t begin, int64_t end)
{
    const struct pass *p = context;
    const struct draft_taps *t = p->taps;
    for (int64_t line = begin; line < end; line++) {
        int64_t i = line % t->out;
        const float *from = p->from + (line / t->out * p->in + t->first[i]) * p->inner;
        float *to = p->to + line * p->inner;
        if (!p->accumulate)
            memset(to, 0, (size_t)p->inner * sizeof *to);
        for (int32_t j = 0; j < t->count[i]; j++) {
            float weight = t->weight[i * t->width + j];
            for (int64_t c = 0; c < p->inner; c++)
                to[c] += weight * from[j * p->inner + c];
        }
    }
}

static void run_pass(struct draft_graph *g, int64_t outer, const struct pass *p)
{
    int64_t line = p->inner * p->taps->width;
    draft_parallel_range(g->backend, outer * p->taps->out, line >= DRAFT_GRAIN ? 1 : DRAFT_GRAIN / line, pass_lines,
                         (void *)(uintptr_t)p);
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const int64_t *x = call->in[0]->dim, *y = call->out->dim;
    int64_t n = x[0], c = x[3];
    struct draft_mark mark = draft_graph_mark(g);
    struct draft_taps columns, rows;
    float *middle = draft_temporary(g, (size_t)(n * x[1] * y[2] * c) * sizeof *middle); /* [n, h, W, c] */
    if (middle == NULL || !draft_bicubic_taps(g, x[2], y[2], &columns) || !draft_bicubic_taps(g, x[1], y[1], &rows))
        return false;
    run_pass(g, n * x[1], &(struct pass){&columns, x[2], c, draft_f32(call->in[0]), middle, false});
    run_pass(g, n, &(struct pass){&rows, x[1], y[2] * c, middle, draft_f32(call->out), false});
    draft_graph_release(g, mark);
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const int64_t *x = call->in[0]->dim, *y = call->out->dim;
    int64_t n = x[0], c = x[3];
    bool accumulate;
    float *dx = draft_grad(g, call->in[0], &accumulate);
    if (dx == NULL)
        return false;
    struct draft_mark mark = draft_graph_mark(g);
    struct draft_taps columns, rows;
    float *middle = draft_temporary(g, (size_t)(n * x[1] * y[2] * c) * sizeof *middle);
    if (middle == NULL || !draft_bicubic_taps_back(g, x[2], y[2], &columns) ||
        !draft_bicubic_taps_back(g, x[1], y[1], &rows))
        return false;
    run_pass(g, n, &(struct pass){&rows, y[1], y[2] * c, call->out->grad, middle, false});
    run_pass(g, n * x[1], &(struct pass){&columns, y[2], c, middle, dx, accumulate});
    draft_graph_release(g, mark);
    return true;
}

const struct draft_op draft_op_resize_bicubic = {.name = "resize_bicubic",
                                                 .id = DRAFT_OP_resize_bicubic,
                                                 .forward = forward,
                                                 .backward = backward,
                                                 .reads = draft_reads_nothing};

struct draft_tensor *draft_resize_bicubic(struct draft_graph *g, struct draft_tensor *x, int64_t h, int64_t w)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL);
    if (!draft_is_activation(x, 4) || h < 1 || w < 1 || h > INT32_MAX || w > INT32_MAX || draft_tensor_count(x) == 0)
        return DRAFT_REFUSE(g, "resize_bicubic", "x [n, h, w, c] and a size of at least 1 x 1", x);
    struct draft_call call = {.op = &draft_op_resize_bicubic, .in = {x}};
    call.out = draft_new(g, x->dtype, 4, (int64_t[]){x->dim[0], h, w, x->dim[3]});
    return draft_graph_run(g, &call);
}
