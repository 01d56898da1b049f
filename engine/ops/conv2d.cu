/* conv2d: formulas in conv2d.c. As a product over patches, a picture at a time */
#include "backend/cuda/op.h"

enum { X, W, B };

struct patches {
    struct draft_conv_shape one;               /* a single picture's */
    int64_t pictures, rows, width, of_x, of_y; /* patches [rows, width]; numbers of a picture */
    bool is_input;                             /* 1 x 1: a picture is its patches */
    enum draft_dtype type;
};

static struct patches patches_of(const struct draft_call *call)
{
    struct patches p = {};
    p.one = draft_args<struct draft_conv_shape>(call);
    p.type = call->out->dtype;
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

static void *make_room(struct draft_graph *g, const struct patches *p)
{
    if (p->is_input || !draft_graph_ok(g))
        return nullptr;
    return draft_temporary(g, size_t(p->rows * p->width) * draft_size(p->type));
}

/* Of picture i. */
static const void *gather(struct draft_graph *g, const struct patches *p, const struct draft_tensor *x, int64_t i,
                          void *patches)
{
    const void *picture = draft_at(static_cast<const void *>(x->data), p->type, i * p->of_x);
    if (p->is_input)
        return picture;
    draft_cuda_patches(draft_stream(g), p->type, &p->one, picture, p->width, patches);
    return patches;
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct patches p = patches_of(call);
    const struct draft_mark mark = draft_graph_mark(g);
    const void *w = draft_on_device(g, call->in[W], p.type), *bias = draft_on_device(g, call->in[B], p.type);
    void *patches = make_room(g, &p);
    bool done = draft_graph_ok(g);
    for (int64_t i = 0; done && i < p.pictures; i++) {
        const void *rows = gather(g, &p, call->in[X], i, patches);
        done = draft_product(g, {p.type, p.type}, p.rows, p.one.o, p.width, {rows, false}, {w, true}, 1, bias,
                             draft_overwrite(draft_at(call->out->data, p.type, i * p.of_y)));
    }
    draft_graph_release(g, mark);
    return done && draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct patches p = patches_of(call);
    const void *dy = call->out->grad;
    const struct draft_cuda_gradient dx = draft_gradient(g, call->in[X]);
    struct draft_cuda_gradient dw = draft_gradient(g, call->in[W]);
    const struct draft_cuda_gradient db = draft_gradient(g, call->in[B]);
    const struct draft_mark mark = draft_graph_mark(g);
    const void *w = dx.to ? draft_on_device(g, call->in[W], p.type) : nullptr;
    void *patches = make_room(g, &p);
    bool done = draft_graph_ok(g);
    for (int64_t i = 0; done && dx.to && i < p.pictures; i++) {
        const struct draft_cuda_gradient to = {draft_at(dx.to, p.type, i * p.of_x), dx.accumulate};
        done = draft_product(g, {p.type, p.type}, p.rows, p.width, p.one.o, {draft_at(dy, p.type, i * p.of_y), false},
                             {w, false}, 1, nullptr, p.is_input ? to : draft_overwrite(patches));
        if (done && !p.is_input)
            draft_cuda_patches_backward(draft_stream(g), p.type, &p.one, patches, p.width, to);
    }
    for (int64_t i = 0; done && dw.to && i < p.pictures; i++) {
        const void *rows = gather(g, &p, call->in[X], i, patches);
        done = draft_product(g, {p.type, DRAFT_F32}, p.one.o, p.width, p.rows, {draft_at(dy, p.type, i * p.of_y), true},
                             {rows, false}, 1, nullptr, dw);
        dw.accumulate = true;
    }
    draft_graph_release(g, mark);
    return done && (!db.to || draft_sum_rows(g, 1, p.pictures * p.rows, p.one.o, p.type, dy, call->in[B], db)) &&
           draft_launched(g);
}

const struct draft_op_column draft_cuda_op_conv2d = {forward, backward};
