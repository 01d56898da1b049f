/*
 * resize_bicubic: PyTorch's interpolate(mode="bicubic", antialias=True, align_corners=False). Separable: for each axis
 *   scale = in / out      center_i = scale (i + 1/2)      stretch = max(scale, 1)
 *   weight of source j:  k((j + 1/2 - center_i) / stretch), for |..| < 2, divided by their sum
 *   k(x) = (a + 2)|x|^3 - (a + 3)|x|^2 + 1 for |x| < 1;  a (|x|^3 - 5 |x|^2 + 8 |x| - 4) for |x| < 2;  a = -1/2
 * so shrinking widens the kernel over all pixels that fall into one. x [n, h, w, c] -> y [n, H, W, c], columns first,
 * then rows. A linear map: dx is the transposed map of dy. Forward and backward are therefore one function over taps.
 */
#include "ops/op.h"

#include <assert.h>
#include <math.h>

/* The sparse rows of one axis' matrix: destination i reads `count[i]` sources from `first[i]` on. */
struct taps {
    int64_t out, width; /* destinations; most sources of one */
    int32_t *first, *count;
    float *weight; /* [out, width] */
};

static double cubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

static bool allocate(struct draft_graph *g, struct taps *t)
{
    t->first = draft_temporary(g, (size_t)t->out * sizeof *t->first);
    t->count = draft_temporary(g, (size_t)t->out * sizeof *t->count);
    t->weight = draft_temporary(g, (size_t)(t->out * t->width) * sizeof *t->weight);
    return draft_graph_ok(g);
}

/* How destinations read sources. */
static bool forward_taps(struct draft_graph *g, int64_t in, int64_t out, struct taps *t)
{
    double scale = (double)in / (double)out, stretch = scale > 1 ? scale : 1, support = 2 * stretch;
    *t = (struct taps){.out = out, .width = (int64_t)ceil(support) * 2 + 1};
    if (!allocate(g, t))
        return false;
    for (int64_t i = 0; i < out; i++) {
        double center = scale * ((double)i + 0.5), sum = 0;
        int64_t first = (int64_t)(center - support + 0.5), end = (int64_t)(center + support + 0.5);
        first = first > 0 ? first : 0;
        end = end < in ? end : in;
        float *weight = t->weight + i * t->width;
        assert(end - first <= t->width);
        for (int64_t j = first; j < end; j++)
            sum += cubic(((double)j + 0.5 - center) / stretch);
        for (int64_t j = first; j < end; j++)
            weight[j - first] = (float)(cubic(((double)j + 0.5 - center) / stretch) / sum);
        t->first[i] = (int32_t)first;
        t->count[i] = (int32_t)(end - first);
    }
    return true;
}

/* The transpose: how sources are read. Windows move to the right only, so those that hold a source are neighbours. */
static bool backward_taps(struct draft_graph *g, int64_t in, int64_t out, struct taps *t)
{
    struct taps of;
    *t = (struct taps){.out = in};
    if (!forward_taps(g, in, out, &of))
        return false;
    int64_t begin = 0, end = 0;
    for (int64_t j = 0; j < in; j++) {
        while (begin < out && of.first[begin] + of.count[begin] <= j)
            begin++;
        while (end < out && of.first[end] <= j)
            end++;
        t->width = end - begin > t->width ? end - begin : t->width;
    }
    if (!allocate(g, t))
        return false;
    begin = end = 0;
    for (int64_t j = 0; j < in; j++) {
        while (begin < out && of.first[begin] + of.count[begin] <= j)
            begin++;
        while (end < out && of.first[end] <= j)
            end++;
        t->first[j] = (int32_t)begin;
        t->count[j] = (int32_t)(end - begin);
        for (int64_t i = begin; i < end; i++)
            t->weight[j * t->width + i - begin] = of.weight[i * of.width + j - of.first[i]];
    }
    return true;
}

/* from [outer, in, inner] -> to [outer, taps->out, inner] */
struct pass {
    const struct taps *taps;
    int64_t in, inner;
    const float *from;
    float *to;
    bool accumulate;
};

static void pass_lines(void *context, int64_t begin, int64_t end)
{
    const struct pass *p = context;
    const struct taps *t = p->taps;
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
    struct taps columns, rows;
    float *middle = draft_temporary(g, (size_t)(n * x[1] * y[2] * c) * sizeof *middle); /* [n, h, W, c] */
    if (middle == NULL || !forward_taps(g, x[2], y[2], &columns) || !forward_taps(g, x[1], y[1], &rows))
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
    struct taps columns, rows;
    float *middle = draft_temporary(g, (size_t)(n * x[1] * y[2] * c) * sizeof *middle);
    if (middle == NULL || !backward_taps(g, x[2], y[2], &columns) || !backward_taps(g, x[1], y[1], &rows))
        return false;
    run_pass(g, n, &(struct pass){&rows, y[1], y[2] * c, call->out->grad, middle, false});
    run_pass(g, n * x[1], &(struct pass){&columns, y[2], c, middle, dx, accumulate});
    draft_graph_release(g, mark);
    return true;
}

const struct draft_op draft_op_resize_bicubic = {
    .name = "resize_bicubic", .id = DRAFT_OP_resize_bicubic, .forward = forward, .backward = backward};

struct draft_tensor *draft_resize_bicubic(struct draft_graph *g, struct draft_tensor *x, int64_t h, int64_t w)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL);
    if (!draft_is_f32(x, 4) || h < 1 || w < 1 || h > INT32_MAX || w > INT32_MAX || draft_tensor_count(x) == 0)
        return DRAFT_REFUSE(g, "resize_bicubic", "x [n, h, w, c] and a size of at least 1 x 1", x);
    struct draft_call call = {.op = &draft_op_resize_bicubic, .in = {x}};
    call.out = draft_new(g, DRAFT_F32, 4, (int64_t[]){x->dim[0], h, w, x->dim[3]});
    return draft_graph_run(g, &call);
}
