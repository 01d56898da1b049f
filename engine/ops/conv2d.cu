/* conv2d: formulas in conv2d.c. As a product over patches, a picture at a time */
#include "backend/cuda/op.h"

enum { X, W, B };

struct patches {
    struct draft_conv_shape one;               /* a single picture's */
    int64_t pictures, rows, width, of_x, of_y; /* patches [rows, width]; numbers of a picture */
    bool is_input;                             /* 1 x 1: a picture is its patches */
};

static struct patches patches_of(const struct draft_call *call)
{
    struct patches p = {};
    p.one = draft_args<struct draft_conv_shape>(call);
    p.pictures = p.one.n;
    p.one.n = 1;
    p.rows = draft_conv_out_h(&p.one) * draft_conv_out_w(&p.one);
    p.width = p.one.kh * p.one.kw * p.one.c;
    p.of_x = p.one.h * p.one.w * p.one.c;
    p.of_y = p.rows * p.one.o;
    p.is_input = p.one.kh == 1 && p.one.kw == 1 && p.one.stride == 1 && p.rows == p.one.h * p.one.w &&
                 p.one.pad_top == 0 && p.one.pad_left == 0;
    return p;
}

static float *make_room(struct draft_graph *g, const struct patches *p)
{
    if (p->is_input || !draft_graph_ok(g))
        return nullptr;
    return static_cast<float *>(draft_temporary(g, size_t(p->rows * p->width) * sizeof(float)));
}

static const float *gather(struct draft_graph *g, const struct patches *p, const float *x, float *patches)
{
    if (p->is_input)
        return x;
    draft_cuda_patches(draft_stream(g), DRAFT_F32, &p->one, x, p->width, patches);
    return patches;
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct patches p = patches_of(call);
    const float *x = draft_on_device(g, call->in[X]), *w = draft_on_device(g, call->in[W]);
    const float *bias = draft_on_device(g, call->in[B]);
    const struct draft_mark mark = draft_graph_mark(g);
    float *patches = make_room(g, &p);
    bool done = draft_graph_ok(g);
    for (int64_t i = 0; done && i < p.pictures; i++) {
        const float *rows = gather(g, &p, x + i * p.of_x, patches);
        done = draft_product(g, p.rows, p.one.o, p.width, {rows, false}, {w, true}, 1, bias,
                             draft_overwrite(draft_f32(call->out) + i * p.of_y));
    }
    draft_graph_release(g, mark);
    return done && draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct patches p = patches_of(call);
    const float *dy = call->out->grad, *x = draft_on_device(g, call->in[X]), *w = draft_on_device(g, call->in[W]);
    const struct draft_cuda_gradient dx = draft_gradient(g, call->in[X]);
    struct draft_cuda_gradient dw = draft_gradient(g, call->in[W]);
    const struct draft_cuda_gradient db = draft_gradient(g, call->in[B]);
    const struct draft_mark mark = draft_graph_mark(g);
    float *patches = make_room(g, &p);
    bool done = draft_graph_ok(g);
    for (int64_t i = 0; done && dx.to && i < p.pictures; i++) {
        const struct draft_cuda_gradient to = {static_cast<float *>(dx.to) + i * p.of_x, dx.accumulate};
        done = draft_product(g, p.rows, p.width, p.one.o, {dy + i * p.of_y, false}, {w, false}, 1, nullptr,
                             p.is_input ? to : draft_overwrite(patches));
        if (done && !p.is_input)
            draft_cuda_patches_backward(draft_stream(g), DRAFT_F32, &p.one, patches, p.width, to);
    }
    for (int64_t i = 0; done && dw.to && i < p.pictures; i++) {
        const float *rows = gather(g, &p, x + i * p.of_x, patches);
        done = draft_product(g, p.one.o, p.width, p.rows, {dy + i * p.of_y, true}, {rows, false}, 1, nullptr, dw);
        dw.accumulate = true;
    }
    draft_graph_release(g, mark);
    return done && (!db.to || draft_sum_rows(g, 1, p.pictures * p.rows, p.one.o, dy, db)) && draft_launched(g);
}

const struct draft_op_column draft_cuda_op_conv2d = {forward, backward};
