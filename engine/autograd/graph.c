#include "autograd/profile.h"
#include "autograd/tape.h"

#include "autograd/replay.h"
#include "backend/backend.h"
#include "tensor/half.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Of one step: some hundred bytes for each of its ops. Address space only, until it is touched. */
static const size_t NOTES_BYTES = (size_t)1 << 30;

bool draft_graph_init(struct draft_graph *g, struct draft_backend *backend, struct draft_arena *step,
                      struct draft_error *err)
{
    *g = (struct draft_graph){.backend = backend, .step = step, .recording = true};
    g->notes = draft_arena_create("graph", NOTES_BYTES, err);
    if (g->notes == NULL)
        return false;
    g->tape = calloc(1, sizeof *g->tape);
    if (g->tape == NULL)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory for a graph");
    return true;
}

static void forget_leaves(struct draft_graph *g)
{
    while (g->tape->leaves != NULL) {
        struct draft_leaf *leaf = g->tape->leaves;
        g->tape->leaves = leaf->next;
        leaf->tensor->grad = NULL;
        leaf->tensor->grad_written = false;
        draft_backend_free(g->backend, leaf->grad);
        free(leaf);
    }
}

void draft_graph_finish(struct draft_graph *g)
{
    draft_replays_free(g);
    if (g->tape != NULL)
        forget_leaves(g);
    free(g->tape);
    g->tape = NULL;
    draft_arena_destroy(g->notes);
    g->notes = NULL;
}

struct draft_mark draft_graph_mark(const struct draft_graph *g)
{
    return (struct draft_mark){draft_arena_mark(g->step), draft_arena_mark(g->notes)};
}

void draft_graph_release(struct draft_graph *g, struct draft_mark mark)
{
    draft_values_release(g, mark);
    if (mark.step < draft_arena_mark(g->step)) /* in a backward pass what lay below may have been given back */
        draft_arena_release(g->step, mark.step);
    draft_arena_release(g->notes, mark.notes);
}

void draft_graph_reset(struct draft_graph *g, const struct draft_mark *mark)
{
    forget_leaves(g);
    *g->tape = (struct draft_tape){0};
    draft_graph_release(g, mark != NULL ? *mark : (struct draft_mark){0});
    g->error = (struct draft_error){0};
}

static void *take(struct draft_graph *g, struct draft_arena *arena, size_t bytes)
{
    void *p = draft_arena_alloc(arena, bytes);
    if (p == NULL)
        draft_arena_fail(arena, bytes, &g->error);
    return p;
}

void *draft_note(struct draft_graph *g, size_t bytes)
{
    return take(g, g->notes, bytes);
}

/* False when a dimension is negative or the bytes overflow: shapes come from model files. */
static bool shape_bytes(enum draft_dtype dtype, int rank, const int64_t *dim, size_t *bytes)
{
    *bytes = draft_dtype_size(dtype);
    for (int i = 0; i < rank; i++)
        if (dim[i] < 0 || __builtin_mul_overflow(*bytes, (size_t)dim[i], bytes))
            return false;
    return *bytes <= SIZE_MAX / 2;
}

struct draft_tensor *draft_new(struct draft_graph *g, enum draft_dtype dtype, int rank, const int64_t *dim)
{
    assert(rank >= 0 && rank <= DRAFT_MAX_RANK);
    if (!draft_graph_ok(g))
        return NULL;
    size_t bytes;
    if (!shape_bytes(dtype, rank, dim, &bytes)) {
        char shape[128];
        draft_fail(&g->error, DRAFT_INVALID_ARGUMENT, "a tensor of shape %s is not possible",
                   draft_shape_text(rank, dim, shape, sizeof shape));
        return NULL;
    }
    struct draft_tensor *t = draft_note(g, sizeof *t);
    if (t == NULL)
        return NULL;
    bool recorded = g->recording && dtype != DRAFT_I32;
    struct draft_values *values = recorded ? draft_values_make(g, bytes) : NULL;
    void *data = values != NULL ? values->at : NULL;
    if (!recorded)
        data = take(g, dtype == DRAFT_I32 ? g->notes : g->step, bytes);
    if (data == NULL)
        return NULL;
    *t = (struct draft_tensor){.dtype = dtype, .rank = rank, .data = data, .values = values};
    memcpy(t->dim, dim, (size_t)rank * sizeof *dim);
    return t;
}

struct draft_tensor *draft_new_rows(struct draft_graph *g, enum draft_dtype dtype, int rank, const int64_t *dim)
{
    int64_t wide[DRAFT_MAX_RANK];
    if (g->room == 0 || g->recording || !draft_backend_folds(g->backend, dtype, dim[rank - 1], g->room))
        return draft_new(g, dtype, rank, dim);
    memcpy(wide, dim, (size_t)rank * sizeof *dim);
    wide[rank - 1] += g->room;
    struct draft_tensor *t = draft_new(g, dtype, rank, wide);
    if (t == NULL)
        return NULL;
    t->row = wide[rank - 1];
    t->dim[rank - 1] = dim[rank - 1];
    return t;
}

struct draft_tensor *draft_new_view(struct draft_graph *g, const struct draft_tensor *x, int rank, const int64_t *dim,
                                    size_t offset)
{
    assert(rank >= 0 && rank <= DRAFT_MAX_RANK);
    if (!draft_graph_ok(g))
        return NULL;
    struct draft_tensor *t = draft_note(g, sizeof *t);
    if (t == NULL)
        return NULL;
    *t = (struct draft_tensor){.dtype = x->dtype,
                               .rank = rank,
                               .data = (char *)x->data + offset * draft_dtype_size(x->dtype),
                               .values = x->values};
    memcpy(t->dim, dim, (size_t)rank * sizeof *dim);
    return t;
}

static size_t bytes_of(const struct draft_tensor *x)
{
    return (size_t)draft_tensor_count(x) * draft_dtype_size(x->dtype);
}

const float *draft_read(struct draft_graph *g, const struct draft_tensor *x)
{
    if (x == NULL || !draft_graph_ok(g))
        return NULL;
    if (draft_backend_on_host(g->backend) && x->dtype == DRAFT_F32)
        return draft_f32(x);
    /* Halves go into the copy's second part: each is read before its place is written. */
    int64_t n = draft_tensor_count(x);
    float *copy = draft_note(g, (size_t)n * sizeof *copy);
    uint16_t *half = x->dtype == DRAFT_BF16 ? (uint16_t *)copy + n : NULL;
    if (copy == NULL ||
        !draft_backend_download(g->backend, half != NULL ? (void *)half : copy, x->data, bytes_of(x), &g->error))
        return NULL;
    for (int64_t i = 0; half != NULL && i < n; i++)
        copy[i] = draft_bf16_to_f32(half[i]);
    return copy;
}

float *draft_write(struct draft_graph *g, struct draft_tensor *x)
{
    if (x == NULL || !draft_graph_ok(g))
        return NULL;
    assert(x->dtype == DRAFT_F32);
    return draft_backend_on_host(g->backend) ? draft_f32(x) : draft_note(g, bytes_of(x));
}

bool draft_written(struct draft_graph *g, struct draft_tensor *x, const float *array)
{
    if (!draft_graph_ok(g))
        return false;
    return array == draft_f32(x) || draft_backend_upload(g->backend, x->data, array, bytes_of(x), &g->error);
}

struct draft_tensor *draft_scalar(struct draft_graph *g, double value)
{
    struct draft_tensor *x = draft_new(g, DRAFT_F32, 1, (int64_t[]){1});
    float *array = draft_write(g, x);
    if (array == NULL)
        return NULL;
    *array = (float)value;
    return draft_written(g, x, array) ? x : NULL;
}

bool draft_copy_values(struct draft_graph *g, struct draft_tensor *to, const struct draft_tensor *from)
{
    assert(draft_tensor_count(to) == draft_tensor_count(from));
    assert(to->dtype == DRAFT_F32 && from->dtype == DRAFT_F32);
    return draft_graph_ok(g) && draft_backend_axpby(g->backend, DRAFT_F32, draft_tensor_count(to), 1, from->data,
                                                    to->data, false, &g->error);
}

struct draft_tensor *draft_detach(struct draft_graph *g, struct draft_tensor *x)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL);
    return draft_new_view(g, x, x->rank, x->dim, 0);
}

bool draft_tape_record(struct draft_graph *g, const struct draft_call *call)
{
    size_t notes = draft_arena_mark(g->notes);
    struct draft_tape_node *node = draft_note(g, sizeof *node + call->args_size);
    if (node == NULL)
        return false;
    *node = (struct draft_tape_node){.previous = g->tape->last, .notes = notes, .call = *call};
    if (call->args_size > 0)
        node->call.args = memcpy(node + 1, call->args, call->args_size);
    g->tape->last = node;
    call->out->tape_level = g->tape->level + 1;
    draft_values_keep(call);
    return true;
}

struct draft_op_column draft_op_on(const struct draft_backend *backend, const struct draft_op *op)
{
    const struct draft_op_column *const *table = draft_backend_kind(backend)->ops;
    return table == NULL || op->anywhere ? (struct draft_op_column){op->forward, op->backward} : *table[op->id];
}

struct draft_tensor *draft_graph_run(struct draft_graph *g, struct draft_call *call)
{
    if (!draft_graph_ok(g))
        return NULL;
    bool needed = false;
    for (int i = 0; i < DRAFT_MAX_INPUTS; i++)
        needed |= call->in[i] != NULL && call->in[i]->needs_grad;
    g->tape->touched |= needed;
    needed &= g->recording;
    if (needed && call->op->backward == NULL) {
        draft_fail(&g->error, DRAFT_FAILED_PRECONDITION, "%s has no gradient: %s", call->op->name,
                   call->op->no_gradient);
        return NULL;
    }
    assert(!draft_backend_on_host(g->backend) || draft_backend_is_dry(g->backend) || call->out->dtype != DRAFT_BF16 ||
           call->op->anywhere || call->op->id == DRAFT_OP_convert);
    call->out->needs_grad = needed; /* forward looks at it to know whether notes will be read */
    if (!draft_op_run(g, call, draft_op_on(g->backend, call->op).forward, false) ||
        !draft_backend_settled(g->backend, &g->error)) {
        draft_error_prefix(&g->error, "%s: ", call->op->name);
        draft_fail(&g->error, DRAFT_INTERNAL, "%s failed without a reason", call->op->name);
        return NULL;
    }
    if (needed && !draft_tape_record(g, call))
        return NULL;
    return call->out;
}

void draft_merge_begin(struct draft_graph *g)
{
    static _Atomic uint64_t runs; /* of all graphs: they may share weights */
    g->merged_run = ++runs;
}

struct draft_mark draft_scope_begin(struct draft_graph *g)
{
    return draft_graph_mark(g);
}

struct draft_tensor *draft_scope_end(struct draft_graph *g, struct draft_mark mark, struct draft_tensor *keep)
{
    if (!draft_graph_ok(g))
        return NULL;
    if (g->recording) {
        draft_values_end_scope(g, mark, keep);
        return keep;
    }
    if (keep == NULL) {
        draft_graph_release(g, mark);
        return NULL;
    }
    struct draft_tensor old = *keep;
    size_t bytes = bytes_of(&old);
    if (draft_backend_is_dry(g->backend)) /* nothing is there to be moved */
        draft_arena_release(g->step, mark.step);
    void *data = draft_backend_is_dry(g->backend) ? draft_arena_alloc(g->step, bytes)
                                                  : draft_arena_slide(g->step, mark.step, old.data, bytes);
    if (data == NULL) {
        draft_arena_fail(g->step, bytes, &g->error);
        return NULL;
    }
    draft_arena_release(g->notes, mark.notes);
    struct draft_tensor *moved = draft_note(g, sizeof *moved);
    if (moved == NULL)
        return NULL;
    *moved = (struct draft_tensor){.dtype = old.dtype, .rank = old.rank, .data = data};
    memcpy(moved->dim, old.dim, sizeof old.dim);
    return moved;
}
