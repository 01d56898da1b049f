#include "op_case.h"

enum { WEIGHTS = 1 << 0 }; /* bits of inputs that are F32 always */

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    (void)context;
    return draft_embedding(g, in[0], in[1]);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    const int32_t *ids = c->in[1]->data;
    int64_t n = c->in[0]->dim[1];
    for (int64_t i = 0; i < draft_tensor_count(c->in[1]) * n; i++)
        y[i] = x[0][ids[i / n] * n + i % n];
}

static struct draft_tensor *given_ids(struct op_test *t, int64_t n, int64_t s, const int32_t *ids)
{
    struct draft_tensor *x = draft_new(&t->g, DRAFT_I32, 2, (int64_t[]){n, s});
    memcpy(x->data, ids, (size_t)(n * s) * sizeof *ids);
    return x;
}

/* ids that repeat, the first and the last row, and rows nobody reads */
static void test_embedding__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *ids = given_ids(t, 2, 4, (int32_t[]){3, 0, 3, 6, 6, 6, 1, 0});
    check_op(t, &(struct op_case){.in = {GIVEN(t, 7, 5), ids}, .run = run, .weights = WEIGHTS, .twin = twin});
}

static void test_embedding__refuses_an_id_outside_the_table(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *table = GIVEN(t, 7, 5);
    assert_refused(t, draft_embedding(&t->g, table, given_ids(t, 1, 2, (int32_t[]){6, 7})), "embedding", "row 7");
    assert_refused(t, draft_embedding(&t->g, table, given_ids(t, 1, 2, (int32_t[]){-1, 0})), "embedding", "row -1");
    assert_refused(t, draft_embedding(&t->g, table, GIVEN(t, 1, 2)), "embedding", "[7, 5] and [1, 2]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_embedding__equals_its_double_twin),
        op_test_case(test_embedding__refuses_an_id_outside_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
