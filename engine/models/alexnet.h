/* torchvision's AlexNet, features only (Krizhevsky 2014). Internal to models/. */
#ifndef DRAFT_MODELS_ALEXNET_H
#define DRAFT_MODELS_ALEXNET_H

#include "models/layers.h"

enum { ALEXNET_STAGES = 5 };
extern const int64_t draft_alexnet_channels[ALEXNET_STAGES]; /* of the five ReLU outputs */

struct alexnet {
    struct draft_conv_layer conv[ALEXNET_STAGES];
};

void draft_alexnet_load(struct draft_loader *loader, struct alexnet *net);
/* x [n, h, w, 3] -> the five ReLU outputs. False when the graph failed. */
bool draft_alexnet_forward(struct draft_graph *g, const struct alexnet *net, struct draft_tensor *x,
                           struct draft_tensor *stage[ALEXNET_STAGES]);

#endif
