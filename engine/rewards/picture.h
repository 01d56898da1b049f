/*
 * How a picture is made the input of an image tower, differentiably: resized (bicubic with antialias), cut or padded to
 * a square, normalised. Internal to rewards/.
 */
#ifndef DRAFT_REWARDS_PICTURE_H
#define DRAFT_REWARDS_PICTURE_H

#include "autograd/graph.h"

struct draft_picture_form {
    int64_t short_side, crop; /* pixels; crop is the tower's image size */
    float mean[3], std[3];
};

extern const struct draft_picture_form draft_clip_picture; /* CLIP's mean and std, no sizes */

/* images [n, h, w, 3] in [0, 1] -> [n, crop, crop, 3].
 * _cut: CLIPImageProcessor's way: the short side to short_side, the other to int(short_side * long / short), the centre
 * at (side - crop) / 2, rounded down. _cut_torchvision: the same with CenterCrop's offset, rounded to the nearest,
 * halves to even. _pad: open_clip's ResizeMaxSize: the long side to crop, the other to the nearest whole number (halves
 * to even), black around it, the odd pixel behind. */
struct draft_tensor *draft_picture_cut(struct draft_graph *g, const struct draft_picture_form *form,
                                       struct draft_tensor *x);
struct draft_tensor *draft_picture_cut_torchvision(struct draft_graph *g, const struct draft_picture_form *form,
                                                   struct draft_tensor *x);
struct draft_tensor *draft_picture_pad(struct draft_graph *g, const struct draft_picture_form *form,
                                       struct draft_tensor *x);

#endif
