#include "models/resnet.h"

#include <stdarg.h>
#include <stdio.h>

void draft_load_resnet(struct draft_loader *loader, struct draft_resnet *block, int64_t in, int64_t out, int64_t temb,
                       int groups, float eps, const char *path, ...)
{
    char name[256];
    va_list list;
    va_start(list, path);
    vsnprintf(name, sizeof name, path, list);
    va_end(list);

    draft_load_group_norm(loader, &block->norm1, in, groups, eps, "%s.norm1", name);
    draft_load_conv(loader, &block->conv1, in, out, 3, 1, 1, "%s.conv1", name);
    if (temb != 0)
        draft_load_linear(loader, &block->time_emb_proj, temb, out, true, "%s.time_emb_proj", name);
    draft_load_group_norm(loader, &block->norm2, out, groups, eps, "%s.norm2", name);
    draft_load_conv(loader, &block->conv2, out, out, 3, 1, 1, "%s.conv2", name);
    if (in != out)
        draft_load_pointwise(loader, &block->conv_shortcut, in, out, "%s.conv_shortcut", name);
}

struct draft_row_layer draft_resnet_time_layer(const struct draft_resnet *block)
{
    return (struct draft_row_layer){block->time_emb_proj.weight, block->time_emb_proj.bias, block->conv1.bias};
}

struct draft_tensor *draft_resnet_forward(struct draft_graph *g, const struct draft_resnet *block,
                                          struct draft_tensor *x, struct draft_tensor *bias)
{
    struct draft_conv_layer conv1 = block->conv1;
    if (bias != NULL)
        conv1.bias = bias;
    struct draft_tensor *h = group_norm_silu(g, x, &block->norm1); /* [n, h, w, in] */
    h = conv(g, h, &conv1);                                        /* [n, h, w, out] */
    h = group_norm_silu(g, h, &block->norm2);                      /* [n, h, w, out] */
    if (block->conv_shortcut.weight != NULL)
        x = linear(g, x, &block->conv_shortcut); /* [n, h, w, out] */
    return conv_onto(g, x, h, &block->conv2);
}
