/* resize_bicubic: formulas in resize_bicubic.c */
#include "backend/cuda/op.h"
extern "C" {
#include "ops/bicubic_taps.h"
}

/* from [outer, in, inner] -> to [outer, t->out, inner]; between the two passes numbers are F32 */
static void run_pass(struct draft_graph *g, struct draft_types types, const struct draft_taps *t, int64_t outer,
                     int64_t in, int64_t inner, const void *from, struct draft_cuda_gradient to)
{
    const size_t out = size_t(t->out);
    const struct draft_cuda_taps taps = {
        .out = t->out,
        .width = t->width,
        .first = static_cast<const int32_t *>(draft_constant(g, t->first, out * sizeof *t->first)),
        .count = static_cast<const int32_t *>(draft_constant(g, t->count, out * sizeof *t->count)),
        .weight = static_cast<const float *>(draft_constant(g, t->weight, out * size_t(t->width) * sizeof *t->weight))};
    if (draft_graph_ok(g))
        draft_cuda_resample(draft_stream(g), types.in, types.out, &taps, outer, in, inner, from, to);
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const int64_t *x = call->in[0]->dim, *y = call->out->dim, n = x[0], c = x[3];
    const struct draft_mark mark = draft_graph_mark(g);
    struct draft_taps columns, rows;
    void *middle = draft_temporary(g, size_t(n * x[1] * y[2] * c) * sizeof(float)); /* [n, h, W, c] */
    if (middle && draft_bicubic_taps(g, x[2], y[2], &columns) && draft_bicubic_taps(g, x[1], y[1], &rows)) {
        const enum draft_dtype type = call->out->dtype;
        run_pass(g, {type, DRAFT_F32}, &columns, n * x[1], x[2], c, call->in[0]->data, draft_overwrite(middle));
        run_pass(g, {DRAFT_F32, type}, &rows, n, x[1], y[2] * c, middle, draft_overwrite(call->out->data));
    }
    draft_graph_release(g, mark);
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const int64_t *x = call->in[0]->dim, *y = call->out->dim, n = x[0], c = x[3];
    const struct draft_cuda_gradient dx = draft_gradient(g, call->in[0]);
    if (!dx.to)
        return false;
    const struct draft_mark mark = draft_graph_mark(g);
    struct draft_taps columns, rows;
    void *middle = draft_temporary(g, size_t(n * x[1] * y[2] * c) * sizeof(float));
    if (middle && draft_bicubic_taps_back(g, x[2], y[2], &columns) && draft_bicubic_taps_back(g, x[1], y[1], &rows)) {
        const enum draft_dtype type = call->out->dtype;
        run_pass(g, {type, DRAFT_F32}, &rows, n, y[1], y[2] * c, call->out->grad, draft_overwrite(middle));
        run_pass(g, {DRAFT_F32, type}, &columns, n * x[1], y[2], c, middle, dx);
    }
    draft_graph_release(g, mark);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_resize_bicubic = {forward, backward};
