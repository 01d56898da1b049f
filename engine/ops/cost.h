/*
 * What a call must do at least, from its shapes: floating-point operations (a product's multiply and add are two) and
 * bytes of its inputs and outputs, each moved once. What a kernel does beyond that (patches, tiles read twice, an
 * attention's scores) is not in it: the distance to the roofline shows it.
 */
#ifndef DRAFT_OPS_COST_H
#define DRAFT_OPS_COST_H

#include "autograd/graph.h"

struct draft_cost {
    double flops, bytes;
};

/* Of one direction; a backward's depends on which inputs want a gradient. */
struct draft_cost draft_op_cost(const struct draft_call *call, bool backward);
/* The op and its shapes: "linear 8192 x 320>2560 + LoRA 32", "conv2d 3x3 320>320 at 2x64x64". */
void draft_op_describe(const struct draft_call *call, char *text, size_t size);

#endif
