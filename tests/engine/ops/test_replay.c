/*
 * Replay of blocks (autograd/replay.h). The CPU backend runs them every time; over the CUDA fakes, whose device here
 * does nothing before it is waited for, they are recorded.
 */
#include "op_case.h"

#include "autograd/replay.h"
#include "engine/backend/cuda/fake_counts.h"

struct blocks {
    struct op_test *t;
    struct draft_graph *g;
    struct draft_tensor *in, *out;
    int calls;
    enum { WHOLE, READS, SENDS, ALLOCATES, FORKS, MIXES, STOPS } fault;
};

static struct blocks open_blocks(struct op_test *t)
{
    draft_graph_reset(&t->g, NULL);
    return (struct blocks){.t = t, .g = &t->g, .in = draft_scalar(&t->g, 0), .out = draft_scalar(&t->g, 0)};
}

/* out = 2 in, through something in the arena */
static bool doubles(struct draft_graph *g, void *context)
{
    struct blocks *b = context;
    b->calls++;
    struct draft_tensor *twice = draft_axpby(g, 2, b->in, 0, NULL);
    if (b->fault == READS && !draft_read(g, twice))
        return false;
    if (b->fault == SENDS && !draft_scalar(g, 1))
        return false;
    if (b->fault == ALLOCATES) {
        void *more = draft_backend_alloc(g->backend, 64, &g->error);
        if (!more)
            return false;
        draft_backend_free(g->backend, more);
    }
    if (b->fault == FORKS || b->fault == MIXES)
        fake_misuse(b->fault == FORKS ? 904 : 906);
    if (b->fault == STOPS && b->calls == 2)
        return draft_fail(&g->error, DRAFT_CANCELLED, "stopped");
    return twice && draft_copy_values(g, b->out, twice);
}

static bool run(struct blocks *b, float in, double number)
{
    struct draft_mark mark = draft_graph_mark(b->g);
    float *array = draft_write(b->g, b->in);
    *array = in;
    assert_true(draft_written(b->g, b->in, array));
    draft_graph_release(b->g, mark);
    const struct draft_replay_key key = {
        .name = "doubling", .number = {number}, .address = {b->in->data, b->out->data}};
    return draft_replay(b->g, &key, doubles, b);
}

static float out(struct blocks *b)
{
    const float *value = draft_read(b->g, b->out);
    assert_non_null(value);
    return *value;
}

static void check_runs(struct blocks *b, int runs)
{
    for (int i = 1; i <= runs; i++) {
        struct draft_mark before = draft_graph_mark(b->g);
        assert_true(run(b, (float)i, 0));
        struct draft_mark after = draft_graph_mark(b->g);
        assert_true(before.step == after.step && before.notes == after.notes);
        assert_true(out(b) == 2 * (float)i);
        draft_graph_release(b->g, before);
    }
}

static void test_replay__calls_a_block_twice_and_launches_it_from_then_on(void **state)
{
    struct blocks b = open_blocks(*state);
    check_runs(&b, 5);
    assert_int_equal(b.calls, 2);
    assert_int_equal(draft_replay_count(b.g).launched, 4);
}

static void test_replay__another_key_another_place_or_memory_given_back_is_recorded_anew(void **state)
{
    struct blocks b = open_blocks(*state);
    for (int i = 0; i < 3; i++)
        assert_true(run(&b, 1, 0) && run(&b, 1, 7));
    assert_int_equal(b.calls, 4);
    struct draft_mark mark = draft_graph_mark(b.g);
    assert_non_null(draft_scalar(b.g, 1)); /* the arenas are filled further now */
    assert_true(run(&b, 1, 0));
    assert_int_equal(b.calls, 5);
    draft_graph_release(b.g, mark);
    assert_true(run(&b, 1, 0));
    assert_int_equal(b.calls, 5);
    struct draft_error err = {0};
    draft_backend_free(b.t->backend, draft_backend_alloc(b.t->backend, 64, &err));
    for (int i = 0; i < 3; i++)
        assert_true(run(&b, 1, 0));
    assert_int_equal(b.calls, 7);
    assert_int_equal(fake_counts()->graphs, 2);
    for (int i = 0; i < 100; i++) /* as many as there are, not more */
        assert_true(run(&b, 1, i) && run(&b, 1, i));
    assert_true(fake_counts()->graphs <= 32);
}

/* It is run all the same: once more than there were runs, in vain. */
static void check_refused(struct op_test *t, int fault, const char *error)
{
    struct blocks b = open_blocks(t);
    b.fault = fault;
    check_runs(&b, 4);
    assert_int_equal(b.calls, 5);
    assert_int_equal(draft_replay_count(b.g).launched, 0);
    assert_non_null(strstr(draft_replay_refusal(b.g), "doubling: "));
    assert_non_null(strstr(draft_replay_refusal(b.g), error));
}

static void test_replay__a_block_that_reads_cannot_be_recorded(void **state)
{
    check_refused(*state, READS, "error 900");
}

static void test_replay__a_block_that_sends_cannot_be_recorded(void **state)
{
    check_refused(*state, SENDS, "error 900");
}

static void test_replay__a_block_that_allocates_cannot_be_recorded(void **state)
{
    check_refused(*state, ALLOCATES, "error 900");
}

static void test_replay__a_block_with_a_stream_that_does_not_come_back_cannot_be_recorded(void **state)
{
    check_refused(*state, FORKS, "error 904");
}

static void test_replay__a_block_with_work_on_the_legacy_stream_cannot_be_recorded(void **state)
{
    check_refused(*state, MIXES, "error 906");
}

static void test_replay__one_that_is_stopped_while_it_is_recorded_has_done_nothing(void **state)
{
    struct blocks b = open_blocks(*state);
    b.fault = STOPS;
    assert_true(run(&b, 1, 0));
    assert_false(run(&b, 2, 0));
    assert_int_equal(b.g->error.code, DRAFT_CANCELLED);
    draft_graph_reset(b.g, NULL);
    b.in = draft_scalar(b.g, 0);
    b.out = draft_scalar(b.g, 0);
    b.fault = WHOLE;
    assert_true(run(&b, 3, 0) && run(&b, 3, 0) && run(&b, 3, 0));
    assert_null(draft_replay_refusal(b.g));
    assert_true(out(&b) == 6);
}

static void test_replay__nothing_is_recorded_where_each_op_is_waited_for(void **state)
{
    setenv("DRAFT_CUDA_SYNC", "1", 1);
    assert_int_equal(op_setup(state), 0);
    unsetenv("DRAFT_CUDA_SYNC");
    struct blocks b = open_blocks(*state);
    check_runs(&b, 4);
    assert_int_equal(b.calls, 4);
    const int64_t waits = fake_counts()->waits;
    assert_true(run(&b, 1, 0));
    assert_int_equal(fake_counts()->waits - waits, 1); /* of the one op */
    op_teardown(state);
}

static void test_replay__the_cpu_runs_a_block_every_time(void **state)
{
    struct blocks b = open_blocks(*state);
    check_runs(&b, 4);
    assert_int_equal(b.calls, 4);
}

static int on_cpu(void)
{
    const struct CMUnitTest tests[] = {op_test_case(test_replay__the_cpu_runs_a_block_every_time)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

static int over_fakes(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_replay__calls_a_block_twice_and_launches_it_from_then_on),
        op_test_case(test_replay__another_key_another_place_or_memory_given_back_is_recorded_anew),
        op_test_case(test_replay__a_block_that_reads_cannot_be_recorded),
        op_test_case(test_replay__a_block_that_sends_cannot_be_recorded),
        op_test_case(test_replay__a_block_that_allocates_cannot_be_recorded),
        op_test_case(test_replay__a_block_with_a_stream_that_does_not_come_back_cannot_be_recorded),
        op_test_case(test_replay__a_block_with_work_on_the_legacy_stream_cannot_be_recorded),
        op_test_case(test_replay__one_that_is_stopped_while_it_is_recorded_has_done_nothing),
        cmocka_unit_test(test_replay__nothing_is_recorded_where_each_op_is_waited_for),
    };
    setenv("FAKE_CUDA_LATE", "1", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    return getenv("TEST_DEVICE") != NULL ? over_fakes() : on_cpu();
}
