/*
 * row_linears: y[i] = W_i x + b_i + c_i for layers i of any width, x [1, k]; in memory one behind the other, each from
 * a multiple of DRAFT_ROW_ALIGNED numbers on
 */
#include "ops/op.h"

#include <assert.h>

static int64_t aligned(int64_t numbers)
{
    return (numbers + DRAFT_ROW_ALIGNED - 1) / DRAFT_ROW_ALIGNED * DRAFT_ROW_ALIGNED;
}

/* As linear's call, with the second bias for a residual. */
static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_row_linears_args *a = call->args;
    float *y = draft_f32(call->out);
    bool done = true;
    for (int i = 0; done && i < a->count; i++) {
        const struct draft_row_layer *l = &a->layer[i];
        struct draft_linear_args args = {.m = 1, .k = l->weight->dim[1], .o = l->weight->dim[0]};
        struct draft_tensor part = {.dtype = DRAFT_F32, .rank = 2, .dim = {1, args.o}, .data = y};
        struct draft_call one = {.op = &draft_op_linear,
                                 .in = {call->in[0], l->weight, l->bias, NULL, NULL, l->more},
                                 .out = &part,
                                 .args = &args};
        done = draft_op_linear.forward(g, &one);
        y += aligned(args.o);
    }
    return done;
}

const struct draft_op draft_op_row_linears = {
    .name = "row_linears",
    .id = DRAFT_OP_row_linears,
    .forward = forward,
    DRAFT_NO_GRADIENT("where one is wanted, its layers are computed by themselves")};

/* What linear would not refuse. */
static bool fit(const struct draft_tensor *x, const struct draft_row_layer *layer, int count)
{
    bool fits = draft_is_activation(x, 2) && x->dim[0] == 1;
    for (int i = 0; fits && i < count; i++)
        fits = draft_is_f32(layer[i].weight, 2) && layer[i].weight->dim[1] == x->dim[1] &&
               draft_is_vector(layer[i].bias, layer[i].weight->dim[0]) &&
               draft_is_vector(layer[i].more, layer[i].weight->dim[0]);
    return fits;
}

void draft_row_linears(struct draft_graph *g, struct draft_tensor *x, const struct draft_row_layer *layer, int count,
                       struct draft_tensor **y)
{
    if (!draft_graph_ok(g) || g->recording || !fit(x, layer, count)) {
        for (int i = 0; i < count; i++) {
            y[i] = draft_linear_onto(g, layer[i].more, x, layer[i].weight, layer[i].bias, NULL); /* [1, o] */
            y[i] = y[i] != NULL ? draft_reshape(g, y[i], 1, &y[i]->dim[1]) : NULL;
        }
        return;
    }
    int64_t numbers = 0;
    for (int i = 0; i < count; i++)
        numbers += aligned(layer[i].weight->dim[0]);
    struct draft_row_linears_args args = {count, layer};
    struct draft_call call = {.op = &draft_op_row_linears, .in = {x}, .args = &args, .args_size = sizeof args};
    call.out = draft_new(g, x->dtype, 1, &numbers);
    struct draft_tensor *all = draft_graph_run(g, &call);
    size_t place = 0;
    for (int i = 0; i < count; i++) {
        y[i] = all != NULL ? draft_new_view(g, all, 1, &layer[i].weight->dim[0], place) : NULL;
        place += (size_t)aligned(layer[i].weight->dim[0]);
    }
}
