#include "models/alexnet.h"

const int64_t draft_alexnet_channels[ALEXNET_STAGES] = {64, 192, 384, 256, 256};

static const struct {
    int place; /* in torchvision's "features" */
    int kernel, stride, pad;
    bool pool; /* 3x3 max pooling with stride 2 comes before it */
} STAGE[ALEXNET_STAGES] = {
    {0, 11, 4, 2, false}, {3, 5, 1, 2, true}, {6, 3, 1, 1, true}, {8, 3, 1, 1, false}, {10, 3, 1, 1, false},
};

void draft_alexnet_load(struct draft_loader *loader, struct alexnet *net)
{
    for (int i = 0; i < ALEXNET_STAGES; i++)
        draft_load_conv(loader, &net->conv[i], i > 0 ? draft_alexnet_channels[i - 1] : 3, draft_alexnet_channels[i],
                        STAGE[i].kernel, STAGE[i].stride, STAGE[i].pad, "features.%d", STAGE[i].place);
}

bool draft_alexnet_forward(struct draft_graph *g, const struct alexnet *net, struct draft_tensor *x,
                           struct draft_tensor *stage[ALEXNET_STAGES])
{
    for (int i = 0; i < ALEXNET_STAGES; i++) {
        if (STAGE[i].pool)
            x = draft_max_pool(g, x, 3, 2);
        x = draft_activate(g, conv(g, x, &net->conv[i]), DRAFT_RELU); /* [n, h_i, w_i, channels_i] */
        stage[i] = x;
    }
    return draft_graph_ok(g);
}
