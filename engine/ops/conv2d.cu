/*
 * conv2d: formulas in conv2d.c. BF16 through cuDNN, with zeros behind channels whose number does not suit its engines;
 * F32, 1 x 1, and what cuDNN has no plan for as a product over patches, a picture at a time.
 */
#include "backend/cuda/op.h"

extern "C" {
#include "backend/cuda/convolution.h"
}

enum { X, W, B, RESIDUAL };

/* --- Through cuDNN --------------------------------------------------------------------------------------------------
 */

/* What cuDNN is shown: the shape with its channels padded, and how many there really are. */
struct padded {
    struct draft_conv_shape shape;
    int64_t c, o, taps, pixels, out_pixels;
};

static bool is_for_cudnn(const struct draft_call *call)
{
    return call->out->dtype == DRAFT_BF16 && !draft_cuda_is_product(&draft_args<struct draft_conv_shape>(call));
}

static struct padded padded_of(const struct draft_call *call)
{
    struct padded p = {};
    p.shape = draft_args<struct draft_conv_shape>(call);
    p.c = p.shape.c;
    p.o = p.shape.o;
    p.taps = p.shape.kh * p.shape.kw;
    p.pixels = p.shape.n * p.shape.h * p.shape.w;
    p.out_pixels = p.shape.n * draft_conv_out_h(&p.shape) * draft_conv_out_w(&p.shape);
    p.shape.c = draft_cuda_padded_channels(p.c);
    p.shape.o = draft_cuda_padded_channels(p.o);
    return p;
}

/* BF16 numbers [rows, wide] in the step arena, contents undefined. */
static void *make_rows(struct draft_graph *g, int64_t rows, int64_t wide)
{
    return draft_graph_ok(g) ? draft_temporary(g, size_t(rows * wide) * draft_size(DRAFT_BF16)) : nullptr;
}

/* [rows, c] of [big_rows, wide], at its beginning. */
static struct draft_cuda_window corner(int64_t rows, int64_t c, int64_t big_rows, int64_t wide)
{
    return {.n = 1, .h = rows, .w = c, .big_h = big_rows, .big_w = wide, .top = 0, .left = 0};
}

/* x [rows, c] with zeros around it, [big_rows, wide]; x itself where there is nothing to add. */
static const void *widen(struct draft_graph *g, const void *x, int64_t rows, int64_t c, int64_t big_rows, int64_t wide)
{
    if (!x || (rows == big_rows && c == wide))
        return x;
    void *big = make_rows(g, big_rows, wide);
    const struct draft_cuda_window window = corner(rows, c, big_rows, wide);
    if (big)
        draft_cuda_paste(draft_stream(g), DRAFT_BF16, &window, x, draft_overwrite(big), true);
    return big;
}

static const void *widen_weight(struct draft_graph *g, const struct padded *p, const void *w)
{
    const void *channels = widen(g, w, p->o * p->taps, p->c, p->o * p->taps, p->shape.c);
    const int64_t filter = p->taps * p->shape.c;
    return widen(g, channels, p->o, filter, p->shape.o, filter);
}

/* small = the first c of each row of wide (+ small) */
static void narrow(struct draft_graph *g, int64_t rows, int64_t c, int64_t wide, const void *big,
                   struct draft_cuda_gradient small)
{
    const struct draft_cuda_window window = corner(rows, c, rows, wide);
    if (draft_graph_ok(g) && big != small.to)
        draft_cuda_cut(draft_stream(g), DRAFT_BF16, &window, big, small);
}

/* False: not done, the graph is as it was, or has failed. */
static bool convolve(struct draft_graph *g, const struct draft_cuda_convolution *c)
{
    bool done = false;
    return draft_graph_ok(g) && draft_cuda_convolve(g->backend, c, &done, &g->error) && done;
}

/* `residual` NULL: none. */
static bool forward_cudnn(struct draft_graph *g, struct draft_call *call, const void *residual)
{
    const struct padded p = padded_of(call);
    const struct draft_mark mark = draft_graph_mark(g);
    const void *w = draft_on_device(g, call->in[W], DRAFT_BF16), *b = draft_on_device(g, call->in[B], DRAFT_BF16);
    void *y = p.shape.o == p.o ? call->out->data : make_rows(g, p.out_pixels, p.shape.o);
    const struct draft_cuda_convolution c = {.result = DRAFT_CUDA_CONVOLVED_Y,
                                             .shape = p.shape,
                                             .x = widen(g, call->in[X]->data, p.pixels, p.c, p.pixels, p.shape.c),
                                             .w = widen_weight(g, &p, w),
                                             .y = y,
                                             .residual = residual,
                                             .bias = widen(g, b, 1, p.o, 1, p.shape.o),
                                             .accumulate = false};
    const bool done = convolve(g, &c);
    if (done)
        narrow(g, p.out_pixels, p.o, p.shape.o, y, draft_overwrite(call->out->data));
    draft_graph_release(g, mark);
    return done;
}

static bool dx_cudnn(struct draft_graph *g, struct draft_call *call, struct draft_cuda_gradient dx)
{
    const struct padded p = padded_of(call);
    const struct draft_mark mark = draft_graph_mark(g);
    const bool is_whole = p.shape.c == p.c;
    const void *w = draft_on_device(g, call->in[W], DRAFT_BF16);
    void *wide = is_whole ? dx.to : make_rows(g, p.pixels, p.shape.c);
    const struct draft_cuda_convolution c = {.result = DRAFT_CUDA_CONVOLVED_DX,
                                             .shape = p.shape,
                                             .x = wide,
                                             .w = widen_weight(g, &p, w),
                                             .y = widen(g, call->out->grad, p.out_pixels, p.o, p.out_pixels, p.shape.o),
                                             .residual = nullptr,
                                             .bias = nullptr,
                                             .accumulate = is_whole && dx.accumulate};
    const bool done = convolve(g, &c);
    if (done)
        narrow(g, p.pixels, p.c, p.shape.c, wide, dx);
    draft_graph_release(g, mark);
    return done;
}

/* cuDNN has no engine for an F32 dw of BF16 tensors: it is rounded once, and added up in F32. */
static bool dw_cudnn(struct draft_graph *g, struct draft_call *call, struct draft_cuda_gradient dw)
{
    const struct padded p = padded_of(call);
    const struct draft_mark mark = draft_graph_mark(g);
    void *wide = make_rows(g, p.shape.o * p.taps, p.shape.c);
    void *half = p.shape.c == p.c ? wide : make_rows(g, p.o * p.taps, p.c);
    const struct draft_cuda_convolution c = {.result = DRAFT_CUDA_CONVOLVED_DW,
                                             .shape = p.shape,
                                             .x = widen(g, call->in[X]->data, p.pixels, p.c, p.pixels, p.shape.c),
                                             .w = wide,
                                             .y = widen(g, call->out->grad, p.out_pixels, p.o, p.out_pixels, p.shape.o),
                                             .residual = nullptr,
                                             .bias = nullptr,
                                             .accumulate = false};
    const bool done = convolve(g, &c);
    if (done) {
        narrow(g, p.o * p.taps, p.c, p.shape.c, wide, draft_overwrite(half));
        draft_cuda_convert(draft_stream(g), DRAFT_BF16, call->in[W]->dtype, p.o * p.taps * p.c, half, dw);
    }
    draft_graph_release(g, mark);
    return done;
}

/* --- As a product over patches --------------------------------------------------------------------------------------
 */

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

static bool forward_patches(struct draft_graph *g, struct draft_call *call)
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
    return done;
}

static bool dx_patches(struct draft_graph *g, struct draft_call *call, struct draft_cuda_gradient dx)
{
    const struct patches p = patches_of(call);
    const void *dy = call->out->grad;
    const struct draft_mark mark = draft_graph_mark(g);
    const void *w = draft_on_device(g, call->in[W], p.type);
    void *patches = make_room(g, &p);
    bool done = draft_graph_ok(g);
    for (int64_t i = 0; done && i < p.pictures; i++) {
        const struct draft_cuda_gradient to = {draft_at(dx.to, p.type, i * p.of_x), dx.accumulate};
        done = draft_product(g, {p.type, p.type}, p.rows, p.width, p.one.o, {draft_at(dy, p.type, i * p.of_y), false},
                             {w, false}, 1, nullptr, p.is_input ? to : draft_overwrite(patches));
        if (done && !p.is_input)
            draft_cuda_patches_backward(draft_stream(g), p.type, &p.one, patches, p.width, to);
    }
    draft_graph_release(g, mark);
    return done;
}

static bool dw_patches(struct draft_graph *g, struct draft_call *call, struct draft_cuda_gradient dw)
{
    const struct patches p = patches_of(call);
    const void *dy = call->out->grad;
    const struct draft_mark mark = draft_graph_mark(g);
    void *patches = make_room(g, &p);
    bool done = draft_graph_ok(g);
    for (int64_t i = 0; done && i < p.pictures; i++) {
        const void *rows = gather(g, &p, call->in[X], i, patches);
        done = draft_product(g, {p.type, DRAFT_F32}, p.one.o, p.width, p.rows, {draft_at(dy, p.type, i * p.of_y), true},
                             {rows, false}, 1, nullptr, dw);
        dw.accumulate = true;
    }
    draft_graph_release(g, mark);
    return done;
}

/* --- The op ---------------------------------------------------------------------------------------------------------
 */

/* cuDNN adds a residual on the way where there is a bias too and no padding: every ResNet block's. */
static bool forward(struct draft_graph *g, struct draft_call *call)
{
    struct draft_tensor *y = call->out;
    const void *residual = call->in[RESIDUAL] != NULL ? call->in[RESIDUAL]->data : nullptr;
    const bool cudnn = is_for_cudnn(call);
    if (residual && cudnn && call->in[B] != NULL && draft_cuda_padded_channels(draft_last(y)) == draft_last(y) &&
        forward_cudnn(g, call, residual))
        return draft_launched(g);
    const bool done = (cudnn && forward_cudnn(g, call, nullptr)) || forward_patches(g, call);
    if (done && residual)
        draft_cuda_axpby(draft_stream(g), y->dtype, draft_tensor_count(y), 1, residual, 0, nullptr, {y->data, true});
    return done && draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_cuda_gradient dx = draft_gradient(g, call->in[X]);
    const struct draft_cuda_gradient dw = draft_gradient(g, call->in[W]);
    const struct draft_cuda_gradient db = draft_gradient(g, call->in[B]);
    const bool cudnn = is_for_cudnn(call);
    bool done = draft_graph_ok(g);
    if (done && dx.to)
        done = (cudnn && dx_cudnn(g, call, dx)) || dx_patches(g, call, dx);
    if (done && dw.to)
        done = (cudnn && dw_cudnn(g, call, dw)) || dw_patches(g, call, dw);
    if (done && db.to)
        done = draft_sum_rows(g, 1, draft_rows(call->out), draft_last(call->out), call->out->dtype, call->out->grad,
                              call->in[B], db);
    return done && draft_launched(g) && draft_grad_pass(g, call->out, call->in[RESIDUAL]);
}

const struct draft_op_column draft_cuda_op_conv2d = {forward, backward};
