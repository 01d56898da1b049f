/*
 * Attention in BF16 on the CUDA backend, over fakes, beside the CPU's in F32 with the same numbers: through cuDNN's
 * plans, whose operations the fake carries out one by one, and unfused where there is no plan.
 */
#include "engine/ops/op_case.h"

#include "tensor/half.h"

struct shape {
    int64_t n, s, t, heads, d;
    bool causal, fused;
};

/* One backend with its arena and graph. */
static void open_on(struct op_test *t, const char *device)
{
    struct draft_error err = {0};
    t->backend = draft_backend_open(device, NULL, &(struct draft_backend_options){.threads = 1}, &draft_services, &err);
    t->arena = t->backend != NULL ? draft_backend_arena(t->backend, "step", (size_t)1 << 30, &err) : NULL;
    if (t->arena == NULL || !draft_graph_init(&t->g, t->backend, t->arena, &err))
        fail_msg("%s", err.message);
}

static void close_on(struct op_test *t)
{
    draft_graph_finish(&t->g);
    draft_arena_destroy(t->arena);
    draft_backend_destroy(t->backend);
}

/* y, and the gradient of sum(seed y) to q, k and v. */
struct result {
    float *y, *d[3];
};

static struct draft_tensor *attend(struct draft_graph *g, struct draft_tensor **leaf, enum draft_dtype type,
                                   const struct shape *s, bool *fused)
{
    struct draft_tensor *x[3];
    for (int i = 0; i < 3; i++)
        x[i] = draft_convert(g, leaf[i], type);
    struct draft_tensor *y = draft_attention(g, x[0], x[1], x[2], (int)s->heads, s->causal);
    assert_true(y != NULL || !draft_graph_ok(g));
    *fused = y != NULL && g->tape->last->call.saved[0] != NULL;
    return y;
}

static struct result run(struct op_test *t, enum draft_dtype type, const struct shape *s, float *const *values,
                         const float *seed, bool *fused)
{
    const int64_t rows[] = {s->s, s->t, s->t};
    struct draft_tensor *leaf[3];
    struct result r = {0};
    for (int i = 0; i < 3; i++) {
        leaf[i] = draft_new(&t->g, DRAFT_F32, 3, (int64_t[]){s->n, rows[i], s->heads * s->d});
        memcpy(leaf[i]->data, values[i], (size_t)draft_tensor_count(leaf[i]) * sizeof(float));
        leaf[i]->needs_grad = true;
    }
    struct draft_tensor *y = draft_convert(&t->g, attend(&t->g, leaf, type, s, fused), DRAFT_F32);
    assert_ok(t);
    r.y =
        memcpy(op_array(draft_tensor_count(y), sizeof(float)), y->data, (size_t)draft_tensor_count(y) * sizeof(float));
    if (!draft_graph_backward(&t->g, y, seed))
        assert_ok(t);
    for (int i = 0; i < 3; i++)
        r.d[i] = memcpy(op_array(draft_tensor_count(leaf[i]), sizeof(float)), leaf[i]->grad,
                        (size_t)draft_tensor_count(leaf[i]) * sizeof(float));
    draft_graph_reset(&t->g, NULL);
    return r;
}

static void close_to(const char *what, const float *got, const float *expected, int64_t n)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)got[i] - expected[i]) * ((double)got[i] - expected[i]);
        size += (double)expected[i] * expected[i];
    }
    if (!(sqrt(difference / size) <= 1e-2))
        fail_msg("%s: %g off", what, sqrt(difference / size));
}

static float *rounded_numbers(struct op_test *t, int64_t n)
{
    float *x = op_array(n, sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = draft_bf16_to_f32(draft_f32_to_bf16(2 * op_random(t)));
    return x;
}

/* Without gradient, with room behind the rows of the result: the same rows bit for bit. */
static void check_room(struct op_test *t, const struct shape *s, float *const *values)
{
    enum { ROOM = 8 };
    struct draft_graph *g = &t->g;
    const int64_t rows[] = {s->s, s->t, s->t}, width = s->heads * s->d;
    struct draft_tensor *x[3];
    bool was = draft_no_grad(g);
    for (int i = 0; i < 3; i++) {
        x[i] = draft_new(g, DRAFT_F32, 3, (int64_t[]){s->n, rows[i], width});
        memcpy(x[i]->data, values[i], (size_t)draft_tensor_count(x[i]) * sizeof(float));
        x[i] = draft_convert(g, x[i], DRAFT_BF16);
    }
    struct draft_tensor *y = draft_attention(g, x[0], x[1], x[2], (int)s->heads, s->causal);
    g->room = ROOM;
    struct draft_tensor *z = draft_attention(g, x[0], x[1], x[2], (int)s->heads, s->causal);
    g->room = 0;
    g->recording = was;
    assert_ok(t);
    assert_int_equal(z->row, width % ROOM == 0 ? width + ROOM : 0);
    for (int64_t i = 0; i < s->n * s->s; i++)
        assert_memory_equal((char *)z->data + i * (z->row > 0 ? z->row : width) * 2, (char *)y->data + i * width * 2,
                            (size_t)width * 2);
    draft_graph_reset(g, NULL);
}

static void check(const struct shape *s)
{
    struct op_test cpu = {0}, gpu = {0};
    const int64_t width = s->heads * s->d, of_q = s->n * s->s * width, of_k = s->n * s->t * width;
    open_on(&cpu, "cpu");
    open_on(&gpu, "cuda");
    float *values[] = {rounded_numbers(&cpu, of_q), rounded_numbers(&cpu, of_k), rounded_numbers(&cpu, of_k)};
    float *seed = rounded_numbers(&cpu, of_q);
    bool fused, of_cpu;
    struct result want = run(&cpu, DRAFT_F32, s, values, seed, &of_cpu);
    struct result got = run(&gpu, DRAFT_BF16, s, values, seed, &fused);
    if (fused != s->fused)
        fail_msg("%d heads of %d are %sfused", (int)s->heads, (int)s->d, fused ? "" : "not ");
    close_to("y", got.y, want.y, of_q);
    check_room(&gpu, s, values);
    for (int i = 0; i < 3; i++) {
        close_to((const char *[]){"dq", "dk", "dv"}[i], got.d[i], want.d[i], i == 0 ? of_q : of_k);
        free(got.d[i]);
        free(want.d[i]);
        free(values[i]);
    }
    free(got.y);
    free(want.y);
    free(seed);
    close_on(&cpu);
    close_on(&gpu);
}

static void test_attention_fused__through_cudnn_is_the_cpu_s(void **state)
{
    (void)state;
    check(&(struct shape){2, 33, 77, 2, 40, false, true});
    check(&(struct shape){1, 5, 3, 3, 8, false, true});
    check(&(struct shape){1, 16, 16, 2, 160, false, true}); /* the fake is an H200 */
}

static void test_attention_fused__without_a_plan_is_the_cpu_s(void **state)
{
    (void)state;
    check(&(struct shape){2, 9, 9, 2, 8, true, false});
    check(&(struct shape){1, 9, 7, 2, 5, false, false});
    check(&(struct shape){1, 7, 7, 1, 264, false, false});
}

int main(void)
{
    if (getenv("DRAFT_CUDA_PLUGIN") == NULL) {
        puts("DRAFT_CUDA_PLUGIN names no plugin");
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_fused__through_cudnn_is_the_cpu_s),
        cmocka_unit_test(test_attention_fused__without_a_plan_is_the_cpu_s),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
