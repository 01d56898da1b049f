/*
 * linears: y[i] = x W_i^T + s (x A_i^T) B_i^T for the layers i of a group, which have one shape (linear.c); in memory
 * one behind the other. x [n, ..., k], W_i [o, k], y[i] [n, ..., o]
 */
#include "ops/op.h"

#include <assert.h>

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_linears_args *a = call->args;
    struct draft_tensor part;
    bool done = true;
    for (int i = 0; done && i < a->count; i++) {
        struct draft_call one = draft_linear_of(call, i, &part);
        done = draft_op_linear.forward(g, &one);
    }
    return done;
}

const struct draft_op draft_op_linears = {
    .name = "linears",
    .id = DRAFT_OP_linears,
    .forward = forward,
    DRAFT_NO_GRADIENT("where one is wanted, its layers are computed by themselves")};

/* What linear would not refuse, and all of one shape. */
static bool fit(const struct draft_tensor *x, const struct draft_projection *layer, int count,
                struct draft_linears_args *args)
{
    const struct draft_tensor *w = layer[0].weight;
    *args = (struct draft_linears_args){.count = count};
    if (x->rank < 2 || !draft_is_float(x) || w->rank != 2 || w->dim[1] != draft_last(x))
        return false;
    args->each = (struct draft_linear_args){.m = draft_rows(x), .k = w->dim[1], .o = w->dim[0]};
    for (int i = 0; i < count; i++) {
        const struct draft_lora *lora = layer[i].lora != NULL && *layer[i].lora->on ? layer[i].lora : NULL;
        const int64_t r = lora != NULL ? lora->down->dim[0] : 0;
        if (!draft_is_f32(layer[i].weight, 2) || !draft_same_shape(layer[i].weight, w) || (i > 0 && r != args->each.r))
            return false;
        if (lora != NULL && (!draft_is_f32(lora->down, 2) || !draft_is_f32(lora->up, 2) ||
                             lora->down->dim[1] != w->dim[1] || lora->up->dim[0] != w->dim[0] || lora->up->dim[1] != r))
            return false;
        args->each.r = r;
        args->each.scale = lora != NULL ? *lora->scale : 0;
        args->w[i] = layer[i].weight;
        args->down[i] = lora != NULL ? lora->down : NULL;
        args->up[i] = lora != NULL ? lora->up : NULL;
    }
    return true;
}

void draft_linears(struct draft_graph *g, struct draft_tensor *x, const struct draft_projection *layer, int count,
                   struct draft_tensor **y)
{
    struct draft_linears_args args;
    assert(count >= 1 && count <= DRAFT_MAX_SIBLINGS);
    if (!draft_graph_ok(g) || g->recording || !fit(x, layer, count, &args)) {
        for (int i = 0; i < count; i++)
            y[i] = draft_linear(g, x, layer[i].weight, NULL, layer[i].lora);
        return;
    }
    int64_t dim[DRAFT_MAX_RANK];
    memcpy(dim, x->dim, sizeof dim);
    dim[x->rank - 1] = args.each.o;
    dim[0] *= count;
    struct draft_call call = {.op = &draft_op_linears, .in = {x}, .args = &args, .args_size = sizeof args};
    call.out = draft_new(g, x->dtype, x->rank, dim);
    struct draft_tensor *all = draft_graph_run(g, &call);
    dim[0] /= count;
    for (int i = 0; i < count; i++)
        y[i] = all != NULL ? draft_new_view(g, all, x->rank, dim, (size_t)(i * args.each.m * args.each.o)) : NULL;
}
