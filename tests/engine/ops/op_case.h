/*
 * How an op is tested: against a plain twin in double.
 *
 * check_op() takes an op, its inputs and the twin, and holds them together:
 *   - forward against the twin;
 *   - the gradient of sum(seed * y), with a random seed, against central differences of the twin (step 1e-5 in double,
 *     so the reference is good to about 1e-9), for every element of every input;
 *   - overwrite and accumulate: into a leaf with numbers in its buffer, into an activation that has another consumer,
 *     and into one that has none (where an op may work in the buffer of its own output's gradient);
 *   - frozen: each input in turn needs no gradient and gets no buffer; the others' gradients are checked again, since a
 *     frozen weight may take another way through the backend.
 * Tolerances are relative to the largest reference value of a tensor, or to 0.01 where all are smaller.
 *
 * With TEST_PRECISION=bf16 (on a backend that has it) all inputs are numbers that BF16 has, activations are given and
 * their gradients taken in BF16, and both tolerances are BF16's.
 */
#ifndef TESTS_ENGINE_OPS_OP_CASE_H
#define TESTS_ENGINE_OPS_OP_CASE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/open.h"
#include "ops/op.h"
#include "tensor/half.h"

struct op_case {
    struct draft_tensor *in[DRAFT_MAX_INPUTS]; /* leaves; NULL for an absent one */
    struct draft_tensor *(*run)(struct draft_graph *g, struct draft_tensor *const *in, const void *context);
    /* x[i] as doubles, NULL for an absent or integer input */
    void (*twin)(const struct op_case *c, const double *const *x, double *y);
    const void *context;
    double forward, gradient; /* tolerances; 0: 1e-6 and 1e-5 */
    unsigned weights;         /* bit i: in[i] is F32 whatever activations are */
};

static const double OP_BF16 = 2e-2; /* tolerance of both */

struct op_test {
    struct draft_backend *backend;
    struct draft_arena *arena;
    struct draft_graph g;
    uint64_t random;
};

static inline int op_setup(void **state)
{
    struct op_test *t = calloc(1, sizeof *t);
    struct draft_error err = {0};
    if (t == NULL)
        return -1;
    /* TEST_DEVICE=cuda with the plugin over fakes (ctest -L cuda-host), whose memory the host may read and write */
    const char *device = getenv("TEST_DEVICE");
    t->backend = draft_backend_open(device != NULL ? device : "cpu", NULL,
                                    &(struct draft_backend_options){.threads = 2}, &draft_services, &err);
    t->arena = t->backend != NULL ? draft_backend_arena(t->backend, "step", (size_t)1 << 30, &err) : NULL;
    if (t->arena == NULL || !draft_graph_init(&t->g, t->backend, t->arena, &err)) {
        print_error("%s\n", err.message);
        return -1;
    }
    const char *precision = getenv("TEST_PRECISION");
    if (precision != NULL && strcmp(precision, "bf16") == 0)
        t->g.activations = DRAFT_BF16;
    *state = t;
    return 0;
}

static inline int op_teardown(void **state)
{
    struct op_test *t = *state;
    draft_graph_finish(&t->g);
    draft_arena_destroy(t->arena);
    draft_backend_destroy(t->backend);
    free(t);
    return 0;
}

/* uniform in [-1, 1): splitmix64 */
static inline float op_random(struct op_test *t)
{
    uint64_t z = (t->random += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (float)((double)((z ^ z >> 31) >> 40) / (1 << 23) - 1);
}

static inline struct draft_tensor *given(struct op_test *t, int rank, const int64_t *dim)
{
    struct draft_tensor *x = draft_new(&t->g, DRAFT_F32, rank, dim);
    assert_non_null(x);
    for (int64_t i = 0; i < draft_tensor_count(x); i++)
        draft_f32(x)[i] = op_random(t);
    x->needs_grad = true;
    return x;
}

/* GIVEN(t, 2, 3): a leaf [2, 3] of random numbers */
#define GIVEN(t, ...) given(t, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})

/* The wrapper refused: the op and a shape are named. The graph works again afterwards. */
static inline void assert_refused(struct op_test *t, const struct draft_tensor *result, const char *op,
                                  const char *says)
{
    assert_null(result);
    assert_int_equal(t->g.error.code, DRAFT_INVALID_ARGUMENT);
    if (strstr(t->g.error.message, op) != t->g.error.message || strstr(t->g.error.message, says) == NULL)
        fail_msg("\"%s\" should begin with \"%s\" and hold \"%s\"", t->g.error.message, op, says);
    t->g.error = (struct draft_error){0};
}

static inline void assert_ok(struct op_test *t)
{
    if (!draft_graph_ok(&t->g))
        fail_msg("%s", t->g.error.message);
}

static inline void *op_array(int64_t n, size_t size)
{
    void *p = calloc(n > 0 ? (size_t)n : 1, size);
    assert_non_null(p);
    return p;
}

static inline void assert_near(const char *what, int index, const float *got, const double *expected, int64_t n,
                               double tolerance)
{
    double largest = 0;
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(expected[i]));
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(got[i] - expected[i]) <= tolerance * fmax(largest, 0.01)))
            fail_msg("%s %d, element %lld of %lld: %.9g, expected %.9g (largest %.3g)", what, index, (long long)i,
                     (long long)n, (double)got[i], expected[i], largest);
}

static inline double op_twin_loss(const struct op_case *c, const double *const *x, const float *seed, double *y,
                                  int64_t n)
{
    c->twin(c, x, y);
    double loss = 0;
    for (int64_t i = 0; i < n; i++)
        loss += y[i] * (double)seed[i];
    return loss;
}

struct op_expected {
    double *x[DRAFT_MAX_INPUTS], *dx[DRAFT_MAX_INPUTS];
    float *seed;
    int64_t n_out;
};

static inline void op_differences(const struct op_case *c, struct op_expected *e, double *y)
{
    const double step = 1e-5;
    for (int i = 0; i < DRAFT_MAX_INPUTS; i++) {
        for (int64_t j = 0; e->x[i] != NULL && j < draft_tensor_count(c->in[i]); j++) {
            double x = e->x[i][j], up, down;
            e->x[i][j] = x + step;
            up = op_twin_loss(c, (const double *const *)e->x, e->seed, y, e->n_out);
            e->x[i][j] = x - step;
            down = op_twin_loss(c, (const double *const *)e->x, e->seed, y, e->n_out);
            e->x[i][j] = x;
            e->dx[i][j] = (up - down) / (2 * step);
        }
    }
}

/* Fresh memory holds NaN, so that what reads before it writes is seen. */
static inline void op_poison(struct op_test *t)
{
    size_t mark = draft_arena_mark(t->arena), bytes = (size_t)4 << 20;
    memset(draft_arena_alloc(t->arena, bytes), 0xff, bytes);
    draft_arena_release(t->arena, mark);
}

/* in[i], or `x` in its place, as the op is to read it. */
static inline struct draft_tensor *op_input(struct op_test *t, const struct op_case *c, int i, struct draft_tensor *x)
{
    bool is_activation = x != NULL && x->dtype == DRAFT_F32 && !(c->weights >> i & 1);
    return is_activation ? draft_convert(&t->g, x, t->g.activations) : x;
}

/* The op on these inputs; its result in F32. */
static inline struct draft_tensor *op_run(struct op_test *t, const struct op_case *c, struct draft_tensor *const *in)
{
    struct draft_tensor *read[DRAFT_MAX_INPUTS];
    for (int i = 0; i < DRAFT_MAX_INPUTS; i++)
        read[i] = op_input(t, c, i, in[i]);
    return draft_convert(&t->g, c->run(&t->g, read, c->context), DRAFT_F32);
}

/* Of each input that needs a gradient, an activation equal to it. */
static inline void op_activations(struct op_test *t, const struct op_case *c, const struct op_expected *e,
                                  struct draft_tensor **activation)
{
    for (int i = 0; i < DRAFT_MAX_INPUTS; i++)
        activation[i] = e->x[i] != NULL ? op_input(t, c, i, draft_axpby(&t->g, 1, c->in[i], 0, NULL)) : c->in[i];
}

/* One recorded run and its backward pass; the leaves hold their gradients until the next reset. */
static inline void op_backward(struct op_test *t, const struct op_case *c, const float *seed)
{
    op_poison(t);
    struct draft_tensor *y = op_run(t, c, c->in);
    assert_ok(t);
    assert_true(draft_graph_backward(&t->g, y, seed) || (assert_ok(t), false));
}

/* dx into a buffer of its owner's whose contents are undefined */
static inline void op_check_overwrite(struct op_test *t, const struct op_case *c, const struct op_expected *e,
                                      double tolerance, struct draft_mark mark)
{
    for (int i = 0; i < DRAFT_MAX_INPUTS; i++)
        if (e->x[i] != NULL) {
            int64_t n = draft_tensor_count(c->in[i]);
            c->in[i]->grad = op_array(n, sizeof(float));
            memset(c->in[i]->grad, 0xff, (size_t)n * sizeof(float));
        }
    op_backward(t, c, e->seed);
    for (int i = 0; i < DRAFT_MAX_INPUTS; i++)
        if (e->x[i] != NULL) {
            assert_true(c->in[i]->grad_written);
            assert_near("gradient of input", i, c->in[i]->grad, e->dx[i], draft_tensor_count(c->in[i]), tolerance);
            free(c->in[i]->grad);
            c->in[i]->grad = NULL;
            c->in[i]->grad_written = false;
        }
    draft_graph_reset(&t->g, &mark);
}

/* dx into a buffer that holds numbers already, then into activations that something else reads too. */
static inline void op_check_accumulate(struct op_test *t, const struct op_case *c, const struct op_expected *e,
                                       double tolerance, struct draft_mark mark)
{
    double *sum[DRAFT_MAX_INPUTS] = {0};
    float *buffer[DRAFT_MAX_INPUTS] = {0};
    int64_t all = e->n_out;
    for (int i = 0; i < DRAFT_MAX_INPUTS; i++) {
        if (e->x[i] == NULL)
            continue;
        int64_t n = draft_tensor_count(c->in[i]);
        sum[i] = op_array(n, sizeof *sum[i]);
        buffer[i] = op_array(n, sizeof *buffer[i]);
        for (int64_t j = 0; j < n; j++) {
            buffer[i][j] = op_random(t);
            sum[i][j] = e->dx[i][j] + (double)buffer[i][j];
        }
        all += n;
    }
    /* the same second part, as the seed of the inputs' other consumer */
    float *seed = op_array(all, sizeof *seed);
    memcpy(seed, e->seed, (size_t)e->n_out * sizeof *seed);
    int64_t at = e->n_out;
    for (int i = 0; i < DRAFT_MAX_INPUTS; i++)
        if (e->x[i] != NULL) {
            memcpy(seed + at, buffer[i], (size_t)draft_tensor_count(c->in[i]) * sizeof *seed);
            at += draft_tensor_count(c->in[i]);
            c->in[i]->grad = buffer[i];
            c->in[i]->grad_written = true;
        }
    op_backward(t, c, e->seed);
    for (int i = 0; i < DRAFT_MAX_INPUTS; i++)
        if (e->x[i] != NULL) {
            assert_ptr_equal(c->in[i]->grad, buffer[i]);
            assert_near("added gradient of input", i, buffer[i], sum[i], draft_tensor_count(c->in[i]), tolerance);
            c->in[i]->grad = NULL;
            c->in[i]->grad_written = false;
        }
    draft_graph_reset(&t->g, &mark);

    struct draft_graph *g = &t->g;
    struct draft_tensor *activation[DRAFT_MAX_INPUTS] = {0};
    op_poison(t);
    op_activations(t, c, e, activation);
    struct draft_tensor *root = op_run(t, c, activation);
    assert_ok(t);
    root = draft_reshape(g, root, 1, &(int64_t){draft_tensor_count(root)});
    for (int i = 0; i < DRAFT_MAX_INPUTS; i++)
        if (e->x[i] != NULL) {
            struct draft_tensor *flat =
                draft_reshape(g, activation[i], 1, &(int64_t){draft_tensor_count(activation[i])});
            root = draft_concat_batch(g, root, draft_convert(g, flat, DRAFT_F32));
        }
    assert_true(draft_graph_backward(g, root, seed) || (assert_ok(t), false));
    for (int i = 0; i < DRAFT_MAX_INPUTS; i++)
        if (e->x[i] != NULL)
            assert_near("gradient of the twice-read activation", i, c->in[i]->grad, sum[i],
                        draft_tensor_count(c->in[i]), tolerance);
    draft_graph_reset(g, &mark);
    for (int i = 0; i < DRAFT_MAX_INPUTS; i++) {
        free(sum[i]);
        free(buffer[i]);
    }
    free(seed);
}

/* `scoped`: with what backward does not read given back before it, the result's own values too. */
static inline void op_check_activation(struct op_test *t, const struct op_case *c, const struct op_expected *e,
                                       double tolerance, struct draft_mark mark, bool scoped)
{
    struct draft_tensor *activation[DRAFT_MAX_INPUTS] = {0};
    op_poison(t);
    op_activations(t, c, e, activation);
    struct draft_tensor *y = op_run(t, c, activation);
    if (scoped)
        y = draft_scope_end(&t->g, mark, draft_axpby(&t->g, 1, y, 0, NULL));
    assert_ok(t);
    assert_true(draft_graph_backward(&t->g, y, e->seed) || (assert_ok(t), false));
    for (int i = 0; i < DRAFT_MAX_INPUTS; i++)
        if (e->x[i] != NULL) {
            assert_null(activation[i]->grad);
            assert_near(scoped ? "gradient with little left: of input" : "gradient through activation", i,
                        c->in[i]->grad, e->dx[i], draft_tensor_count(c->in[i]), tolerance);
        }
    draft_graph_reset(&t->g, &mark);
}

static inline void op_check_frozen(struct op_test *t, const struct op_case *c, const struct op_expected *e,
                                   double tolerance, struct draft_mark mark)
{
    int wanted = 0;
    for (int i = 0; i < DRAFT_MAX_INPUTS; i++)
        wanted += e->x[i] != NULL;
    for (int frozen = 0; wanted > 1 && frozen < DRAFT_MAX_INPUTS; frozen++) {
        if (e->x[frozen] == NULL)
            continue;
        c->in[frozen]->needs_grad = false;
        op_backward(t, c, e->seed);
        assert_null(c->in[frozen]->grad);
        for (int i = 0; i < DRAFT_MAX_INPUTS; i++)
            if (e->x[i] != NULL && i != frozen)
                assert_near("gradient beside a frozen input: of input", i, c->in[i]->grad, e->dx[i],
                            draft_tensor_count(c->in[i]), tolerance);
        c->in[frozen]->needs_grad = true;
        /* the backend may have packed it as a frozen weight */
        draft_backend_forget(t->backend, c->in[frozen]);
        draft_graph_reset(&t->g, &mark);
    }
}

/* To numbers that BF16 has. */
static inline void op_round(struct draft_tensor *x)
{
    for (int64_t i = 0; x != NULL && x->dtype == DRAFT_F32 && i < draft_tensor_count(x); i++)
        draft_f32(x)[i] = draft_bf16_to_f32(draft_f32_to_bf16(draft_f32(x)[i]));
}

static inline void check_op(struct op_test *t, const struct op_case *c)
{
    double forward = c->forward > 0 ? c->forward : 1e-6, gradient = c->gradient > 0 ? c->gradient : 1e-5;
    struct draft_mark mark = draft_graph_mark(&t->g);
    struct op_expected e = {0};
    if (t->g.activations == DRAFT_BF16) {
        forward = gradient = OP_BF16;
        for (int i = 0; i < DRAFT_MAX_INPUTS; i++)
            op_round(c->in[i]);
    }

    bool was = draft_no_grad(&t->g);
    op_poison(t);
    struct draft_tensor *y = op_run(t, c, c->in);
    t->g.recording = was;
    assert_ok(t);
    assert_false(y->needs_grad);
    e.n_out = draft_tensor_count(y);
    e.seed = op_array(e.n_out, sizeof *e.seed);
    for (int64_t i = 0; i < e.n_out; i++)
        e.seed[i] = op_random(t);
    for (int i = 0; i < DRAFT_MAX_INPUTS; i++) {
        if (c->in[i] == NULL || c->in[i]->dtype != DRAFT_F32 || !c->in[i]->needs_grad)
            continue;
        int64_t n = draft_tensor_count(c->in[i]);
        e.x[i] = op_array(n, sizeof *e.x[i]);
        e.dx[i] = op_array(n, sizeof *e.dx[i]);
        for (int64_t j = 0; j < n; j++)
            e.x[i][j] = (double)draft_f32(c->in[i])[j];
    }
    double *expected = op_array(e.n_out, sizeof *expected);
    c->twin(c, (const double *const *)e.x, expected);
    assert_near("result", 0, draft_f32(y), expected, e.n_out, forward);
    draft_graph_reset(&t->g, &mark);

    op_differences(c, &e, expected);
    op_check_overwrite(t, c, &e, gradient, mark);
    op_check_accumulate(t, c, &e, gradient, mark);
    op_check_activation(t, c, &e, gradient, mark, false);
    op_check_activation(t, c, &e, gradient, mark, true);
    op_check_frozen(t, c, &e, gradient, mark);

    assert_int_equal(draft_arena_live(t->arena), mark.step);
    for (int i = 0; i < DRAFT_MAX_INPUTS; i++) {
        free(e.x[i]);
        free(e.dx[i]);
    }
    free(e.seed);
    free(expected);
}

#define op_test_case(f) cmocka_unit_test_setup_teardown(f, op_setup, op_teardown)

#endif
