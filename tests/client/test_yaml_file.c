/* YAML job files: the JSON they stand for, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spec.h"
#include "yaml_file.h"

static void assert_stands_for(const char *yaml, const char *json)
{
    struct draft_error err = {0};
    json_t *found = draft_yaml_load(yaml, strlen(yaml), "job.yaml", &err);
    if (!found)
        fail_msg("%s\n%s", yaml, err.message);
    json_t *wanted = json_loads(json, JSON_DECODE_ANY, NULL);
    assert_non_null(wanted);
    if (!json_equal(found, wanted))
        fail_msg("%s\ngives %s", yaml, json_dumps(found, JSON_ENCODE_ANY));
    json_decref(found);
    json_decref(wanted);
}

static void test_yaml_file__stands_for_json(void **state)
{
    (void)state;
    assert_stands_for(
        "model: sd\nsampling:\n  steps: 25   # T\n  guidance: 7.5\nrewards:\n- kind: clip\n  weight: -2e-1\n",
        "{\"model\": \"sd\", \"sampling\": {\"steps\": 25, \"guidance\": 7.5}, \"rewards\": [{\"kind\": "
        "\"clip\", \"weight\": -0.2}]}");
    assert_stands_for("{a: [1, +2, -3, .5, 1., 1e3], b: {}, c: []}",
                      "{\"a\": [1, 2, -3, 0.5, 1.0, 1000.0], \"b\": {}, \"c\": []}");
    assert_stands_for("a: true\nb: FALSE\nc: ~\nd:\ne: null\nf: yes\ng: 'true'\nh: \"12\"\n",
                      "{\"a\": true, \"b\": false, \"c\": null, \"d\": null, \"e\": null, \"f\": \"yes\", \"g\": "
                      "\"true\", \"h\": \"12\"}");
    assert_stands_for("seed: 18446744073709551615\nx: 1e999\nv: 1.2.3\nw: 0x10\n",
                      "{\"seed\": \"18446744073709551615\", \"x\": \"1e999\", \"v\": \"1.2.3\", \"w\": \"0x10\"}");
    assert_stands_for("p: |\n  a fox\n  in snow\nq: >-\n  one\n  line\nr: käse\n",
                      "{\"p\": \"a fox\\nin snow\\n\", \"q\": \"one line\", \"r\": \"käse\"}");
}

static void test_yaml_file__refusals_name_the_line(void **state)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "job.yaml: line 1: the file is empty"},
        {"a: 1\nb: 2\na: 3\n", "line 3: \"a\" stands here for the second time"},
        {"a: &x 1\nb: *x\n", "line 1: anchors and tags are not read here"},
        {"a: 1\nb: *x\n", "line 2: aliases are not read here"},
        {"a: !!python/object:os.system x\n", "line 1: anchors and tags"},
        {"a: {<<: 1}\n", "merge keys"},
        {"? [1]\n: 2\n", "line 1: expected a name"},
        {"a: 1\n---\nb: 2\n", "a second document begins"},
        {"a: [1, 2\n", "line 2: "},
        {"a:\n\t- 1\n", "line 2: "},
        {"a: \"\\xff\n", "line"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct draft_error err = {0};
        assert_null(draft_yaml_load(bad[i].text, strlen(bad[i].text), "job.yaml", &err));
        if (!strstr(err.message, bad[i].says))
            fail_msg("%s: %s", bad[i].text, err.message);
    }
    char deep[200];
    struct draft_error err = {0};
    memset(deep, '[', sizeof deep);
    assert_null(draft_yaml_load(deep, sizeof deep, "job.yaml", &err));
    assert_non_null(strstr(err.message, "too many levels"));
    err = (struct draft_error){0};
    assert_null(draft_yaml_load("a: \xff\n", 5, "job.yaml", &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
}

static void test_yaml_file__fills_a_job_and_names_fields(void **state)
{
    (void)state;
    static const char text[] = "seed: 18446744073709551615\nkl_coeff: 0\nlength: {steps: 7}\nrecompute: true\n"
                               "rewards:\n  - kind: jpeg\n    options: quality=50\nevaluation:\n  prompts: [a, b]\n";
    struct draft_error err = {0};
    Draftd__V1__JobSpec *spec = draft_spec_new();
    if (!draft_spec_from_text(spec, text, strlen(text), "job.yml", "/", &err))
        fail_msg("%s", err.message);
    assert_true(spec->seed == UINT64_MAX && spec->recompute && spec->length->steps == 7);
    assert_string_equal(spec->rewards[0]->options, "quality=50");
    assert_int_equal(spec->evaluation->n_prompts, 2);
    assert_false(draft_spec_from_text(spec, "modle: sd\n", 10, "job.yaml", "/", &err));
    assert_non_null(strstr(err.message, "did you mean \"model\"?"));
    protobuf_c_message_free_unpacked(&spec->base, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_yaml_file__stands_for_json),
        cmocka_unit_test(test_yaml_file__refusals_name_the_line),
        cmocka_unit_test(test_yaml_file__fills_a_job_and_names_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
