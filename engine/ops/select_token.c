/*
 * select_token: y[i] = x[i, index[i]], x [n, s, c] -> y [n, c] (pooling at the class or the end-of-text token); without
 * an index y[i] = x[i, 0]
 *   dx: dy at those rows, zero elsewhere
 */
#include "ops/op.h"

#include <assert.h>
#include <stdio.h>

enum { INDEX }; /* saved: the caller's array need not outlive the call; or NULL */

static int64_t chosen(const struct draft_call *call, int64_t i)
{
    const struct draft_tensor *index = call->saved[INDEX];
    return index != NULL ? ((const int32_t *)index->data)[i] : 0;
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    (void)g;
    const struct draft_tensor *x = call->in[0];
    int64_t c = x->dim[2], row = x->dim[1] * c;
    for (int64_t i = 0; i < x->dim[0]; i++)
        memcpy(draft_f32(call->out) + i * c, draft_f32(x) + i * row + chosen(call, i) * c, (size_t)c * sizeof(float));
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_tensor *x = call->in[0];
    int64_t c = x->dim[2], row = x->dim[1] * c;
    bool accumulate;
    float *dx = draft_grad(g, call->in[0], &accumulate);
    if (dx == NULL)
        return false;
    if (!accumulate)
        memset(dx, 0, (size_t)draft_tensor_count(x) * sizeof *dx);
    for (int64_t i = 0; i < x->dim[0]; i++)
        for (int64_t j = 0; j < c; j++)
            dx[i * row + chosen(call, i) * c + j] += draft_grad_f32(call->out)[i * c + j];
    return true;
}

const struct draft_op draft_op_select_token = {.name = "select_token",
                                               .id = DRAFT_OP_select_token,
                                               .forward = forward,
                                               .backward = backward,
                                               .reads = draft_reads_nothing};

struct draft_tensor *draft_select_token(struct draft_graph *g, struct draft_tensor *x, const int32_t *index)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL);
    if (!draft_is_activation(x, 3))
        return DRAFT_REFUSE(g, "select_token", "x [n, s, c]", x);
    for (int64_t i = 0; i < x->dim[0]; i++) {
        const int32_t at = index != NULL ? index[i] : 0;
        char expected[96];
        if (at >= 0 && at < x->dim[1])
            continue;
        snprintf(expected, sizeof expected, "a sequence that has position %d", at);
        return DRAFT_REFUSE(g, "select_token", expected, x);
    }
    struct draft_call call = {.op = &draft_op_select_token, .in = {x}};
    call.out = draft_new(g, x->dtype, 2, (int64_t[]){x->dim[0], x->dim[2]});
    if (index != NULL) {
        call.saved[INDEX] = draft_new(g, DRAFT_I32, 1, x->dim);
        if (call.saved[INDEX] == NULL)
            return NULL;
        memcpy(call.saved[INDEX]->data, index, (size_t)x->dim[0] * sizeof *index);
    }
    return draft_graph_run(g, &call);
}
