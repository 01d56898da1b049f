/*
 * Which graphs have engines that are not compiled at run time was asked of cuDNN 9.19 and 9.26 for six GPUs: the
 * convolution alone, with a BF16 bias behind it, and with a residual and then a bias. In the other order, with a
 * residual alone, a bias in F32 or an add behind the transposed convolution there are none; nor for a filter's gradient
 * in F32. So dx is added to by beta, and dw by a kernel of ours.
 */
#include "backend/cuda/convolution_graph.h"

enum { DIRECTION, N, H, W, C, O, KH, KW, STRIDE, TOP, LEFT, BOTTOM, RIGHT, ALSO };
static const cudnnDataType_t TYPE = CUDNN_DATA_BFLOAT16;

static int64_t out_of(const int64_t *number, int size, int kernel, int before, int after)
{
    return (number[size] + number[before] + number[after] - number[kernel]) / number[STRIDE] + 1;
}

static void describe(struct draft_cudnn_graph *graph, const int64_t *number)
{
    const int64_t *k = number, oh = out_of(k, H, KH, TOP, BOTTOM), ow = out_of(k, W, KW, LEFT, RIGHT);
    const bool forward = k[DIRECTION] == DRAFT_CUDNN_FORWARD;
    const bool biased = forward && (k[ALSO] & DRAFT_CONVOLUTION_BIASED),
               added = (k[ALSO] & DRAFT_CONVOLUTION_ADDED) != 0;
    draft_cudnn_descriptor x = draft_cudnn_image(graph, DRAFT_CONVOLUTION_X, TYPE, k[N], k[H], k[W], k[C]);
    draft_cudnn_descriptor w = draft_cudnn_image(graph, DRAFT_CONVOLUTION_W, TYPE, k[O], k[KH], k[KW], k[C]);
    draft_cudnn_descriptor y = draft_cudnn_image(graph, DRAFT_CONVOLUTION_Y, TYPE, k[N], oh, ow, k[O]);
    draft_cudnn_descriptor sum = y;
    if (biased)
        sum = draft_cudnn_image(graph, 0, CUDNN_DATA_FLOAT, k[N], oh, ow, k[O]);
    draft_cudnn_convolution(
        graph, &(struct draft_cudnn_convolution){.direction = (enum draft_cudnn_direction)k[DIRECTION],
                                                 .x = x,
                                                 .w = w,
                                                 .y = sum,
                                                 .stride = k[STRIDE],
                                                 .pad_before = {k[TOP], k[LEFT]},
                                                 .pad_after = {k[BOTTOM], k[RIGHT]},
                                                 .beta = k[DIRECTION] == DRAFT_CUDNN_BACKWARD_DATA && added});
    if (biased && added) {
        draft_cudnn_descriptor both = draft_cudnn_image(graph, 0, CUDNN_DATA_FLOAT, k[N], oh, ow, k[O]);
        draft_cudnn_pointwise(graph, CUDNN_POINTWISE_ADD, sum,
                              draft_cudnn_image(graph, DRAFT_CONVOLUTION_RESIDUAL, TYPE, k[N], oh, ow, k[O]), both);
        sum = both;
    }
    if (biased)
        draft_cudnn_pointwise(graph, CUDNN_POINTWISE_ADD, sum,
                              draft_cudnn_image(graph, DRAFT_CONVOLUTION_BIAS, TYPE, 1, 1, 1, k[O]), y);
}

struct draft_cudnn_request draft_convolution_request(enum draft_cudnn_direction direction,
                                                     const struct draft_conv_shape *s, enum draft_convolution_also also,
                                                     size_t most_workspace)
{
    return (struct draft_cudnn_request){
        .what = "a convolution",
        .number = {[DIRECTION] = direction,
                   [N] = s->n,
                   [H] = s->h,
                   [W] = s->w,
                   [C] = s->c,
                   [O] = s->o,
                   [KH] = s->kh,
                   [KW] = s->kw,
                   [STRIDE] = s->stride,
                   [TOP] = s->pad_top,
                   [LEFT] = s->pad_left,
                   [BOTTOM] = s->pad_bottom,
                   [RIGHT] = s->pad_right,
                   [ALSO] = also},
        .describe = describe,
        .most_workspace = most_workspace,
    };
}
