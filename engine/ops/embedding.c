/*
 * embedding: y[.., c] = table[ids[..], c], table [v, c], ids I32 [n, s] -> y [n, s, c]. A table without values is read
 * from its file, row by row.
 *   dtable[id] = sum of dy where that id stands, zero for ids that do not occur
 */
#include "ops/op.h"
#include "tensor/weight_source.h"

#include <assert.h>
#include <stdio.h>

enum { TABLE, IDS };

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const int32_t *ids = call->in[IDS]->data;
    int64_t c = draft_last(call->in[TABLE]);
    for (int64_t i = 0; i < draft_tensor_count(call->in[IDS]); i++)
        if (!draft_weight_rows(call->in[TABLE], ids[i], 1, draft_f32(call->out) + i * c, &g->error))
            return false;
    return draft_weight_unchanged(call->in[TABLE], &g->error);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const int32_t *ids = call->in[IDS]->data;
    int64_t c = draft_last(call->in[TABLE]);
    bool accumulate;
    float *dtable = draft_grad(g, call->in[TABLE], &accumulate);
    if (dtable == NULL)
        return false;
    if (!accumulate)
        memset(dtable, 0, (size_t)draft_tensor_count(call->in[TABLE]) * sizeof *dtable);
    for (int64_t i = 0; i < draft_tensor_count(call->in[IDS]); i++)
        for (int64_t j = 0; j < c; j++)
            dtable[ids[i] * c + j] += draft_grad_f32(call->out)[i * c + j];
    return true;
}

const struct draft_op draft_op_embedding = {
    .name = "embedding", .id = DRAFT_OP_embedding, .forward = forward, .backward = backward};

struct draft_tensor *draft_embedding(struct draft_graph *g, struct draft_tensor *table, struct draft_tensor *ids)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(table != NULL && ids != NULL);
    if (!draft_is_f32(table, 2) || ids->dtype != DRAFT_I32 || ids->rank != 2)
        return DRAFT_REFUSE(g, "embedding", "a table [v, c] and ids I32 [n, s]", table, ids);
    const int32_t *id = ids->data;
    for (int64_t i = 0; i < draft_tensor_count(ids); i++)
        if (id[i] < 0 || id[i] >= table->dim[0]) {
            char expected[96];
            snprintf(expected, sizeof expected, "a table that has row %d (a token id)", id[i]);
            return DRAFT_REFUSE(g, "embedding", expected, table);
        }
    struct draft_call call = {.op = &draft_op_embedding, .in = {table, ids}};
    call.out = draft_new(g, g->activations, 3, (int64_t[]){ids->dim[0], ids->dim[1], table->dim[1]});
    return draft_graph_run(g, &call);
}
