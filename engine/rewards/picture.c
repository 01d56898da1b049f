#include "rewards/picture.h"

#include <math.h>

#include "ops/ops.h"

const struct draft_picture_form draft_clip_picture = {.mean = {0.48145466f, 0.4578275f, 0.40821073f},
                                                      .std = {0.26862954f, 0.26130258f, 0.27577711f}};

static struct draft_tensor *resize(struct draft_graph *g, struct draft_tensor *x, int64_t h, int64_t w)
{
    return h == x->dim[1] && w == x->dim[2] ? x : draft_resize_bicubic(g, x, h, w);
}

static int64_t down(int64_t left)
{
    return left / 2;
}

static int64_t nearest(int64_t left) /* Python's round(left / 2) */
{
    return (int64_t)nearbyint((double)left / 2);
}

static struct draft_tensor *cut(struct draft_graph *g, const struct draft_picture_form *form, struct draft_tensor *x,
                                int64_t (*half)(int64_t))
{
    if (!draft_graph_ok(g))
        return NULL;
    int64_t h = x->dim[1], w = x->dim[2], side = form->short_side, crop = form->crop;
    int64_t to_h = h <= w ? side : (int64_t)((double)(side * h) / (double)w);
    int64_t to_w = h <= w ? (int64_t)((double)(side * w) / (double)h) : side;
    x = resize(g, x, to_h, to_w);
    if (to_h != crop || to_w != crop)
        x = draft_crop(g, x, half(to_h - crop), half(to_w - crop), crop, crop);
    return draft_normalize_channels(g, x, form->mean, form->std);
}

struct draft_tensor *draft_picture_cut(struct draft_graph *g, const struct draft_picture_form *form,
                                       struct draft_tensor *x)
{
    return cut(g, form, x, down);
}

struct draft_tensor *draft_picture_cut_torchvision(struct draft_graph *g, const struct draft_picture_form *form,
                                                   struct draft_tensor *x)
{
    return cut(g, form, x, nearest);
}

struct draft_tensor *draft_picture_pad(struct draft_graph *g, const struct draft_picture_form *form,
                                       struct draft_tensor *x)
{
    if (!draft_graph_ok(g))
        return NULL;
    int64_t h = x->dim[1], w = x->dim[2], size = form->crop;
    double scale = (double)size / (double)(h > w ? h : w);
    int64_t to_h = (int64_t)nearbyint((double)h * scale), to_w = (int64_t)nearbyint((double)w * scale);
    to_h = to_h < 1 ? 1 : to_h; /* a picture more than twice `size` times as long as wide */
    to_w = to_w < 1 ? 1 : to_w;
    x = resize(g, x, to_h, to_w);
    if (to_h != size || to_w != size)
        x = draft_pad(g, x, (size - to_h) / 2, (size - to_w) / 2, size, size);
    return draft_normalize_channels(g, x, form->mean, form->std);
}
