#include "ops/op.h"

#include <assert.h>
#include <stdio.h>

#define DRAFT_OP(name) &draft_op_##name,
const struct draft_op *const draft_op_list[] = {
#include "ops/ops.def"
    NULL};
#undef DRAFT_OP

unsigned draft_reads_nothing(const struct draft_call *call)
{
    (void)call;
    return 0;
}

unsigned draft_reads_inputs(const struct draft_call *call)
{
    (void)call;
    return DRAFT_READS_OUT - 1;
}

static void describe(const struct draft_tensor *t, char *text, size_t size)
{
    char shape[128];
    if (t == NULL)
        snprintf(text, size, "nothing");
    else
        snprintf(text, size, "%s%s%s%s%s%s", t->dtype == DRAFT_F32 ? "" : draft_dtype_name(t->dtype),
                 t->dtype == DRAFT_F32 ? "" : " ", draft_shape_text(t->rank, t->dim, shape, sizeof shape),
                 t->name != NULL ? " (" : "", t->name != NULL ? t->name : "", t->name != NULL ? ")" : "");
}

struct draft_tensor *draft_refuse(struct draft_graph *g, const char *op, const char *expected, int count,
                                  const struct draft_tensor *const *got)
{
    char list[768] = "", one[256];
    size_t length = 0;
    for (int i = 0; i < count; i++) {
        describe(got[i], one, sizeof one);
        int n = snprintf(list + length, sizeof list - length, "%s%s",
                         i == 0           ? ""
                         : i == count - 1 ? " and "
                                          : ", ",
                         one);
        length += n > 0 ? (size_t)n : 0;
        if (length >= sizeof list)
            break;
    }
    draft_fail(&g->error, DRAFT_INVALID_ARGUMENT, "%s: expected %s, got %s", op, expected, list);
    return NULL;
}

void *draft_temporary(struct draft_graph *g, size_t bytes)
{
    void *p = draft_arena_alloc(g->step, bytes);
    if (p == NULL)
        draft_arena_fail(g->step, bytes, &g->error);
    return p;
}

struct copy {
    int64_t width, from_stride, to_stride;
    const float *from;
    float *to;
    bool accumulate;
};

static void copy_range(void *context, int64_t begin, int64_t end)
{
    const struct copy *c = context;
    for (int64_t r = begin; r < end; r++) {
        const float *from = c->from + r * c->from_stride;
        float *to = c->to + r * c->to_stride;
        if (c->accumulate)
            for (int64_t i = 0; i < c->width; i++)
                to[i] += from[i];
        else
            memcpy(to, from, (size_t)c->width * sizeof *to);
    }
}

void draft_copy_rows(struct draft_backend *backend, int64_t rows, int64_t width, const float *from, int64_t from_stride,
                     float *to, int64_t to_stride, bool accumulate)
{
    if (width == 0)
        return;
    int64_t grain = width >= DRAFT_GRAIN ? 1 : DRAFT_GRAIN / width;
    draft_parallel_range(backend, rows, grain, copy_range,
                         &(struct copy){width, from_stride, to_stride, from, to, accumulate});
}

/* Floats from the large picture's start to the window's, for picture n. */
static int64_t window_start(const struct draft_window *window, int64_t n)
{
    const int64_t *large = window->large->dim;
    return ((n * large[1] + window->top) * large[2] + window->left) * large[3];
}

void draft_take_window(struct draft_backend *backend, const struct draft_window *window, const float *large,
                       float *small, bool accumulate)
{
    const int64_t *dim = window->small->dim, row = dim[2] * dim[3];
    for (int64_t n = 0; n < dim[0]; n++)
        draft_copy_rows(backend, dim[1], row, large + window_start(window, n), window->large->dim[2] * dim[3],
                        small + n * dim[1] * row, row, accumulate);
}

void draft_put_window(struct draft_backend *backend, const struct draft_window *window, const float *small,
                      float *large, bool accumulate)
{
    const int64_t *dim = window->small->dim, row = dim[2] * dim[3];
    for (int64_t n = 0; n < dim[0]; n++)
        draft_copy_rows(backend, dim[1], row, small + n * dim[1] * row, row, large + window_start(window, n),
                        window->large->dim[2] * dim[3], accumulate);
}
