#include "model_case.h"

#include "models/lora.h"

static struct draft_arena *arena(void)
{
    struct draft_error err = {0};
    struct draft_arena *made = draft_arena_create("test", (size_t)1 << 30, &err);
    assert_non_null(made);
    return made;
}

static double deviation(const struct draft_tensor *t, double *mean)
{
    double sum = 0, square = 0, n = (double)draft_tensor_count(t);
    for (int64_t i = 0; i < draft_tensor_count(t); i++) {
        sum += draft_f32(t)[i];
        square += (double)draft_f32(t)[i] * draft_f32(t)[i];
    }
    *mean = sum / n;
    return sqrt(square / n - *mean * *mean);
}

static void test_lora__down_is_xavier_normal_and_up_is_zero(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_arena *a = arena();
    struct draft_adapter *adapter = draft_adapter_create(a, 32, 32, 1, &err);
    const struct draft_lora *lora = draft_adapter_add(adapter, "m.to_q", 2000, 320, &err);
    double mean, std = sqrt(2.0 / (2000 + 32));
    assert_true(fabs(deviation(lora->down, &mean) / std - 1) < 0.02); /* 64000 numbers: 3 sigma is 0.8 % */
    assert_true(fabs(mean) < 0.02 * std);
    assert_true(lora->down->dim[0] == 32 && lora->down->dim[1] == 2000);
    assert_true(lora->up->dim[0] == 320 && lora->up->dim[1] == 32);
    for (int64_t i = 0; i < draft_tensor_count(lora->up); i++)
        assert_true(draft_f32(lora->up)[i] == 0);
    assert_string_equal(lora->down->name, "m.to_q.lora.down.weight");
    assert_string_equal(lora->up->name, "m.to_q.lora.up.weight");
    assert_true(lora->down->needs_grad && lora->up->needs_grad);
    assert_int_equal(draft_adapter_parameters(adapter), 32 * (2000 + 320));
    draft_arena_destroy(a);
}

static void test_lora__equal_seeds_give_equal_numbers_and_places_and_seeds_differ(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_arena *a = arena();
    struct draft_adapter *one = draft_adapter_create(a, 4, 4, 9, &err), *same = draft_adapter_create(a, 4, 4, 9, &err);
    struct draft_adapter *other = draft_adapter_create(a, 4, 4, 10, &err);
    const struct draft_lora *x = draft_adapter_add(one, "a", 16, 8, &err),
                            *y = draft_adapter_add(same, "a", 16, 8, &err);
    const struct draft_lora *z = draft_adapter_add(one, "b", 16, 8, &err),
                            *w = draft_adapter_add(other, "a", 16, 8, &err);
    assert_memory_equal(x->down->data, y->down->data, 64 * sizeof(float));
    assert_memory_not_equal(x->down->data, z->down->data, 64 * sizeof(float));
    assert_memory_not_equal(x->down->data, w->down->data, 64 * sizeof(float));
    draft_arena_destroy(a);
}

static void test_lora__strength_scales_alpha_over_rank_for_all_entries(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_arena *a = arena();
    struct draft_adapter *adapter = draft_adapter_create(a, 8, 4, 1, &err);
    const struct draft_lora *first = draft_adapter_add(adapter, "a", 4, 4, &err);
    for (int i = 0; i < 300; i++)
        assert_non_null(draft_adapter_add(adapter, "b", 4, 4, &err));
    assert_ptr_equal(first, &adapter->entry[0].lora); /* entries never move: layers point at them */
    assert_true(*first->scale == 0.5f && *first->on);
    draft_adapter_set_strength(adapter, 0.5f);
    assert_true(*first->scale == 0.25f && *adapter->entry[300].lora.scale == 0.25f);
    adapter->on = false;
    assert_false(*first->on);
    draft_arena_destroy(a);
}

static void test_lora__refuses_an_absurd_rank_or_alpha(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_arena *a = arena();
    assert_null(draft_adapter_create(a, 0, 1, 1, &err));
    assert_non_null(strstr(err.message, "rank"));
    err = (struct draft_error){0};
    assert_null(draft_adapter_create(a, 8, NAN, 1, &err));
    assert_non_null(strstr(err.message, "alpha"));
    draft_arena_destroy(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lora__down_is_xavier_normal_and_up_is_zero),
        cmocka_unit_test(test_lora__equal_seeds_give_equal_numbers_and_places_and_seeds_differ),
        cmocka_unit_test(test_lora__strength_scales_alpha_over_rank_for_all_entries),
        cmocka_unit_test(test_lora__refuses_an_absurd_rank_or_alpha),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
