/* What a client adapts to: the daemon, which does not link the engine, must know what the engine has. */
#include "daemon_fixture.h"

#include <string.h>

#include "daemon.h"
#include "spec.h"

static const char *const engine_rewards[] = {
#define DRAFT_REWARD(name, help) #name,
#include "../../engine/rewards/rewards.def"
#undef DRAFT_REWARD
};

static void test_server_info__names_the_engines_rewards_each_with_its_form(void **state)
{
    struct fixture *f = *state;
    Draftd__V1__GetServerInfoResponse *info = NULL;
    assert_true(draftd_server_info(f->d, &info, NULL));
    assert_int_equal(info->n_rewards, sizeof engine_rewards / sizeof *engine_rewards);
    for (size_t i = 0; i < info->n_rewards; i++) {
        size_t length = strlen(engine_rewards[i]);
        assert_string_equal(info->rewards[i]->name, engine_rewards[i]);
        assert_true(strncmp(info->rewards[i]->help, engine_rewards[i], length) == 0);
        assert_int_equal(info->rewards[i]->help[length], ':');
    }
    fixture_free(info);
}

static const char *const engine_samplers[] = {
#define DRAFT_SAMPLER(name) #name,
#include "../../engine/sampler/samplers.def"
#undef DRAFT_SAMPLER
};

static void test_server_info__the_daemon_takes_the_engines_samplers_and_lists_them(void **state)
{
    (void)state;
    struct draft_error err = {0};
    assert_true(draftd_sampler_check("", "spec.sampler", &err));
    assert_false(draftd_sampler_check("heun", "spec.sampler", &err));
    assert_string_equal(err.field, "spec.sampler");
    for (size_t i = 0; i < sizeof engine_samplers / sizeof *engine_samplers; i++) {
        assert_true(draftd_sampler_check(engine_samplers[i], "spec.sampler", NULL));
        assert_non_null(strstr(err.message, engine_samplers[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_server_info__names_the_engines_rewards_each_with_its_form, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test(test_server_info__the_daemon_takes_the_engines_samplers_and_lists_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
