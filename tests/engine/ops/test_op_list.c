/* ops.def names every op; each has its descriptor, its file and its test, and no op file is missing in it. */
#include "op_case.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const names[] = {
#define DRAFT_OP(name) #name,
#include "ops/ops.def"
#undef DRAFT_OP
    NULL};

static bool is_op(const char *name)
{
    for (int i = 0; names[i] != NULL; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static void test_op_list__descriptors_carry_their_name_and_a_way_back_or_the_reason_why_not(void **state)
{
    (void)state;
    for (int i = 0; names[i] != NULL; i++) {
        assert_string_equal(draft_op_list[i]->name, names[i]);
        assert_non_null(draft_op_list[i]->forward);
        assert_true(draft_op_list[i]->anywhere || draft_op_list[i]->id == (enum draft_op_id)i);
        if ((draft_op_list[i]->backward == NULL) == (draft_op_list[i]->no_gradient == NULL))
            fail_msg("%s needs either a backward or DRAFT_NO_GRADIENT", names[i]);
    }
}

static void test_op_list__every_op_has_its_own_file_and_test(void **state)
{
    (void)state;
    for (int i = 0; names[i] != NULL; i++) {
        char path[1024];
        struct stat info;
        snprintf(path, sizeof path, FIXTURES "/../../engine/ops/%s.c", names[i]);
        if (stat(path, &info) != 0)
            fail_msg("%s is named in ops.def and has no file %s", names[i], path);
        strcat(path, "u");
        if (stat(path, &info) != 0)
            fail_msg("%s has no CUDA column, %s", names[i], path);
        snprintf(path, sizeof path, FIXTURES "/../engine/ops/test_%s.c", names[i]);
        if (stat(path, &info) != 0)
            fail_msg("%s is named in ops.def and has no test %s", names[i], path);
    }
}

static void test_op_list__every_file_beside_the_ops_is_named(void **state)
{
    (void)state;
    DIR *folder = opendir(FIXTURES "/../../engine/ops");
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char name[256];
        snprintf(name, sizeof name, "%s", entry->d_name);
        char *dot = strrchr(name, '.');
        if (dot == NULL || strcmp(dot, ".c") != 0)
            continue;
        *dot = 0;
        char header[1024];
        snprintf(header, sizeof header, FIXTURES "/../../engine/ops/%s.h", name);
        if (!is_op(name) && access(header, R_OK) != 0) /* what ops share has a header */
            fail_msg("engine/ops/%s is not named in ops.def", entry->d_name);
    }
    closedir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_op_list__descriptors_carry_their_name_and_a_way_back_or_the_reason_why_not),
        cmocka_unit_test(test_op_list__every_op_has_its_own_file_and_test),
        cmocka_unit_test(test_op_list__every_file_beside_the_ops_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
