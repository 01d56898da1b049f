/*
 * How long the values of recorded activations are kept. Which of them backwards will read, ops say (draft_op's reads);
 * which of the others the forward pass has done with, scopes say. Those are given back to the step arena, where they
 * leave holes for the activations to come: of norm -> frozen convolution -> norm, say, the first norm's result.
 *
 * A backward that reads what its op did not declare finds NULL, whatever backend runs it.
 */
#include "autograd/tape.h"

void *draft_values_room(struct draft_graph *g, size_t bytes)
{
    void *at = draft_arena_reuse(g->step, g->tape->holes, bytes);
    if (at == NULL && (at = draft_arena_alloc(g->step, bytes)) == NULL)
        draft_arena_fail(g->step, bytes, &g->error);
    return at;
}

static struct draft_values *note_values(struct draft_graph *g, void *at, size_t bytes)
{
    size_t notes = draft_arena_mark(g->notes);
    struct draft_values *values = at != NULL ? draft_note(g, sizeof *values) : NULL;
    if (values == NULL)
        return NULL;
    *values = (struct draft_values){.previous = g->tape->values, .at = at, .bytes = bytes, .notes = notes};
    return g->tape->values = values;
}

struct draft_values *draft_values_make(struct draft_graph *g, size_t bytes)
{
    return note_values(g, draft_values_room(g, bytes), bytes);
}

bool draft_values_adopt(struct draft_graph *g, struct draft_tensor *x)
{
    x->values = note_values(g, x->data, (size_t)draft_tensor_count(x) * draft_dtype_size(x->dtype));
    return x->values != NULL;
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
    for (struct draft_tape_node *node = g->tape->last; node != NULL && node->notes >= mark.notes;
         node = node->previous) {
        for (int i = 0; i < DRAFT_MAX_INPUTS; i++)
            forget_gone(node->call.in[i]);
        forget_gone(node->call.out);
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

void draft_values_pass(struct draft_graph *g, size_t notes)
{
    for (; g->tape->values != NULL && g->tape->values->notes > notes; g->tape->values = g->tape->values->previous)
        if (!g->tape->values->gone)
            draft_arena_give(g->step, g->tape->values->at, g->tape->values->bytes);
}
