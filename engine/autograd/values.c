/*
 * How long the values of recorded activations are kept. Which of them backwards will read, ops say (draft_op's reads);
 * which of the others the forward pass has done with, scopes say. Those are given back to the step arena, where they
 * leave holes for the activations to come: of norm -> frozen convolution -> norm, say, the first norm's result.
 *
 * A backward that reads what its op did not declare finds NULL, whatever backend runs it.
 */
#include "autograd/tape.h"

struct draft_values *draft_values_make(struct draft_graph *g, size_t bytes)
{
    size_t notes = draft_arena_mark(g->notes);
    struct draft_values *values = draft_note(g, sizeof *values);
    if (values == NULL)
        return NULL;
    void *at = draft_arena_reuse(g->step, g->tape->holes, bytes);
    if (at == NULL && (at = draft_arena_alloc(g->step, bytes)) == NULL) {
        draft_arena_fail(g->step, bytes, &g->error);
        return NULL;
    }
    *values = (struct draft_values){.previous = g->tape->values, .at = at, .bytes = bytes, .notes = notes};
    g->tape->values = values;
    return values;
}

static void keep_values(const struct draft_tensor *x)
{
    if (x != NULL && x->values != NULL)
        x->values->read = true;
}

void draft_values_keep(const struct draft_call *call)
{
    unsigned reads = call->op->reads != NULL ? call->op->reads(call) : DRAFT_READS_ALL;
    for (int i = 0; i < DRAFT_MAX_INPUTS; i++)
        if (reads >> i & 1)
            keep_values(call->in[i]);
    for (int i = 0; i < DRAFT_MAX_SAVED; i++)
        keep_values(call->saved[i]);
    if (reads & DRAFT_READS_OUT)
        keep_values(call->out);
}

static void forget_gone(struct draft_tensor *x)
{
    if (x != NULL && x->values != NULL && x->values->gone)
        x->data = NULL;
}

void draft_values_end_scope(struct draft_graph *g, struct draft_mark mark, const struct draft_tensor *keep)
{
    const struct draft_values *kept = keep != NULL ? keep->values : NULL;
    size_t begin = mark.notes > g->tape->pinned ? mark.notes : g->tape->pinned;
    for (struct draft_values *v = g->tape->values; v != NULL && v->notes >= begin; v = v->previous) {
        if (v->read || v->gone || v == kept)
            continue;
        v->gone = true;
        draft_arena_give(g->step, v->at, v->bytes);
    }
    size_t end = draft_arena_mark(g->step);
    for (struct draft_tape_node *node = g->tape->last; node != NULL && node->notes >= mark.notes;
         node = node->previous) {
        for (int i = 0; i < DRAFT_MAX_INPUTS; i++)
            forget_gone(node->call.in[i]);
        forget_gone(node->call.out);
        node->end = node->end < end ? node->end : end; /* all that is left lies below */
    }
}

void draft_values_release(struct draft_graph *g, struct draft_mark mark)
{
    for (; g->tape->values != NULL && g->tape->values->notes >= mark.notes;
         g->tape->values = g->tape->values->previous) {
        const struct draft_values *v = g->tape->values;
        if (!v->gone && draft_arena_offset(g->step, v->at) < mark.step)
            draft_arena_give(g->step, v->at, v->bytes);
    }
}
