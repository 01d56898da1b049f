/* Checkpoints: going on bit for bit, and refusing whatever is not this job's own sound file. */
#include "demo_job.h"

#include <fcntl.h>
#include <math.h>

#include "state.h"

static void write_file(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    fclose(file);
}

static void assert_not_restored(struct draft_engine *e, const char *path, enum draft_code code)
{
    struct draft_error err = {0};
    assert_false(draft_engine_restore(e, path, &err));
    if (err.code != code)
        fail_msg("%s: %s, not %s", err.message, draft_code_name(err.code), draft_code_name(code));
}

static void assert_resumes(struct draft_job_config config)
{
    struct draft_error err = {0};
    struct draft_engine *whole = open_demo(&config, NULL);
    train(whole, 10);
    const char *undisturbed = save(whole, "whole");
    draft_engine_close(whole);

    struct draft_engine *first = open_demo(&config, NULL);
    train(first, 5);
    const char *half = save(first, "half");
    draft_engine_close(first);
    struct draft_engine *second = open_demo(&config, NULL);
    if (!draft_engine_restore(second, half, &err))
        fail_msg("%s", err.message);
    assert_int_equal(draft_engine_step_count(second), 5);
    train(second, 5);
    assert_same_files(undisturbed, save(second, "resumed"));
    draft_engine_close(second);
}

static void test_checkpoint__a_resumed_job_goes_on_bit_for_bit(void **state)
{
    (void)state;
    assert_resumes(demo_job());
}

static void test_checkpoint__a_resumed_job_draws_the_same_ancestral_noise(void **state)
{
    (void)state;
    struct draft_job_config config = demo_job();
    config.sampler = "euler_a";
    assert_resumes(config);
}

static void test_checkpoint__equal_states_give_equal_bytes(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_job_config config = demo_job();
    struct draft_engine *e = open_demo(&config, NULL);
    train(e, 2);
    const char *a = save(e, "a");
    struct draft_engine *other = open_demo(&config, NULL);
    assert_true(draft_engine_restore(other, a, &err));
    assert_same_files(a, save(other, "b"));
    draft_engine_close(e);
    draft_engine_close(other);
}

static void test_checkpoint__refuses_another_config(void **state)
{
    (void)state;
    struct draft_job_config config = demo_job();
    struct draft_engine *e = open_demo(&config, NULL);
    const char *path = save(e, "theirs");
    draft_engine_close(e);
    struct draft_job_config other[7];
    for (int i = 0; i < 7; i++)
        other[i] = config;
    other[0].kl_coeff = 0.5;
    other[1].seed = 12;
    other[2].learning_rate = 2e-3;
    other[3].lora_rank = 8;
    other[4].negative_prompt = "blurry";
    other[5].prompt_count = 4;
    other[6].sampler = "euler";
    for (int i = 0; i < 7; i++) {
        e = open_demo(&other[i], NULL);
        assert_not_restored(e, path, DRAFT_FAILED_PRECONDITION);
        draft_engine_close(e);
    }
}

static void test_checkpoint__a_longer_job_goes_on_from_it(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_job_config config = demo_job();
    struct draft_engine *e = open_demo(&config, NULL);
    train(e, 1);
    const char *path = save(e, "short");
    draft_engine_close(e);
    config.steps = 1000;
    config.threads = 1;
    e = open_demo(&config, NULL);
    assert_true(draft_engine_restore(e, path, &err));
    draft_engine_close(e);
}

static void test_checkpoint__refuses_damage_anywhere(void **state)
{
    (void)state;
    struct draft_job_config config = demo_job();
    struct draft_engine *e = open_demo(&config, NULL);
    train(e, 1);
    const char *good = save(e, "good"), *bad = in_folder("bad");
    size_t size;
    unsigned char *data = slurp(good, &size);
    struct draft_error err = {0};
    for (size_t at = 8; at < size; at += 1 + size / 97) {
        data[at] ^= 0x10;
        write_file(bad, data, size);
        data[at] ^= 0x10;
        err = (struct draft_error){0};
        assert_false(draft_engine_restore(e, bad, &err));
    }
    for (size_t cut = 0; cut < size; cut += 1 + size / 13) {
        write_file(bad, data, cut);
        err = (struct draft_error){0};
        assert_false(draft_engine_restore(e, bad, &err));
    }
    assert_not_restored(e, in_folder("absent"), DRAFT_NOT_FOUND);
    assert_not_restored(e, FIXTURES "/golden/torch_randn.safetensors", DRAFT_INVALID_ARGUMENT);
    /* None of this has touched the engine. */
    assert_same_files(good, save(e, "after"));
    free(data);
    draft_engine_close(e);
}

static void test_checkpoint__a_state_that_is_not_finite_is_not_saved(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_saved saved;
    struct draft_job_config config = demo_job();
    struct draft_engine *e = open_demo(&config, NULL);
    draft_f32(e->adapter->entry[3].lora.up)[1] = INFINITY;
    assert_false(draft_engine_save(e, in_folder("infinite"), &saved, &err));
    assert_int_equal(err.code, DRAFT_NON_FINITE);
    assert_int_equal(access(in_folder("infinite"), F_OK), -1);
    draft_engine_close(e);
}

static void test_checkpoint__a_failed_write_keeps_the_old_file(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_saved saved;
    struct draft_job_config config = demo_job();
    struct draft_engine *e = open_demo(&config, NULL);
    assert_false(draft_engine_save(e, in_folder("no/such/folder/file"), &saved, &err));
    assert_true(strlen(err.message) > 0);
    err = (struct draft_error){0};
    assert_false(draft_engine_save(e, "/dev/full/file", &saved, &err));
    draft_engine_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoint__a_resumed_job_goes_on_bit_for_bit),
        cmocka_unit_test(test_checkpoint__a_resumed_job_draws_the_same_ancestral_noise),
        cmocka_unit_test(test_checkpoint__equal_states_give_equal_bytes),
        cmocka_unit_test(test_checkpoint__refuses_another_config),
        cmocka_unit_test(test_checkpoint__a_longer_job_goes_on_from_it),
        cmocka_unit_test(test_checkpoint__refuses_damage_anywhere),
        cmocka_unit_test(test_checkpoint__a_state_that_is_not_finite_is_not_saved),
        cmocka_unit_test(test_checkpoint__a_failed_write_keeps_the_old_file),
    };
    return cmocka_run_group_tests(tests, NULL, remove_folder);
}
